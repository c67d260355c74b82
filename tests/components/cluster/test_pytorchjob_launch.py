"""The launcher of a PyTorchJob against a real Kubernetes API server; the test plays the operator."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from base.errors import Preempted
from components.cluster.api import Api, Resource
from components.cluster.job import RUN_LABEL, RUNS_ANNOTATION, Finished, JobError, Owner, runs_of
from components.cluster.launcher import run
from components.cluster.pytorchjob.backend import PyTorchJobs
from components.cluster.pytorchjob.manifest import manifest
from components.tracking.lineage import RUNS_KEPT
from tests.commands import assert_one_line, environment, run_step
from tests.paths import ROOT
from tests.servers.kube_api import KubeApi
from tests.servers.kube_proxy import KubeProxy, Request, pass_on
from tests.servers.training_operator import NOW, QUICK, Operator, ended, is_deleted, job_in, launch, report_when_there

# All that a launcher has, in every namespace that it is installed in.
ROLE = next(
    content
    for content in yaml.safe_load_all((ROOT / "deploy" / "launcher" / "launcher.yaml").read_text(encoding="utf-8"))
    if content["kind"] == "Role"
)
RULES = ROLE["rules"]


def test_a_job_that_succeeds_is_the_result(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    uids = []

    def play() -> None:
        uids.append(operator.wait("train-1")["metadata"]["uid"])
        for conditions in (["Created"], ["Created", "Running"], ["Created", "Running", "Succeeded"]):
            operator.report("train-1", *conditions)

    finished = launch(job_in(operator), operator, play)
    created = operator.get("train-1")["metadata"]["creationTimestamp"]
    assert finished == Finished("train-1", operator.namespace, uids[0], created, NOW)
    assert f"{operator.namespace}/train-1: created" in capfd.readouterr().err


def test_the_server_keeps_every_field_of_the_manifest(operator: Operator) -> None:
    """The schema of the operator's version drops unknown fields silently."""
    job = job_in(operator, nodes=3, cluster={"elastic_min_nodes": 2, "gang_scheduling": True, "secrets": ["s3"]})
    job = replace(job, owner=Owner("v1", "Pod", "launcher", "0a-1b"))
    launch(job, operator, report_when_there(operator, "Succeeded"))
    kept, sent = operator.get("train-1"), manifest(job)
    assert kept["spec"].pop("runPolicy") == sent["spec"].pop("runPolicy") | {"suspend": False}
    assert kept["spec"] == sent["spec"]
    assert {key: kept["metadata"][key] for key in sent["metadata"]} == sent["metadata"]


def test_the_first_pod_that_failed_is_named(operator: Operator) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", "master", 0, **ended(1, "2026-01-02T03:04:09Z"))
        operator.start_pod("train-1", "worker", 0, **ended(0, "2026-01-02T03:04:01Z"))
        operator.start_pod("train-1", "worker", 1, **ended(137, "2026-01-02T03:04:08Z", "OOMKilled"))
        operator.report("train-1", "Created", "Running", "Failed")

    with pytest.raises(JobError) as caught:
        launch(job_in(operator, nodes=3), operator, play)
    expected = f"{operator.namespace}/train-1 failed: pod train-1-worker-1 ended with exit code 137 (OOMKilled); "
    assert str(caught.value).startswith(expected + "the logs of train-1-worker-1 cannot be read: ")


def test_a_failure_without_a_pod_has_the_operators_words(operator: Operator) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.report("train-1", "Created", "Failed", message="Job was active longer than specified deadline")

    with pytest.raises(JobError) as caught:
        launch(job_in(operator), operator, play)
    assert str(caught.value) == f"{operator.namespace}/train-1 failed: Job was active longer than specified deadline"


def test_a_job_that_hangs_is_deleted_after_its_time(operator: Operator) -> None:
    with pytest.raises(
        JobError, match=r"was deleted: it has not ended 1 s after it was launched \(cluster.deadline_seco"
    ):
        launch(
            job_in(operator, cluster={"deadline_seconds": 1}),
            operator,
            report_when_there(operator, "Created", "Running"),
        )
    assert is_deleted(operator.get("train-1"))


@pytest.mark.parametrize("how", ["Foreground", "Background"])
def test_a_job_that_others_delete_is_an_error(operator: Operator, how: str) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.delete("train-1", how)

    with pytest.raises(JobError, match=f"{operator.namespace}/train-1 was deleted while it ran"):
        launch(job_in(operator), operator, play)


def test_a_job_that_others_delete_and_create_again_is_an_error(operator: Operator) -> None:
    """Its successor of the same name is not taken for it."""

    def play() -> None:
        job = operator.wait("train-1")
        operator.delete("train-1", "Background")
        fresh = {key: job["metadata"][key] for key in ("name", "annotations")}
        operator.jobs.create_namespaced_custom_object(**operator.place, body=job | {"metadata": fresh})
        operator.report("train-1", "Succeeded")

    with pytest.raises(JobError, match="was deleted while it ran"):
        launch(job_in(operator), operator, play)


