"""A PyTorchJob's state, and what the launcher makes of it, at each moment of the jobs that a real cluster ran."""

import io
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

import pytest

from components.cluster.backend import Seen
from components.cluster.job import JobError
from components.cluster.pytorchjob.backend import PyTorchJobs
from components.cluster.watching.record import Record, now
from tests.servers.kube_api import KubeApi, eventually, of_any_content
from tests.servers.kube_proxy import KubeProxy, lines
from tests.servers.training_operator import QUICK, RECORDED, WORKLOADS, Operator, is_deleted, job_in, launch, recording


@pytest.fixture(scope="module", autouse=True)
def workloads(kube: KubeApi) -> None:
    """Kueue's own objects."""
    kube.install(of_any_content(**WORKLOADS, kind="Workload"))


# The phases in their order, each with the number of recorded moments. "gone": there is no PyTorchJob any more.
PHASES = {
    "kueue-pytorchjob-evicted": "queued 3, starting 1, running 3, queued 2, starting 1, running 2, succeeded 3",
    "kueue-pytorchjob-failing": "queued 3, starting 1, running 2, failed 2",
    "kueue-pytorchjob-first": "queued 3, starting 1, running 2, succeeded 3",
    "kueue-pytorchjob-second-waits": "queued 3, starting 1, running 2, succeeded 3",
    "kueue-pytorchjob-too-large": "queued 3",
    "v1-deadline-poked": "unclaimed 1, starting 1, running 2, failed 2",
    "v1-deadline-ttl": "unclaimed 1, starting 1, running 2",
    "v1-deadline": "unclaimed 1, starting 1, running 3",
    "v1-delete-background": "unclaimed 1, starting 1, running 3, gone 1",
    "v1-delete-foreground": "unclaimed 1, starting 1, running 3, gone 1",
    "v1-elastic": "unclaimed 1, starting 1, running 2, succeeded 3",
    "v1-exit1-backoff0-ttl": "unclaimed 1, starting 1, running 1, failed 2, gone 1",
    "v1-exit1-backoff0": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-exit1-clean-all": "starting 2, running 1, failed 2",
    "v1-exit1-master": "unclaimed 1, starting 1, running 2, failed 2",
    "v1-exit1-ttl-never": "unclaimed 1, starting 1, running 1, failed 2, gone 1",
    "v1-exit1-ttl": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-exit1-worker": "unclaimed 1, starting 1, running 2, failed 2",
    "v1-exit127-backoff2": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-exit128-backoff2": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, running 1, restarting 2, running 2"
    ),
    "v1-exit137-backoff0": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-exit137-backoff1": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, "
        "running 1, restarting 2, running 1, restarting 1"
    ),
    "v1-exit137-backoff2": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, "
        "running 1, restarting 2, running 1, restarting 1"
    ),
    "v1-exit137-once-then-ok": "unclaimed 1, starting 1, running 1, restarting 2, running 1, succeeded 2",
    "v1-exit137-worker": (
        "unclaimed 1, starting 1, running 5, restarting 1, running 2, restarting 1, running 1, succeeded 2"
    ),
    "v1-exit141-backoff2": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, running 1, restarting 2, running 2"
    ),
    "v1-exit143-backoff2": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, "
        "running 1, restarting 2, running 1, restarting 1"
    ),
    "v1-gang-without-scheduler": "unclaimed 1, starting 1, running 1, succeeded 2",
    "v1-kill9-backoff2": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, "
        "running 1, restarting 2, running 1, restarting 1"
    ),
    "v1-never-exit137": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-no-image": "unclaimed 1, starting 2",
    "v1-ok-clean-all": "unclaimed 1, starting 1, running 2, succeeded 3",
    "v1-ok-clean-default": "unclaimed 1, starting 1, running 1, succeeded 2",
    "v1-ok-clean-none": "unclaimed 1, starting 1, running 2, succeeded 3",
    "v1-ok-master-worker": "unclaimed 1, starting 1, running 3, succeeded 2",
    "v1-ok-ttl": "unclaimed 1, starting 1, running 1, succeeded 2, gone 1",
    "v1-ok-worker-outlives-master": "unclaimed 1, starting 1, running 2, succeeded 3",
    "v1-onfailure-exit1-backoff2": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-oom-child-process": "unclaimed 1, starting 1, running 1, failed 2",
    "v1-oom-init-process": (
        "unclaimed 1, starting 1, running 1, restarting 2, running 1, restarting 2, running 1, restarting 4"
    ),
    "v1-owner-pod": "unclaimed 1, starting 1, running 3, gone 1",
    "v1-pod-deleted-worker": (
        "unclaimed 1, starting 1, running 2, restarting 1, running 1, restarting 1, running 1, restarting 1, running 4"
    ),
    "v1-pod-deleted": "unclaimed 1, starting 1, running 2, restarting 2, running 2",
    "v1-pod-evicted": "unclaimed 1, starting 1, running 2, restarting 2, running 2",
    "v1-quota-exceeded": "unclaimed 1, starting 1",
    "v1-restricted-namespace": "unclaimed 1, starting 1, running 3, succeeded 2",
    "v1-restricted-refused": "unclaimed 1, starting 1",
    "v1-suspend": "queued 3, starting 1, running 3, queued 2, starting 1, running 3, succeeded 2",
    "v1-unschedulable": "unclaimed 1, starting 2",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.jsonl")))
