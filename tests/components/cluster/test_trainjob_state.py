"""What a TrainJob's state is taken for, at each moment of the jobs that a real cluster ran."""

from itertools import groupby
from typing import Any

import pytest

from components.cluster.backend import Seen, State
from components.cluster.trainjob.backend import TrainJobs
from tests.servers.trainer_operator import RECORDED, recording

GOOD = "unclaimed 1, starting 2, running 3, succeeded 2"
RESTARTS_TWICE = "unclaimed 1, starting 2, running 3, restarting 3, running 3, restarting 3, running 3, failed 2"
# The phases in their order, each with the number of recorded moments. "gone": there is no TrainJob any more.
PHASES = {
    "kueue-trainjob-evicted": "queued 5, starting 3, running 1, queued 4, starting 3, running 3, succeeded 2",
    "kueue-trainjob-failing": (
        "queued 4, starting 3, running 3, restarting 3, running 3, restarting 3, running 1, failed 1"
    ),
    "kueue-trainjob-first": "queued 5, starting 3, running 3, succeeded 2",
    "kueue-trainjob-second-waits": "queued 4, starting 3, running 3, succeeded 2",
    "kueue-trainjob-too-large": "queued 4",
    "v2-deadline": "unclaimed 1, starting 2, failed 3",
    "v2-deadline-again": "unclaimed 1, starting 1, running 1, failed 3",
    "v2-deadline-third": "unclaimed 1, starting 2, running 1, failed 2",
    "v2-delete-background": "unclaimed 1, starting 2, running 2, gone 1",
    "v2-delete-foreground": "unclaimed 1, starting 2, running 3, gone 1",
    # At its end the JobSet was there a second time, and had done nothing yet.
    "v2-delete-foreground-again": "unclaimed 1, starting 2, running 2, unclaimed 2, gone 1",
    "v2-exit1-backoff2-never": "unclaimed 1, starting 2, running 5, failed 2",
    # Containers that are started again in their pods have no end while they wait.
    "v2-exit1-backoff2-onfailure": "unclaimed 1, starting 2, running 4, starting 1, failed 2",
    "v2-exit1-default": "unclaimed 1, starting 2, running 1",
    "v2-exit1-exitcodes": "unclaimed 1, starting 2, running 2, failed 2",
    "v2-exit1-one-node-default": (
        "unclaimed 1, starting 2, running 1, starting 1, running 1, starting 1, running 5, failed 2"
    ),
    "v2-exit1-perindex": "unclaimed 1, starting 2, running 3, failed 2",
    "v2-exit1-restarts2": RESTARTS_TWICE,
    "v2-exit137-exitcodes": RESTARTS_TWICE,
    # The last attempt ended before all pods were ready.
    "v2-exit143-worker-exitcodes": (
        "unclaimed 1, starting 2, running 3, restarting 3, running 3, restarting 4, failed 2"
    ),
    "v2-invalid": "unclaimed 5, starting 2, running 2",
    "v2-long-name": "unclaimed 2",
    "v2-ok": "unclaimed 1, starting 2, running 5, succeeded 2",
    "v2-ok-cluster-runtime": GOOD,
    "v2-ok-no-trainer": GOOD,
    "v2-ok-numproc": "unclaimed 1, starting 2, running 2, succeeded 2",
    "v2-ok-numproc-from-cpu": "unclaimed 1, starting 2, running 1, succeeded 2",
    "v2-ok-patches": GOOD,
    "v2-ok-plain-policy": GOOD,
    "v2-ok-trainer-empty": GOOD,
    "v2-oom-exitcodes": "unclaimed 1, starting 2, running 3, restarting 3, running 3, restarting 2, failed 1",
    "v2-owner-pod": "unclaimed 1, starting 2, running 2, gone 1",
    # All pods are gone for a moment before the set is started again.
    "v2-pod-deleted": "unclaimed 1, starting 2, running 2, starting 1, restarting 3, running 2",
    "v2-pod-evicted": "unclaimed 1, starting 2, running 1, starting 1, running 2",
    "v2-pod-evicted-count": "unclaimed 1, starting 2, running 1, starting 1, restarting 3, running 2",
    "v2-runtime-gone": "queued 4",
    "v2-success-policy-rank0": GOOD,
    "v2-suspend": "queued 4, starting 3, running 1, queued 4, starting 3, running 3, succeeded 2",
    "v2-ttl": GOOD,
    "v2-unschedulable": "unclaimed 1, starting 3",
    "v2-worker-fails-after-rank0": (
        "unclaimed 1, starting 2, running 3, restarting 3, running 3, restarting 2, failed 1"
    ),
    "v2-worker-lags": GOOD,
}
# How the jobs that ended ended: the reason, the restarts, and when.
ENDS = {
    "kueue-trainjob-failing": ("ReachedMaxRestarts", 2),
    "v2-deadline": ("DeadlineExceeded", 0),
    "v2-deadline-again": ("DeadlineExceeded", 0),
    "v2-deadline-third": ("DeadlineExceeded", 0),
    "v2-exit1-backoff2-never": ("FailedJobs", 0),
    "v2-exit1-backoff2-onfailure": ("FailedJobs", 0),
    "v2-exit1-exitcodes": ("FailJobSetFailurePolicyAction", 0),
    "v2-exit1-one-node-default": ("FailedJobs", 0),
    "v2-exit1-perindex": ("FailedJobs", 0),
    "v2-exit1-restarts2": ("ReachedMaxRestarts", 2),
    "v2-exit137-exitcodes": ("ReachedMaxRestarts", 2),
    "v2-exit143-worker-exitcodes": ("ReachedMaxRestarts", 2),
    "v2-oom-exitcodes": ("ReachedMaxRestarts", 2),
    "v2-worker-fails-after-rank0": ("ReachedMaxRestarts", 2),
}