def test_an_ended_job_never_stands_in_the_way_whatever_it_did(operator: Operator) -> None:
    launch(job_in(operator), operator, report_when_there(operator, "Running", "Succeeded"))
    old = operator.get("train-1")["metadata"]["uid"]
    other = job_in(operator, arguments=["--out", "s3://b/other"], output="s3://b/other")
    assert launch(other, operator, lambda: operator.replace("train-1", old, "Succeeded")).uid != old


def test_pods_that_are_still_ending_keep_their_successors_out(operator: Operator) -> None:
    """Of a job that was deleted without waiting for them."""
    operator.create(job_in(operator))
    operator.start_pod("train-1", phase="Running")
    operator.delete("train-1", "Background")
    with pytest.raises(JobError, match=r"train-1-master-0 is being deleted, and is not gone yet"):
        launch(job_in(operator), operator, lambda: None, replace(QUICK, gone=0.2))
    operator.core.delete_namespaced_pod("train-1-master-0", operator.namespace, grace_period_seconds=0)
    launch(job_in(operator), operator, report_when_there(operator, "Succeeded"))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"name": "train-2", "image": "another"}, "trains into s3://b/o by another image or other parameters"),
        ({"arguments": ["--more"]}, "trains into s3://b/o by another image or other parameters"),
        ({"output": "s3://b/other", "arguments": ["--out", "s3://b/other"]}, "trains into another output"),
    ],
    ids=["another image", "other arguments", "another output by the same name"],
)
def test_two_jobs_never_train_into_one_output(operator: Operator, changes: dict[str, Any], finding: str) -> None:
    first = job_in(operator, labels={RUN_LABEL: "run-a"})
    operator.create(first)
    operator.report("train-1", "Created", "Running")
    before = operator.get("train-1")
    with pytest.raises(JobError) as caught:
        launch(replace(first, **changes), operator, lambda: None)
    run = "pipeline run run-a (/#/runs/details/run-a in Kubeflow's UI)"
    assert str(caught.value).startswith(f"{operator.namespace}/train-1, of {run}, {finding}, and has not ended.")
    assert operator.get("train-1") == before
    assert operator.names() == ["train-1"]