def test_a_recorded_job_is_told_by_its_phases(name: str) -> None:
    phases = [
        "gone"
        if moment["pytorchjob"] is None
        else PyTorchJobs()
        .state(Seen(moment["pytorchjob"], moment.get("pods", []), events=moment.get("events", [])))
        .phase
        for moment in recording(name)
    ]
    assert ", ".join(f"{phase} {len(list(moments))}" for phase, moments in groupby(phases)) == PHASES[name]


@dataclass(frozen=True)
class Outcome:
    """What the launcher of a job that happened as it was recorded does.

    ends: "succeeded", or a part of the error. left: whether the job is still there, for its logs. restarts: that were
    counted. restarts_allowed: of the section `cluster`. says: parts of what it prints before, each once. hangs: whether
    the job goes on at the end of the recording, until its time is over.
    """

    ends: str
    left: bool = True
    restarts: int = 0
    restarts_allowed: int = 3
    says: tuple[str, ...] = ()
    hangs: bool = False


GOOD = Outcome("succeeded")
DELETED = Outcome("was deleted while it ran", left=False)
MASTER_1 = Outcome("failed: pod {name}-master-0 ended with exit code 1. Its last lines:\n    last words")
SECONDS = 600  # that a job may take: longer than any test
HANGS = Outcome(
    f"it has not ended {SECONDS} s after it was launched (cluster.deadline_seconds)", left=False, hangs=True
)


def too_often(end: str, restarts: int = 2) -> Outcome:
    text = (
        f"it was started again {restarts} times (cluster.restarts), and would be once more: pod {{name}}-master-0 {end}"
    )
    says = tuple(f"was started again, {number} of {restarts} times: pod" for number in range(1, restarts + 1))
    return Outcome(text, left=False, restarts=restarts + 1, restarts_allowed=restarts, says=says)


OUTCOMES = {
    "v1-ok-master-worker": GOOD,
    "v1-ok-worker-outlives-master": GOOD,
    "v1-ok-clean-all": GOOD,
    "v1-ok-clean-default": GOOD,
    "v1-ok-clean-none": GOOD,
    "v1-ok-ttl": GOOD,
    "v1-elastic": GOOD,
    "v1-gang-without-scheduler": GOOD,
    "v1-restricted-namespace": GOOD,
    "v1-exit137-once-then-ok": Outcome("succeeded", restarts=1, says=("was started again, 1 of 3 times: pod",)),
    "v1-exit137-worker": Outcome("succeeded", restarts=3),
    "v1-exit1-master": MASTER_1,
    "v1-exit1-ttl": MASTER_1,
    "v1-exit1-ttl-never": MASTER_1,
    "v1-exit1-backoff0": MASTER_1,
    "v1-exit1-backoff0-ttl": MASTER_1,
    "v1-exit1-worker": Outcome("failed: pod {name}-worker-0 ended with exit code 1. Its last lines:\n    last words"),
    # Its pods are gone, with their logs, which were read before.
    "v1-exit1-clean-all": MASTER_1,
    "v1-onfailure-exit1-backoff2": Outcome(
        "failed: Job {name} has failed because it has reached the specified backoff"
    ),
    "v1-exit127-backoff2": Outcome("failed: pod {name}-master-0 ended with exit code 127. Its last lines:"),
    "v1-exit137-backoff0": Outcome("failed: pod {name}-master-0 ended with exit code 137. Its last lines:"),
    "v1-never-exit137": Outcome("failed: pod {name}-master-0 ended with exit code 137. Its last lines:"),
    "v1-oom-child-process": Outcome(
        "ended with exit code 1 (OOMKilled: a process beside the main one, such as a reader of crops, was killed for "
        "memory). Raise cluster.memory"
    ),
    "v1-oom-init-process": too_often("ended with exit code 137 (OOMKilled). Raise cluster.memory"),
    "v1-exit128-backoff2": too_often("ended with exit code 128. Its last lines:"),
    "v1-exit137-backoff1": too_often("ended with exit code 137. Its last lines:", 1),
    "v1-exit137-backoff2": too_often("ended with exit code 137. Its last lines:"),
    "v1-exit141-backoff2": too_often("ended with exit code 141. Its last lines:"),
    "v1-exit143-backoff2": too_often("ended with exit code 143. Its last lines:"),
    "v1-kill9-backoff2": too_often("ended with exit code 137. Its last lines:"),
    "v1-deadline-poked": Outcome("failed: Job {name} has failed because it was active longer than specified deadline"),
    "v1-deadline": HANGS,
    "v1-deadline-ttl": HANGS,
    "v1-pod-deleted": replace(HANGS, restarts=1),
    "v1-pod-deleted-worker": replace(HANGS, restarts=1),
    "v1-pod-evicted": replace(HANGS, restarts=1, says=("exit code 143 (EvictionByEvictionAPI)",)),
    "v1-delete-background": DELETED,
    "v1-delete-foreground": DELETED,
    "v1-owner-pod": DELETED,
    "v1-quota-exceeded": replace(HANGS, says=('FailedCreatePod: Error creating: pods "quota-exceeded-worker-0" is',)),
    "v1-restricted-refused": replace(HANGS, says=("FailedCreatePod: Error creating: pods ",)),
    "v1-unschedulable": replace(HANGS, says=("pod unschedulable-master-0: Unschedulable: 0/1 nodes",)),
    "v1-no-image": replace(HANGS, says=("pod no-image-master-0: ImagePullBackOff: ",)),
    "v1-suspend": GOOD,
    "kueue-pytorchjob-first": GOOD,
    "kueue-pytorchjob-second-waits": GOOD,
    "kueue-pytorchjob-evicted": GOOD,
    "kueue-pytorchjob-failing": Outcome("-0 ended with exit code 1. Its last lines:\n    last words"),
}


