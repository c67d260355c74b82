"""`pipeline.py submit --wait`: what is said while a run goes on, and how the command ends."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from base.patience import Patience
from components.kubeflow.client import Kubeflow, KubeflowError
from components.kubeflow.watch import wait
from tests.conftest import ROOT, environment
from tests.servers.kubeflow_server import KubeflowServer, frame, task

STEPS = ("fetch", "prepare", "train", "finish")
QUICK = Patience(away=60, first_pause=0.02, longest_pause=0.02)
RUN = "run-1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    played = KubeflowServer()
    played.kept["runs"] = [{"run_id": RUN, "display_name": "of the test"}]
    played.start()
    yield played
    played.stop()


def wait_for(server: KubeflowServer, patience: Patience = QUICK) -> None:
    wait(Kubeflow(server.url), RUN, STEPS, patience)


def failure(server: KubeflowServer, patience: Patience = QUICK) -> str:
    with pytest.raises(KubeflowError) as caught:
        wait_for(server, patience)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(text: str) -> list[str]:
    """Lines without their time."""
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in text.splitlines()), text
    return [line[9:] for line in text.splitlines()]


def link(server: KubeflowServer) -> str:
    return f"{server.url}/#/runs/details/{RUN}"


def test_each_change_of_a_task_is_a_line(server: KubeflowServer, capsys: pytest.CaptureFixture[str]) -> None:
    drivers = [task("dual-hrnet-x7k2p", "RUNNING"), task("root-driver", "SUCCEEDED"), task("executor", "SKIPPED")]
    server.frames = [
        {"state": "PENDING"},
        frame("RUNNING", *drivers, task("fetch-driver", "RUNNING")),
        frame("RUNNING", *drivers, task("fetch", "RUNNING")),
        frame("RUNNING", *drivers, task("fetch", "RUNNING")),
        frame(
            "RUNNING",
            task("fetch", "SUCCEEDED"),
            task("prepare", "PENDING", number=1),
            task("prepare", "RUNNING", number=2),
        ),
        frame("SUCCEEDED", task("prepare", "SUCCEEDED", number=1), task("prepare", "SKIPPED", number=2)),
    ]
    wait_for(server)
    said = capsys.readouterr()
    assert said.err == ""
    assert lines(said.out) == [
        "run PENDING",
        "run RUNNING",
        "fetch RUNNING",
        "fetch SUCCEEDED",
        "prepare PENDING",
        "prepare RUNNING",
        "prepare SUCCEEDED",
        "prepare SKIPPED",
        "run SUCCEEDED",
    ]


LOG = """\
kubeflow/train-1: created
StorageError: s3://bucket/raw: nothing is there.
E1128 11:43:02.647936      21 launcher_v2.go:449] Component failed to execute successfully: exit status 3
I1128 11:43:02.648000      21 launcher_v2.go:867] Executing uploadOutputArtifacts attempt: 1
F1128 11:43:02.730474      21 main.go:59] failed to execute component: exit status 3
time=2026-11-28T11:43:03.009Z level=INFO msg="sub-process exited" argo=true error="exit status 1"
Error: exit status 1
"""
SAID = "StorageError: s3://bucket/raw: nothing is there"


@pytest.mark.parametrize("is_ui", [True, False])
@pytest.mark.parametrize("template", ["system-container-impl", "retry-system-container-impl"])
def test_a_failure_names_the_task_its_exit_code_and_its_last_lines(
    server: KubeflowServer, is_ui: bool, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [task("train", "FAILED"), task("train(0)", "FAILED"), task("executor", "FAILED", pod="graph-x7k2p-17")]
    around = [task("for-loop-1", "FAILED"), task("executor(0)", "FAILED"), task("root", "FAILED")]
    server.frames = [frame("RUNNING"), frame("FAILED", task("fetch", "SUCCEEDED"), *around, *failed)]
    server.logs = {f"graph-x7k2p-{template}-17": LOG}
    server.is_ui = is_ui
    line = f"run {RUN} ended as FAILED: train failed with exit code 3: {SAID}. See {link(server)}"
    assert failure(server) == line
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["train failed with exit code 3. Its last lines:", f"    {SAID}."]


def test_the_log_is_asked_for_in_the_namespace_and_with_the_token_of_the_user(server: KubeflowServer) -> None:
    server.token = "secret"
    server.frames = [frame("FAILED", task("train", "FAILED"), task("executor", "FAILED", pod="graph-x7k2p-17"))]
    server.logs = {"graph-x7k2p-retry-system-container-impl-17": LOG}
    with pytest.raises(KubeflowError, match="nothing is there"):
        wait(Kubeflow(server.url, "secret", "profile"), RUN, STEPS, QUICK)
    [asked] = [asked for asked in server.asked if asked.path == "/k8s/pod/logs"]
    assert asked.query == {
        "podname": "graph-x7k2p-retry-system-container-impl-17",
        "podnamespace": "profile",
        "runid": RUN,
    }


@pytest.mark.parametrize("refusal", ["gone", "page"])
def test_a_log_that_cannot_be_had_leaves_the_name(server: KubeflowServer, refusal: str) -> None:
    server.frames = [frame("FAILED", task("train", "FAILED"), task("executor", "FAILED", pod="graph-x7k2p-17"))]
    if refusal == "page":
        server.logs = {"graph-x7k2p-retry-system-container-impl-17": "<!doctype html><title>Log in</title>"}
    assert failure(server) == f"run {RUN} ended as FAILED: train failed. See {link(server)}"


def test_each_of_several_failures_has_its_own_log(server: KubeflowServer) -> None:
    first = [task("prepare", "FAILED", 1), task("executor", "FAILED", 1, pod="graph-x7k2p-1")]
    second = [task("prepare", "FAILED", 2), task("executor", "FAILED", 2, pod="graph-x7k2p-2")]
    for one in second:
        one["start_time"] = "2026-11-28T11:42:07Z"
        one["end_time"] = "2026-11-28T11:42:59Z"
    server.frames = [frame("FAILED", *first, *second)]
    name = "graph-x7k2p-retry-system-container-impl"
    server.logs = {f"{name}-1": "SceneError: a.png: is damaged.", f"{name}-2": "SceneError: b.png: is damaged."}
    failed = [f"prepare failed: SceneError: {scene}.png: is damaged" for scene in "ab"]
    assert failure(server) == f"run {RUN} ended as FAILED: {'; '.join(failed)}. See {link(server)}"


def test_what_fails_before_its_pod_is_named(server: KubeflowServer) -> None:
    driver = task("train-driver", "FAILED", pod="graph-x7k2p-9")
    server.frames = [frame("FAILED", driver, task("root", "FAILED"))]
    refused = "F1128 11:43:02.730474      21 main.go:82] driver.Container() failed: rpc error: connection refused"
    server.logs = {"graph-x7k2p-system-container-driver-9": f"{refused}\nError: exit status 1\n"}
    text = "train failed before it began, in Kubeflow's driver with exit code 1: driver.Container() failed: rpc error"
    assert failure(server) == f"run {RUN} ended as FAILED: {text}: connection refused. See {link(server)}"
    server.frames = [frame("FAILED", task("root-driver", "FAILED"), task("root", "FAILED"))]
    text = "root failed before it began, in Kubeflow's driver"
    assert failure(server) == f"run {RUN} ended as FAILED: {text}. See {link(server)}"


def test_a_run_that_could_not_begin_has_kubeflows_reason(server: KubeflowServer) -> None:
    server.frames = [{"state": "FAILED", "error": {"code": 2, "message": "no Workflow:\n quota exceeded."}}]
    assert failure(server) == f"run {RUN} ended as FAILED: no Workflow: quota exceeded. See {link(server)}"
    server.frames = [{"state": "SKIPPED"}]
    assert failure(server) == f"run {RUN} ended as SKIPPED: no task failed. See {link(server)}"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_a_person_ended_was_cancelled(
    server: KubeflowServer, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [{"state": "RUNNING"}, {"state": "CANCELING"}, {"state": state}]
    failed = frame(state, task("train", "FAILED"), state_history=history)
    server.frames = [frame("RUNNING", task("train", "RUNNING")), frame("CANCELING"), failed]
    assert failure(server) == f"run {RUN} was cancelled. See {link(server)}"
    assert lines(capsys.readouterr().out)[-1] == "run CANCELED"


def test_an_outage_is_waited_out(server: KubeflowServer, capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> None:
        server.stop()
        threading.Timer(0.3, server.start).start()

    server.frames = [frame("RUNNING", task("train", "RUNNING")), away, frame("RUNNING"), frame("SUCCEEDED")]
    wait_for(server)
    said = capsys.readouterr()
    assert lines(said.out) == ["train RUNNING", "run RUNNING", "run SUCCEEDED"]
    begin, end = lines(said.err)
    assert begin.startswith(f"{server.url}: cannot be reached: ")
    assert begin.endswith("Asking again for 60 s.")
    assert end == f"{server.url}: answers again."


@pytest.mark.parametrize("refusal", [(503, b"upstream is away"), (200, b"<html>maintenance</html>"), (429, b"{}")])
def test_a_proxy_without_its_server_is_an_outage(
    server: KubeflowServer, refusal: tuple[int, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def away() -> None:
        server.refusal = refusal
        threading.Timer(0.2, setattr, (server, "refusal", None)).start()

    server.frames = [frame("RUNNING"), away, frame("RUNNING"), frame("SUCCEEDED")]
    wait_for(server)
    assert len(lines(capsys.readouterr().err)) == 2


def test_patience_with_an_outage_ends(server: KubeflowServer) -> None:
    server.frames = [server.stop, frame("RUNNING")]
    line = failure(server, Patience(away=0.1, first_pause=0.02))
    assert line.startswith(f"{server.url}: cannot be reached: ")
    assert line.endswith(f"The run goes on: {link(server)}")


def test_a_token_that_ends_and_a_run_that_is_gone_are_no_outages(server: KubeflowServer) -> None:
    def end_of_token() -> None:
        server.token = "another"

    server.frames = [frame("RUNNING"), end_of_token, frame("RUNNING")]
    line = failure(server)
    assert line.endswith(f"(HTTP 401). Give --token, or renew it. The run goes on: {link(server)}")
    server.token = None
    server.kept["runs"] = []
    assert "Failed to get a run: Run run-1 not found (HTTP 404)" in failure(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_and_not_the_run(server: KubeflowServer, number: signal.Signals) -> None:
    server.frames = [frame("RUNNING", task("train", "RUNNING"))]
    places = ["--root", "s3://b/r", "--data-remote", "s3://b/d", "--raw-version", "0" * 32]
    command = [sys.executable, "pipeline.py", "submit", "--host", server.url, *places, "--wait"]
    # Also where the tests run in a shell's background, which makes its processes deaf to SIGINT.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True, preexec_fn=heard
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("run RUNNING\n"):
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    identity = server.kept["runs"][1]["run_id"]
    assert errors == f"no longer waiting. The run goes on: {server.url}/#/runs/details/{identity}\n"
    assert process.returncode == 130
    assert [asked.path for asked in server.asked if asked.path.endswith((":terminate", ":archive"))] == []


def test_the_command_ends_as_the_run_does(server: KubeflowServer) -> None:
    places = ["--root", "s3://b/r", "--data-remote", "s3://b/d", "--raw-version", "0" * 32]
    command = [sys.executable, "pipeline.py", "submit", "--host", server.url, *places, "--wait"]
    ends = {"SUCCEEDED": 0, "FAILED": 1}
    for state, code in ends.items():
        server.frames = [frame(state, task("promote", state))]
        server.logs = {}
        result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert re.search(rf"^\d\d:\d\d:\d\d promote {state}$", result.stdout, re.MULTILINE)
        assert len(result.stderr.splitlines()) == code, result.stderr
