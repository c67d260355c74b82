"""How runs ended that a real cluster ran (recorded with KFP 2.17.0, Argo 4.0.5): what `finish` says of each, what
MLflow has then, and what `submit --wait` says.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kubernetes import config
from mlflow.tracking import MlflowClient

from base.patience import Patience
from components.cluster.workflow import workflow_of
from components.kubeflow import ending
from components.kubeflow.client import Kubeflow, KubeflowError
from components.kubeflow.steps import NEEDS
from components.kubeflow.training import _claim
from components.kubeflow.watch import wait
from components.tracking import runs
from tests.servers.argo_server import NAMESPACE, ArgoServer
from tests.servers.kubeflow_server import KubeflowServer
from tests.servers.mlflow_server import using
from tests.stores import ready_store

RECORDED = Path(__file__).parent / "recorded"
STEPS = (*NEEDS, "hello", "fail", "nap", "oom", "at-exit")  # of our graph, and of the tiny ones that were recorded
QUICK = Patience(away=1, first_pause=0.001, longest_pause=0.001)
UI = "https://kubeflow.example.org/pipeline"
ANOTHER = "a run before"
WORLD = "WorldError: train.global_batch_size: 6 is not a multiple of train.device_batch_size 4 x 2 processes"
TAKEN = "train failed with exit code 1: JobError: kubeflow/train-35625c82a14b31e5 is the job of another run"


class Case(NamedTuple):
    """A recorded run. kubeflow: what its exit hook was told. said: by `finish`. status: pipeline_status in MLflow.
    waited: the end of what `submit --wait` says.
    """

    name: str
    kubeflow: str
    said: str
    status: str
    waited: str


CASES = (
    Case("good", "COMPLETE", "succeeded, with fetch, prepare from the cache", "SUCCEEDED", ""),
    Case(
        "good-cached",
        "COMPLETE",
        "succeeded, with fetch, prepare, train, evaluate, register from the cache",
        "SUCCEEDED",
        "",
    ),
    Case("cancelled-in-prepare", "RUNNING", "was cancelled", "CANCELED", "was cancelled"),
    Case("cancelled-in-train", "RUNNING", "was cancelled", "CANCELED", "was cancelled"),
    Case("bad-parameter", "FAILED", f"train failed with exit code 1: .*{WORLD}", "FAILED", f"train failed .*{WORLD}"),
    Case("from-the-ui", "FAILED", TAKEN, "FAILED", TAKEN),
    Case("exit-ok", "COMPLETE", "succeeded, without a promotion", "SUCCEEDED", ""),
    Case("exit-cached", "RUNNING", "succeeded, with hello from the cache, without a promotion", "SUCCEEDED", ""),
    Case("exit-fail", "FAILED", "fail failed with exit code 1: failing inside", "FAILED", "code 1: failing inside"),
    Case("exit-two", "FAILED", "fail failed with exit code 1: failing first", "FAILED", "code 1: failing first"),
    Case("exit-nap", "RUNNING", "was cancelled", "CANCELED", "was cancelled"),
    Case("retry-kill9", "FAILED", "oom failed with exit code 1: sh: invalid", "FAILED", "oom failed with exit code 1"),
)
ALL = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def seen_by_the_hook(server: ArgoServer) -> str:
    """Makes the recorded Workflow what it was while its exit hook ran; returns the run's ID."""
    workflow: Any = server.workflow
    status = workflow["status"]
    nodes = status["nodes"].values()
    handlers = {node["name"].partition(ending.HOOK)[0] for node in nodes if ending.HOOK in node["name"]}
    around = {name for handler in handlers for name in _above(handler)}
    for node in nodes:
        if ending.HOOK in node["name"] or node["name"] in around:
            node.update(phase="Running", message="")
    status.update(phase="Running", message="")
    return str(workflow["metadata"]["labels"]["pipeline/runid"])


def _above(name: str) -> Iterator[str]:
    """Names of the groups that a node is in, and of their attempts."""
    while name := name.rpartition(".")[0]:
        yield name
        yield re.sub(r"\(\d+\)$", "", name)


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowClient]:
    """A store of its own: the recordings' pipeline runs are the same in many tests."""
    store = ready_store(tmp_path)
    with using(store):
        yield MlflowClient(store)


@contextmanager
def pods_of(run: str, kubeconfig: Path | None = None) -> Iterator[None]:
    """This process is a pod of that pipeline run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN_ID", run)
        patch.setenv("POD_NAMESPACE", NAMESPACE)
        if kubeconfig is not None:
            # What the library made of $KUBECONFIG when it was imported.
            for module in (config, config.kube_config):
                patch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield


def begun(pipeline_run: str, experiment: str, folder: Path, end: str | None = None) -> str:
    """ID of a training's run in MLflow; its process ended it, or was killed."""
    with pods_of(pipeline_run):
        run = runs.open_run(folder / f"{pipeline_run}.json", experiment, "data", "settings")
    if end is None:
        assert run.outbox is not None and run.system_metrics is not None
        run.system_metrics.stop()
        run.outbox.close()
    else:
        runs.finish_run(run, status=end)  # type: ignore[arg-type]
    return run.run_id