@pytest.mark.endurance
@pytest.mark.parametrize("name", OUTCOMES)
def test_a_recorded_job_ends_as_it_should(
    name: str, operator: Operator, proxy: KubeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = OUTCOMES[name]
    moments = recording(name)
    job = moments[0]["pytorchjob"]["metadata"]["name"]
    # Each try has its own, which are gone with its pod.
    proxy.fault("GET", "tailLines=10", lines("last words"), always=True)
    proxy.fault("GET", "follow=True", lines(), always=True)
    settings = {"restarts": outcome.restarts_allowed, "deadline_seconds": SECONDS}
    asked = job_in(operator, nodes=2, name=job, cluster=settings)

    def has_told_all() -> bool:
        counted = Record.of(operator.get(job)).most_restarts()
        return counted == outcome.restarts and all(part in said.getvalue() for part in outcome.says)

    def play() -> None:
        operator.replay(job, moments)
        if outcome.hangs:
            eventually(has_told_all, "the launcher has not told all")
            # However long all this took, the time is over only now.
            later = now() + timedelta(seconds=SECONDS)
            monkeypatch.setattr("components.cluster.watching.wait.now", lambda: later)

    with redirect_stderr(io.StringIO()) as said:
        if outcome.ends == "succeeded":
            assert launch(asked, operator, play, url=proxy.url).name == job
        else:
            with pytest.raises(JobError) as caught:
                launch(asked, operator, play, url=proxy.url)
            assert outcome.ends.format(name=job) in str(caught.value)
    assert [part for part in outcome.says if said.getvalue().count(part) != 1] == [], said.getvalue()
    left = [name for name in operator.names() if not is_deleted(operator.get(name))]
    assert bool(left) == (outcome.left and moments[-1]["pytorchjob"] is not None)
    if outcome.left and left and "failed: " in outcome.ends:
        # Else the operator would retry its removal for ever.
        assert operator.get(job)["status"]["completionTime"]
    if operator.names():
        assert Record.of(operator.get(job)).most_restarts() == outcome.restarts


def test_every_recording_is_launched() -> None:
    assert set(PHASES) - set(OUTCOMES) == {"kueue-pytorchjob-too-large"}


def test_a_job_that_waits_in_a_queue_waits_for_ever_and_says_so_once(
    operator: Operator, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "pt-large"

    def play() -> None:
        operator.replay(name, recording("kueue-pytorchjob-too-large"))
        time.sleep(3)  # longer than it may run
        assert not is_deleted(operator.get(name))
        operator.delete(name, "Background")

    with pytest.raises(JobError, match="was deleted while it ran"):
        launch(
            job_in(operator, name=name, cluster={"queue": "training", "deadline_seconds": 2}),
            operator,
            play,
            replace(QUICK, look=0.6),
        )
    assert capfd.readouterr().err.splitlines() == [
        f"{operator.namespace}/{name}: created",
        f"{name}: waits for quota: couldn't assign flavors to pod set worker: insufficient quota for cpu in flavor "
        "default-flavor, previously considered podsets requests (1500m) + current podset request (1500m) > maximum "
        "capacity (2)",
    ]