def test_the_same_training_under_another_name_is_waited_for(
    operator: Operator, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job_in(operator)
    uid = operator.create(first)
    runs = [f"run-{number}" for number in range(RUNS_KEPT)]  # that have waited for it so far
    annotated: dict[str, Any] = {"metadata": {"annotations": {RUNS_ANNOTATION: " ".join(runs)}}}
    operator.jobs.patch_namespaced_custom_object(**operator.place, name="train-1", body=annotated)

    def play() -> None:
        operator.wait("train-1", lambda job: RUN_LABEL in job["metadata"]["labels"])
        operator.report("train-1", "Running", "Succeeded")

    finished = launch(replace(first, name="train-2", labels={RUN_LABEL: "new"}), operator, play)
    assert (finished.name, finished.uid, operator.names()) == ("train-1", uid, ["train-1"])
    assert runs_of(operator.get("train-1")) == [runs[0], *runs[2:], "new"]
    assert f"{operator.namespace}/train-1: is there already, and is waited for" in capfd.readouterr().err


def test_of_two_jobs_that_are_created_at_the_same_moment_the_older_one_stays(
    operator: Operator, proxy: KubeProxy
) -> None:
    """They see each other only after both were created."""
    first = job_in(operator, name="train-0")

    def create_before(request: Request) -> None:
        operator.create(first)
        time.sleep(1.1)  # the API tells whole seconds
        pass_on(request)

    proxy.fault("POST", "/pytorchjobs", create_before)

    def play() -> None:
        operator.wait("train-1", is_deleted)
        operator.collect("train-1")
        operator.wait("train-0", lambda job: "run" in job["metadata"]["labels"])
        operator.report("train-0", "Succeeded")

    assert launch(job_in(operator, labels={"run": "b"}), operator, play, url=proxy.url).name == "train-0"
    assert operator.names() == ["train-0"]


def test_a_job_of_this_run_that_succeeded_is_the_result(operator: Operator) -> None:
    first = launch(job_in(operator), operator, report_when_there(operator, "Succeeded"))
    assert launch(job_in(operator), operator, lambda: None) == first


@pytest.mark.parametrize(("end", "labels"), [("Failed", {}), ("Succeeded", {"run": "b"})])
def test_an_ended_job_is_replaced_when_it_failed_or_was_another_runs(
    operator: Operator, end: str, labels: dict[str, str]
) -> None:
    with suppress(JobError):
        launch(job_in(operator), operator, report_when_there(operator, end))
    old = operator.get("train-1")["metadata"]["uid"]
    again = job_in(operator, labels=labels)
    assert launch(again, operator, lambda: operator.replace("train-1", old, "Succeeded")).uid != old


def test_a_job_that_does_not_go_is_an_error(operator: Operator) -> None:
    with pytest.raises(JobError):
        launch(job_in(operator), operator, report_when_there(operator, "Failed"))
    with pytest.raises(JobError, match="is being deleted, and is not gone yet"):
        launch(job_in(operator), operator, lambda: None, replace(QUICK, gone=0.2))


def test_a_role_with_these_verbs_is_enough(kube: KubeApi, operator: Operator) -> None:
    kube.bind("launcher", operator.namespace, RULES)
    first = job_in(operator, owner=Owner("v1", "Pod", "launcher-1", "uid-1"))
    with pytest.raises(JobError):
        launch(first, operator, report_when_there(operator, "Failed"), user="launcher")

    old = operator.get("train-1")["metadata"]["uid"]
    launch(first, operator, lambda: operator.replace("train-1", old, "Succeeded"), user="launcher")
    launch(replace(first, owner=Owner("v1", "Pod", "launcher-2", "uid-2")), operator, lambda: None, user="launcher")


@pytest.mark.parametrize("verb", ["create", "list", "watch"])
def test_a_verb_that_the_role_lacks_is_named(kube: KubeApi, operator: Operator, verb: str) -> None:
    verbs = [other for other in RULES[0]["verbs"] if other != verb]
    kube.bind("stranger", operator.namespace, [RULES[0] | {"verbs": verbs}, *RULES[1:]])
    with pytest.raises(JobError) as caught:
        launch(job_in(operator), operator, lambda: None, user="stranger")
    words = f'User "stranger" cannot {verb} resource "pytorchjobs" in API group "kubeflow.org"'
    assert words in str(caught.value)
    assert str(caught.value).endswith("(HTTP 403). Give the launcher's service account a role with this verb.")


def command(operator: Operator, **changes: str) -> list[str]:
    options = {"--params": ROOT / "params.yaml", "--name": "train-1", "--image": "i", "--data": "s3://b/d"}
    options |= {"--out": "s3://b/o", "--namespace": operator.namespace, **changes}
    return [str(word) for pair in options.items() for word in pair]


def start(operator: Operator) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "components.pytorchjob", *command(operator)],
        env=environment(KUBECONFIG=str(operator.kube.kubeconfig())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launcher_that_was_killed_goes_on_waiting(operator: Operator) -> None:
    first = start(operator)
    uid = operator.wait("train-1")["metadata"]["uid"]
    first.kill()
    first.communicate(timeout=60)
    second = start(operator)
    assert second.stderr is not None
    assert second.stderr.readline() == f"{operator.namespace}/train-1: is there already, and is waited for\n"
    operator.report("train-1", "Created", "Running", "Succeeded")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out.startswith(f"{operator.namespace}/train-1 succeeded: ")
    assert operator.names() == ["train-1"]
    assert operator.get("train-1")["metadata"]["uid"] == uid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_asked_to_stop_deletes_the_job(operator: Operator, number: signal.Signals) -> None:
    process = start(operator)
    operator.wait("train-1")
    operator.report("train-1", "Created", "Running")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert is_deleted(operator.get("train-1"))
    assert f"{number.name}: the training job was deleted. Run the same command to go on." in err
    assert "Traceback" not in err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_comes_while_a_connection_is_collected_is_heard_all_the_same(operator: Operator) -> None:
    class Connection:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    connections = [Connection()]

    class Collecting(Api):
        def serves(self, resource: Resource) -> bool:
            connections.clear()
            return super().serves(resource)

    api = Collecting(operator.namespace, QUICK, operator.kube.kubeconfig())
    operator.create(job_in(operator))
    with pytest.raises(Preempted, match="SIGTERM: the training job was deleted"):
        run(job_in(operator), api, PyTorchJobs())


def test_a_failed_job_ends_the_command_with_its_reason(operator: Operator) -> None:
    process = start(operator)
    operator.wait("train-1")
    operator.report("train-1", "Failed", message="out of luck")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == f"JobError: {operator.namespace}/train-1 failed: out of luck"


def test_a_missing_namespace_is_one_line(operator: Operator, tmp_path: Path) -> None:
    words = command(operator, **{"--namespace": "nowhere"})
    result = run_step("pytorchjob", *words, cwd=tmp_path, KUBECONFIG=str(operator.kube.kubeconfig()))
    assert_one_line(result, "JobError: Kubernetes at https://127.0.0.1:", 'namespaces "nowhere" not found (HTTP 404)')
