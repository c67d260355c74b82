"""The launcher of a PyTorchJob when the Kubernetes API or the pods fail it, and the logs that it streams."""

import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from components.cluster import api
from components.cluster.api import Api, JobPatience
from components.cluster.job import JobError
from components.cluster.launcher import run
from components.cluster.pytorchjob.backend import PyTorchJobs
from tests.servers.kube_api import KubeApi, eventually
from tests.servers.kube_proxy import (
    Act,
    KubeProxy,
    Request,
    cut_line,
    expire,
    hang_up,
    lines,
    lose_answer,
    refuse,
    stale,
)
from tests.servers.training_operator import QUICK, Operator, ended, job_in, launch, report_when_there

JOBS, LOGS, WATCH = "/pytorchjobs", "/pods/train-1-master-0/log", "watch=True"


@pytest.mark.parametrize(
    "fault", [refuse(500, "etcd has no leader"), refuse(503, "busy"), hang_up], ids=["500", "503", "cut"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_fails_once_is_repeated(
    operator: Operator, proxy: KubeProxy, method: str, fault: Act, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy.fault(method, JOBS, fault)
    launch(job_in(operator), operator, report_when_there(operator, "Succeeded"), url=proxy.url)
    assert proxy.faults == []
    assert capfd.readouterr().err.count("Asking again in 0.05 s.") == 1
    assert operator.names() == ["train-1"]


def test_the_server_says_how_long_to_wait(
    operator: Operator, proxy: KubeProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy.fault("POST", JOBS, refuse(429, "too many requests", Retry_After="1"))
    launch(job_in(operator), operator, report_when_there(operator, "Succeeded"), replace(QUICK, away=5), url=proxy.url)
    assert "Kubernetes: too many requests (HTTP 429). Asking again in 1 s.\n" in capfd.readouterr().err


def test_an_answer_that_was_lost_makes_no_second_job(operator: Operator, proxy: KubeProxy) -> None:
    proxy.fault("POST", JOBS, lose_answer)
    finished = launch(job_in(operator), operator, report_when_there(operator, "Succeeded"), url=proxy.url)
    assert operator.names() == ["train-1"]
    assert operator.get("train-1")["metadata"]["uid"] == finished.uid
    assert proxy.count(f"POST /apis/kubeflow.org/v1/namespaces/{operator.namespace}{JOBS}") == 2


@pytest.mark.parametrize(
    "fault",
    [hang_up, cut_line, expire, stale, refuse(410, "gone"), refuse(429, "slow down")],
    ids=["cut", "cut in a line", "expired", "stale version", "410", "429"],
)
def test_a_watch_that_is_lost_is_opened_again(operator: Operator, proxy: KubeProxy, fault: Act) -> None:
    proxy.fault("GET", WATCH, fault)

    def play() -> None:
        operator.wait("train-1")
        eventually(lambda: proxy.faults == [], "nothing was watched")
        operator.report("train-1", "Running")
        operator.report("train-1", "Running", "Succeeded")

    launch(job_in(operator), operator, play, url=proxy.url)


def test_what_happened_while_the_watch_was_lost_is_seen(operator: Operator, proxy: KubeProxy) -> None:
    def end_and_expire(request: Request) -> None:
        operator.report("train-1", "Succeeded")
        expire(request)

    proxy.fault("GET", WATCH, end_and_expire)
    launch(job_in(operator), operator, lambda: None, url=proxy.url)


def test_an_api_that_stays_away_is_an_error_and_the_job_goes_on(operator: Operator, proxy: KubeProxy) -> None:
    def play() -> None:
        operator.wait("train-1")
        eventually(lambda: proxy.count(WATCH) > 0, "nothing was watched")
        proxy.fault("GET", "", refuse(503, "the server is down"), always=True)
        operator.report("train-1", "Running")

    with pytest.raises(JobError, match=r"the server is down \(HTTP 503\)\. Is the API server well\?"):
        launch(job_in(operator), operator, play, replace(QUICK, watch=1), url=proxy.url)
    assert "deletionTimestamp" not in operator.get("train-1")["metadata"]


def test_a_server_that_is_not_there_is_an_error(kube: KubeApi, operator: Operator) -> None:
    away = Api(operator.namespace, replace(QUICK, away=0.2), kube.kubeconfig(url="http://127.0.0.1:9"))
    with pytest.raises(JobError, match=r"Kubernetes at http://127.0.0.1:9, .*Connection refused") as caught:
        run(job_in(operator), away, PyTorchJobs())
    assert "\n" not in str(caught.value)


def test_a_certificate_of_others_is_not_asked_for_again(
    kube: KubeApi, operator: Operator, capfd: pytest.CaptureFixture[str]
) -> None:
    config = kube.kubeconfig()
    content = config.read_text(encoding="utf-8")
    strange = config.with_name("strange")
    strange.write_text("\n".join(line for line in content.splitlines() if "certificate-authority" not in line))
    with pytest.raises(JobError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        run(job_in(operator), Api(operator.namespace, QUICK, strange), PyTorchJobs())
    assert "\n" not in str(caught.value)
    assert "CERTIFICATE_VERIFY_FAILED" not in capfd.readouterr().err


def test_each_line_of_rank_0_is_printed_once(
    operator: Operator, proxy: KubeProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = "2026-01-02T03:04:05.000000001Z step 1", "2026-01-02T03:04:05.000000002Z step 2"
    third, later = "2026-01-02T03:04:06Z step 3", "2026-01-02T03:04:06.5Z epoch 1"
    proxy.fault("GET", LOGS, lines(first, second, cut=True))
    proxy.fault("GET", LOGS, lines(first, second, third))
    proxy.fault("GET", LOGS, lines(third, later, "2026-01-02T03:04:07Z ", "no time: a remark"))
    proxy.fault("GET", LOGS, lines(), always=True)

    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", phase="Running")
        operator.report("train-1", "Running")
        eventually(lambda: proxy.count(LOGS) >= 4, "logs are not read again")
        operator.report("train-1", "Running", "Succeeded")

    launch(job_in(operator), operator, play, url=proxy.url)
    assert capfd.readouterr().out.splitlines() == ["step 1", "step 2", "step 3", "epoch 1", "", "no time: a remark"]
    asked = [parse_qs(urlsplit(path).query) for path in proxy.asked if LOGS in path]
    assert "sinceSeconds" not in asked[0]
    assert all("sinceSeconds" in query for query in asked[1:])


def test_a_pod_that_was_started_again_is_read_from_its_start(
    operator: Operator, proxy: KubeProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its node's clock may be behind."""
    proxy.fault("GET", LOGS, lines("2026-01-02T03:04:05Z first"), always=True)

    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", phase="Running")
        eventually(lambda: proxy.count(LOGS) >= 2, "logs are not read")
        proxy.faults.clear()
        proxy.fault("GET", LOGS, lines("2026-01-02T03:04:04Z second"), always=True)
        operator.core.delete_namespaced_pod("train-1-master-0", operator.namespace, grace_period_seconds=0)
        operator.start_pod("train-1", phase="Running")
        before = proxy.count(LOGS)
        eventually(lambda: proxy.count(LOGS) >= before + 2, "logs are not read again")
        operator.report("train-1", "Running", "Succeeded")

    launch(job_in(operator), operator, play, url=proxy.url)
    assert capfd.readouterr().out.splitlines() == ["first", "second"]


def test_the_last_lines_of_the_failing_pod_are_in_the_error(operator: Operator, proxy: KubeProxy) -> None:
    proxy.fault("GET", "/pods/train-1-worker-0/log", lines("Traceback", "CUDA error: uncorrectable ECC error"))

    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", "worker", 0, **ended(1))
        operator.report("train-1", "Running", "Failed")

    with pytest.raises(JobError) as caught:
        launch(job_in(operator, nodes=2), operator, play, url=proxy.url)
    assert str(caught.value) == (
        f"{operator.namespace}/train-1 failed: pod train-1-worker-0 ended with exit code 1. Its last lines:\n"
        "    Traceback\n    CUDA error: uncorrectable ECC error"
    )
    (query,) = [parse_qs(urlsplit(path).query) for path in proxy.asked if "worker-0/log" in path]
    assert query == {"container": ["pytorch"], "tailLines": ["10"]}


def test_logs_that_cannot_be_read_are_a_warning(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", phase="Running")
        operator.report("train-1", "Created", "Running", "Succeeded")

    launch(job_in(operator), operator, play)
    assert capfd.readouterr().err.count("warning: the logs of train-1-master-0 cannot be read: ") == 1


def test_logs_that_are_quiet_for_long_are_no_warning(
    operator: Operator, proxy: KubeProxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where rank 0 waits for the others."""
    monkeypatch.setattr(api, "LOG_SILENCE_SECONDS", 0.3)

    def fall_silent(request: Request) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"2026-01-02T03:04:05Z step 1\n"
            time.sleep(1)

        request.send(200, chunks())

    proxy.fault("GET", LOGS, fall_silent)
    proxy.fault("GET", LOGS, lines("2026-01-02T03:04:05Z step 1", "2026-01-02T03:04:06Z step 2"), always=True)

    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", phase="Running")
        eventually(lambda: proxy.count(LOGS) >= 3, "logs are not read again")
        operator.report("train-1", "Running", "Succeeded")

    launch(job_in(operator), operator, play, url=proxy.url)
    said = capfd.readouterr()
    assert said.out.splitlines() == ["step 1", "step 2"]
    assert "warning" not in said.err


@pytest.mark.parametrize("changes", [{}, {"queue": "training"}], ids=["alone", "in a queue"])
def test_gang_scheduling_that_nothing_honours_is_said(
    operator: Operator, changes: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    job = job_in(operator, cluster={"gang_scheduling": True, **changes})
    launch(job, operator, report_when_there(operator, "Running", "Succeeded"))
    expected = (
        "warning: cluster.gang_scheduling: found true, but the cluster has no scheduler that starts pods together"
    )
    assert capfd.readouterr().err.count(expected) == (0 if changes else 1)


def test_a_missing_operator_is_reported(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """As where somebody removed it and left the kind; the job does not wait for its deadline."""
    assert JobPatience().unclaimed + JobPatience().look < 60  # within a minute
    remedy = "Install the training operator 1.9, or see why it does not run; or set cluster.kind: trainjob."
    with pytest.raises(JobError, match=rf"was deleted: it was taken by no operator for 0.05 minutes. {remedy}"):
        launch(job_in(operator), operator, lambda: None, replace(QUICK, watch=1, unclaimed=0, abandoned=3))
    assert capfd.readouterr().err.count(f"train-1: no operator has taken it. {remedy}") == 1


def test_troubles_of_pods_are_reported(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: gpu"}
    stuck = ended(0)["containerStatuses"][0] | {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}

    def play() -> None:
        operator.wait("train-1")
        operator.start_pod("train-1", "master", 0, phase="Pending", conditions=[unscheduled])
        operator.start_pod("train-1", "worker", 0, phase="Pending", containerStatuses=[stuck])

    with pytest.raises(JobError, match="has not ended 3 s"):
        launch(
            job_in(operator, nodes=2, cluster={"deadline_seconds": 3}),
            operator,
            play,
            replace(QUICK, watch=1),
        )
    said = capfd.readouterr().err
    assert said.count("pod train-1-master-0: Unschedulable: 0/3 nodes: gpu\n") == 1
    assert said.count("pod train-1-worker-0: ImagePullBackOff: no\n") == 1


def test_what_the_server_refuses_is_named(operator: Operator) -> None:
    with pytest.raises(JobError, match=r"metadata.labels: Invalid value: \"a b\".*\(HTTP 422\)"):
        launch(job_in(operator, labels={"team": "a b"}), operator, lambda: None)
