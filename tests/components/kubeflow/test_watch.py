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


def test_a_failure_names_the_task_and_the_reason(server: KubeflowServer) -> None:
    failed = task("train", "FAILED", "StorageError: s3://bucket:\n no such bucket.")
    loop = task("for-loop-1", "FAILED", "child failed")
    server.frames = [frame("RUNNING"), frame("FAILED", task("fetch", "SUCCEEDED"), loop, failed)]
    assert failure(server) == (
        f"run {RUN} ended as FAILED: train failed: StorageError: s3://bucket: no such bucket. See {link(server)}"
    )


def test_the_reason_may_stand_in_the_history_or_with_the_run(server: KubeflowServer) -> None:
    history = [{"state": "RUNNING"}, {"state": "FAILED", "error": {"code": 2, "message": "OOMKilled"}}]
    server.frames = [
        frame(
            "FAILED",
            {**task("prepare", "FAILED", number=1), "state_history": history},
            task("prepare", "FAILED", number=2),
            error={"code": 2, "message": "child 'prepare' failed"},
        )
    ]
    expected = f"run {RUN} ended as FAILED: prepare failed: OOMKilled; prepare failed; child 'prepare' failed."
    assert failure(server) == f"{expected} See {link(server)}"


def test_what_fails_before_its_pod_is_named(server: KubeflowServer) -> None:
    server.frames = [frame("FAILED", task("train-driver", "FAILED"), task("root", "FAILED"))]
    assert failure(server) == f"run {RUN} ended as FAILED: train-driver failed. See {link(server)}"
    server.frames = [frame("FAILED", task("root-driver", "FAILED"))]
    assert failure(server) == f"run {RUN} ended as FAILED: root-driver failed. See {link(server)}"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_only_success_is_success(server: KubeflowServer, state: str) -> None:
    server.frames = [frame("RUNNING", task("fetch", "RUNNING")), frame("CANCELING"), {"state": state}]
    assert failure(server) == f"run {RUN} ended as {state}. See {link(server)}"


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
        result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert re.search(rf"^\d\d:\d\d:\d\d promote {state}$", result.stdout, re.MULTILINE)
        assert len(result.stderr.splitlines()) == code, result.stderr
