"""Waiting for a PyTorchJob: its state, what its pods wait for, the logs of rank 0, and why it failed."""

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal

from base.patience import News
from components.cluster.job import JobError
from components.cluster.pytorchjob.api import JobApi, LogError
from components.cluster.pytorchjob.manifest import CONTAINER

LAST_LINES = 10  # of a failing pod's logs, in the error
# What a pod may be told to wait for that mends itself: starting takes a while.
USUAL = {"ContainerCreating", "PodInitializing"}


def end_of(job: dict[str, Any]) -> Literal["Succeeded", "Failed"] | None:
    """How the job ended, by the operator; None while it goes on."""
    conditions = _conditions(job)
    return "Succeeded" if "Succeeded" in conditions else "Failed" if "Failed" in conditions else None


def wait(api: JobApi, name: str, uid: str, seconds: float) -> dict[str, Any] | None:
    """Waits until the job has succeeded or failed, and returns it; its changes and troubles are printed.

    Returns None after so many seconds. Raises JobError where the job is deleted or the API refuses.
    """
    news = News()
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        now, version = api.look(name)
        for job in chain([now], api.watch(name, version, max(1, min(api.patience.watch, int(left))))):
            if job is None or job["metadata"]["uid"] != uid:
                raise _deleted(api, name)
            if end_of(job) is not None:
                return job
            if "deletionTimestamp" in job["metadata"]:
                raise _deleted(api, name)
            news.say(name, state := _state(job), f"{name}: {state}")
        for pod in api.pods(name):
            news.say(pod.metadata.name, trouble := _trouble(pod), f"pod {pod.metadata.name}: {trouble}")
        if not news.knows(name) and time.monotonic() - started > api.patience.unclaimed:
            text = "no operator has taken the job yet. Is the training operator running?"
            news.say(name, text, f"{name}: {text}")
    return None


def failure(api: JobApi, job: dict[str, Any]) -> JobError:
    """Why a job failed: the first pod that failed, its exit code and its last lines; else what the operator says."""
    name = job["metadata"]["name"]
    said = _conditions(job)["Failed"].get("message", "without a message of the operator")
    ended = [(end, pod) for pod in api.pods(name) if (end := _end(pod)) is not None and end.exit_code != 0]
    if not ended:
        return JobError(f"{api.namespace}/{name} failed: {said}")
    end, pod = min(ended, key=lambda pair: pair[0].finished_at or datetime.max.replace(tzinfo=UTC))
    text = f"{api.namespace}/{name} failed: pod {pod.metadata.name} ended with exit code {end.exit_code}"
    if end.reason not in (None, "Error"):
        text += f" ({end.reason})"
    try:
        lines = api.last_lines(pod.metadata.name, LAST_LINES)
    except LogError as error:
        return JobError(f"{text}; {error}.")
    return JobError("\n    ".join([f"{text}. Its last lines:", *lines]) if lines else f"{text}, without logs.")


class LogStream:
    """Prints the logs of a job's first pod, which is rank 0, from a thread; over restarts of the pod and broken
    connections, each line once. Logs that cannot be read are a warning.
    """

    def __init__(self, api: JobApi, name: str) -> None:
        self._api, self._name = api, name
        self._ended = threading.Event()
        self._pod: str | None = None  # uid of the pod that is read
        self._last: datetime | None = None  # time of the last line printed
        self._news = News()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Waits for the last lines, unless the block was left by an error."""
        self._ended.set()
        self._thread.join(self._api.patience.drain if kind is None else 0)

    def _run(self) -> None:
        last_round = False
        while not last_round:
            last_round = self._ended.is_set()
            try:
                for pod in self._api.pods(self._name, role="master"):
                    if pod.metadata.uid != self._pod:
                        self._pod, self._last = pod.metadata.uid, None
                    if pod.status.phase != "Pending":
                        self._print(pod.metadata.name)
            except (LogError, JobError) as error:
                self._news.say("logs", str(error), f"warning: {error}")
            self._ended.wait(self._api.patience.logs)

    def _print(self, pod: str) -> None:
        before, since = self._last, None
        if before is not None:
            # A little more than is needed; what was printed is told by its time.
            since = max(1, math.ceil((datetime.now(UTC) - before).total_seconds()) + 1)
        for line in self._api.follow(pod, since):
            moment, _, text = line.partition(" ")
            try:
                time_of_line = datetime.fromisoformat(moment)
            except ValueError:  # a remark of the kubelet
                print(line, flush=True)
                continue
            if before is None or time_of_line > before:
                self._last, before = time_of_line, None
                print(text, flush=True)


def _conditions(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Conditions that are true, by type, in the order in which they came about."""
    conditions = job.get("status", {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


def _state(job: dict[str, Any]) -> str:
    latest = list(_conditions(job).values())[-1:]
    return latest[0].get("message") or latest[0]["type"] if latest else ""


def _trouble(pod: Any) -> str:
    """What a pod waits for that somebody may have to mend; empty where it does not."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    for status in _containers(pod):
        waiting = status.state.waiting
        if waiting is not None and waiting.reason not in USUAL:
            return f"{waiting.reason}: {waiting.message}"
    return ""


def _containers(pod: Any) -> Iterator[Any]:
    statuses = pod.status.container_statuses or []
    return (status for status in statuses if status.name == CONTAINER and status.state is not None)


def _end(pod: Any) -> Any | None:
    """How the pod's container ended (V1ContainerStateTerminated); None if it did not."""
    return next((status.state.terminated for status in _containers(pod)), None)


def _deleted(api: JobApi, name: str) -> JobError:
    return JobError(
        f"{api.namespace}/{name} was deleted while it ran. Run the same command to go on with the training."
    )