def seen(row: dict[str, Any]) -> Seen:
    """A row of a recording."""
    jobsets = [{"kind": "JobSet", **jobset} for jobset in row.get("jobsets", [])]
    return Seen(row["trainjob"], row.get("pods", []), jobsets, row.get("events", []))


def states(scenario: str) -> list[State]:
    """At each moment of a recording at which the TrainJob was there."""
    return [TrainJobs().state(seen(row)) for row in recording(scenario) if row["trainjob"] is not None]


def test_every_recording_is_in_the_table() -> None:
    assert sorted(PHASES) == sorted(path.stem for path in RECORDED.glob("*.jsonl"))


@pytest.mark.parametrize("scenario", PHASES)
def test_the_phase_is_the_one_that_was_at_that_time(scenario: str) -> None:
    gone = sum(row["trainjob"] is None for row in recording(scenario))
    phases = [state.phase for state in states(scenario)] + ["gone"] * gone
    counted = [f"{phase} {len(list(group))}" for phase, group in groupby(phases)]
    assert ", ".join(counted) == PHASES[scenario]


@pytest.mark.parametrize("scenario", [name for name, phases in PHASES.items() if "failed" in phases])
def test_a_failed_job_has_the_operators_reason_and_its_restarts(scenario: str) -> None:
    end = states(scenario)[-1]
    reason, _, message = end.message.partition(": ")
    conditions = recording(scenario)[-1]["trainjob"]["status"]["conditions"]
    assert (reason, end.restarts) == ENDS[scenario]
    assert (message, end.ended) == (conditions[-1]["message"], conditions[-1]["lastTransitionTime"])


@pytest.mark.parametrize("scenario", [name for name, phases in PHASES.items() if "succeeded" in phases])
def test_a_job_that_succeeded_has_the_time_of_its_end(scenario: str) -> None:
    end = states(scenario)[-1]
    (condition,) = [
        one for one in recording(scenario)[-1]["trainjob"]["status"]["conditions"] if one["type"] == "Complete"
    ]
    assert (end.ended, end.restarts) == (condition["lastTransitionTime"], 0)


def test_restarts_count_up_while_the_job_goes_on() -> None:
    counted = [state.restarts or 0 for state in states("v2-exit137-exitcodes")]
    assert counted == sorted(counted)
    assert set(counted) == {0, 1, 2}


def test_why_there_are_no_pods_is_the_message_of_a_job_that_nobody_has_taken() -> None:
    before, after = states("v2-long-name")
    assert before == State("unclaimed", "", 0)
    assert "JobSet name is too long, pod names generated for this JobSet will exceed 63 characters" in after.message


def test_a_job_that_the_queue_stops_is_queued_before_its_pods_are_gone() -> None:
    """Kueue changes the field; Trainer follows, and then JobSet deletes the pods."""
    rows = {row["phase"]: row for row in recording("kueue-trainjob-evicted")}
    stopped = rows["10-running"]
    assert [pod["status"]["phase"] for pod in stopped["pods"]] == ["Running", "Running"]
    assert TrainJobs().state(seen(stopped)).phase == "queued"