def finished(server: ArgoServer, run: str, state: str, folder: Path, ui: str = UI) -> None:
    name = "gone" if server.workflow is None else server.workflow["metadata"]["name"]
    with server.running(folder) as kubeconfig, pods_of(run, kubeconfig):
        ending.finish(state, name, ui)


@ALL
def test_finish_says_how_a_run_ended_and_mlflow_has_it_on_the_trainings_own_run(
    case: Case, mlflow: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ArgoServer(RECORDED / case.name)
    run = seen_by_the_hook(server)
    trained = begun(run, case.name, tmp_path)
    before = begun(ANOTHER, case.name, tmp_path, "FINISHED")
    untouched = mlflow.get_run(before)
    finished(server, run, case.kubeflow, tmp_path)
    said = capsys.readouterr().out
    assert re.search(rf"^run {run} {case.said}", said, re.MULTILINE), said
    found = mlflow.get_run(trained)
    expected = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELED": "KILLED"}[case.status]
    assert found.info.status == expected
    assert found.data.tags["pipeline_run"] == run
    assert found.data.tags["pipeline_status"] == case.status
    assert found.data.tags["pipeline_link"] == f"{UI}/#/runs/details/{run}"
    assert bool(re.search(case.said, found.data.tags.get("pipeline_error", ""))) == (case.status == "FAILED")
    after = mlflow.get_run(before)
    assert (after.info.status, after.data.tags) == ("FINISHED", untouched.data.tags)


@ALL
def test_a_run_that_trained_nothing_leaves_nothing_in_mlflow(
    case: Case, mlflow: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ArgoServer(RECORDED / case.name)
    run = seen_by_the_hook(server)
    finished(server, run, case.kubeflow, tmp_path)
    assert "no training ran" in capsys.readouterr().out
    assert mlflow.search_runs([experiment.experiment_id for experiment in mlflow.search_experiments()]) == []


@ALL
def test_waiting_says_how_a_run_ended(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    server = KubeflowServer()
    run = server.replay(RECORDED / case.name)
    server.start()
    try:
        line = ""
        try:
            wait(Kubeflow(server.url), run, STEPS, QUICK)
        except KubeflowError as error:
            line = str(error)
    finally:
        server.stop()
    out = capsys.readouterr().out.splitlines()
    states = [text.split(" ", 2)[1:] for text in out if re.match(r"\d\d:\d\d:\d\d ", text)]
    assert bool(re.search(case.waited, line)) and bool(line) == bool(case.waited)
    assert states[0] == ["run", "PENDING"]
    assert [state for name, state in states if name == "run"][-1] == case.status
    # Nothing of Argo's five names but the step's, and each state of a task once.
    assert {name for name, _ in states} <= {*STEPS, "run"}
    steps = [tuple(state) for state in states if state[0] not in ("run", "prepare")]
    assert len(steps) == len(set(steps))
    cached = re.search("with (.*) from the cache", case.said)
    shown = [name for name, state in states if state == "SUCCEEDED, from the cache"]
    assert not cached or list(dict.fromkeys(shown)) == cached[1].split(", ")


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "KILLED"])
def test_a_training_that_ended_itself_keeps_its_word_where_it_is_good(
    end: str, mlflow: MlflowClient, tmp_path: Path
) -> None:
    """Of the run that was cancelled in train: its process may have had time to say it, or to finish."""
    server = ArgoServer(RECORDED / "cancelled-in-train")
    run = seen_by_the_hook(server)
    trained = begun(run, f"ended {end}", tmp_path, end)
    finished(server, run, "RUNNING", tmp_path)
    assert mlflow.get_run(trained).info.status == ("FINISHED" if end == "FINISHED" else "KILLED")


def test_what_fails_after_the_training_does_not_fail_the_training(mlflow: MlflowClient, tmp_path: Path) -> None:
    """register continues the training's run in MLflow, and may be killed in the middle."""
    server = ArgoServer(RECORDED / "good")
    run = seen_by_the_hook(server)
    fail(server, "register", "RegisterError: metrics.json: is not the metrics.json of evaluate. Evaluate again.")
    trained = begun(run, "after", tmp_path)
    finished(server, run, "FAILED", tmp_path)
    found = mlflow.get_run(trained)
    assert (found.info.status, found.data.tags["pipeline_status"]) == ("FINISHED", "FAILED")
    assert found.data.tags["pipeline_error"].startswith("register failed with exit code 1: RegisterError: metrics.json")


def test_a_training_that_another_run_began_is_told_of_the_end_of_the_run_that_went_on(
    mlflow: MlflowClient, tmp_path: Path
) -> None:
    """The first run was cancelled while a second one waited for its job, and that one failed: the pods only know the
    first.
    """
    server = ArgoServer(RECORDED / "bad-parameter")
    run = seen_by_the_hook(server)
    trained, other = begun("first", "adopted", tmp_path), begun(ANOTHER, "adopted", tmp_path)
    with pods_of(run):
        _claim(["first", run])
    finished(server, run, "FAILED", tmp_path)
    found = mlflow.get_run(trained)
    assert (found.info.status, found.data.tags["pipeline_status"]) == ("FAILED", "FAILED")
    assert found.data.tags["pipeline_run"] == f"first {run}"
    assert found.data.tags["pipeline_link"] == f"{UI}/#/runs/details/{run}"
    assert re.search(WORLD, found.data.tags["pipeline_error"])
    assert mlflow.get_run(other).info.status == "RUNNING"


def fail(server: ArgoServer, step: str, line: str) -> None:
    """Lets a step of the recorded run fail, as the recorded train does with a bad parameter."""
    workflow: Any = server.workflow
    for node in workflow["status"]["nodes"].values():
        if re.search(rf"\.{step}(\(\d+\)\.executor(\(\d+\))?)?$", node["name"]):
            node["phase"] = "Failed"
            if node["type"] == "Pod":
                node.update(message="main: Error (exit code 1)", outputs={"exitCode": "1"})
                pod = f"{workflow['metadata']['name']}-{node['templateName']}-{node['id'].rpartition('-')[2]}"
                end = "E1128 11:43:02.647936      21 launcher_v2.go:449] Component failed to execute successfully: "
                server.logs[pod] = f"some work\n{line}\n{end}exit status 1\n"


def test_a_gate_that_refuses_is_no_failure_of_a_step(
    mlflow: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ArgoServer(RECORDED / "good")
    run = seen_by_the_hook(server)
    fail(server, "promote", "GateError: model dual-hrnet version 2: score 0.1 is below promote.minimum_score 0.5.")
    finished(server, run, "FAILED", tmp_path)
    refused = "the gate refused the model: model dual-hrnet version 2: score 0.1 is below promote.minimum_score 0.5."
    assert f"run {run} {refused}" in capsys.readouterr().out


def test_a_pod_that_was_deleted_and_started_again_is_no_failure() -> None:
    server = ArgoServer(RECORDED / "launcher-deleted")
    workflow: Any = server.workflow
    attempts = [n for n in workflow["status"]["nodes"].values() if n.get("message") == "pod deleted"]
    assert [node["phase"] for node in attempts] == ["Error"]
    for node in workflow["status"]["nodes"].values():
        if node["phase"] == "Running":
            node["phase"] = "Succeeded"
    found = ending.ending_of(workflow_of(workflow), lambda pod: "")
    assert (found.status, found.failures, found.done) == ("SUCCEEDED", (), ("train",))
    for node in workflow["status"]["nodes"].values():  # the second one, and what is around it
        if ".train" in node["name"] and "driver" not in node["name"] and not node.get("message"):
            node["phase"] = "Error"
            node["message"] = "pod deleted" if node["type"] == "Pod" else ""
    found = ending.ending_of(workflow_of(workflow), lambda pod: "")
    assert [str(failure) for failure in found.failures] == ["train failed: pod deleted"]


def test_a_pod_whose_log_is_gone_leaves_argos_words(mlflow: MlflowClient, tmp_path: Path) -> None:
    server = ArgoServer(RECORDED / "bad-parameter")
    run = seen_by_the_hook(server)
    server.logs = {}
    trained = begun(run, "no log", tmp_path)
    finished(server, run, "FAILED", tmp_path)
    assert (
        mlflow.get_run(trained).data.tags["pipeline_error"]
        == "train failed with exit code 1: main: Error (exit code 1)"
    )


@pytest.mark.parametrize(
    ("state", "said", "status"),
    [
        ("COMPLETE", "succeeded.", "FINISHED"),
        ("FAILED", "failed.", "FAILED"),
        ("RUNNING", "has ended; Kubeflow does not tell how.", "RUNNING"),
    ],
)
def test_without_its_workflow_a_run_ended_as_kubeflow_says(
    state: str, said: str, status: str, mlflow: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ArgoServer(RECORDED / "good")
    run = seen_by_the_hook(server)
    server.refusal = 403
    trained = begun(run, f"refused {state}", tmp_path)
    capsys.readouterr()
    finished(server, run, state, tmp_path)
    out, err = capsys.readouterr()
    assert out.startswith(f"run {run} {said}")
    [line] = err.splitlines()
    assert line.startswith("warning: Kubernetes at ") and line.endswith(f"Kubeflow's own word is {state}.")
    assert 'workflows "dual-hrnet-6mh4z" is forbidden (HTTP 403)' in line
    assert mlflow.get_run(trained).info.status == status


def test_an_mlflow_that_is_away_is_a_warning_at_the_end_of_a_good_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ArgoServer(RECORDED / "good")
    run = seen_by_the_hook(server)
    with using("http://127.0.0.1:9"):
        finished(server, run, "COMPLETE", tmp_path)
    out, err = capsys.readouterr()
    assert out.startswith(f"run {run} succeeded")
    assert [line.split(" ")[0] for line in err.splitlines()] == ["warning:"]
    assert "MLflow does not answer there" in err


def test_on_one_machine_finish_asks_no_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUN_ID", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    ending.finish("FAILED", "", "")
    assert capsys.readouterr() == ("the run failed.\n", "")
