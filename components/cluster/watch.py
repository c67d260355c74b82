"""Waiting for a job: its state, what its pods wait for, the logs of rank 0, and why it failed."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from base.patience import News
from components.cluster.api import PODS, Api, LogError
from components.cluster.backend import Backend, Seen
from components.cluster.job import JobError

LAST_LINES = 10  # of a failing pod's logs, in the error
# What a pod may be told to wait for that mends itself: starting takes a while.
USUAL = {"ContainerCreating", "PodInitializing"}


def wait(api: Api, backend: Backend, name: str, uid: str, seconds: float) -> dict[str, Any] | None:
    """Waits until the job has succeeded or failed, and returns it; its changes and troubles are printed.

    Returns None after so many seconds. Raises JobError where the job is deleted or the API refuses.
    """
    news = News()
    started = time.monotonic()
    this = {"metadata.name": name}
    while (left := started + seconds - time.monotonic()) > 0:
        now, version = api.find(backend.resource, fields=this)
        first = ("MODIFIED", now[0]) if now else ("DELETED", {})
        duration = max(1, min(api.patience.watch, int(left)))
        for event, job in chain([first], api.watch(backend.resource, version, duration, fields=this)):
            if event == "DELETED" or job["metadata"]["uid"] != uid:
                raise _deleted(api, name)
            state = backend.state(Seen(job))
            if state.is_over:
                return job
            if "deletionTimestamp" in job["metadata"]:
                raise _deleted(api, name)
            news.say(name, state.message, f"{name}: {state.message}")
        for pod in api.find(PODS, backend.pods(name))[0]:
            trouble = _trouble(pod, backend.container)
            news.say(pod["metadata"]["name"], trouble, f"pod {pod['metadata']['name']}: {trouble}")
        if not news.knows(name) and time.monotonic() - started > api.patience.unclaimed:
            text = "no operator has taken the job yet. Is the operator running?"
            news.say(name, text, f"{name}: {text}")
    return None


def failure(api: Api, backend: Backend, job: dict[str, Any]) -> JobError:
    """Why a job failed: the first pod that failed, its exit code and its last lines; else what the operator says."""
    name = job["metadata"]["name"]
    pods, _ = api.find(PODS, backend.pods(name))
    ended = [(end, pod) for pod in pods if (end := _end(pod, backend.container)) and end["exitCode"] != 0]
    if not ended:
        return JobError(f"{api.namespace}/{name} failed: {backend.state(Seen(job)).message}")
    end, pod = min(ended, key=lambda pair: str(pair[0].get("finishedAt") or "9"))
    failed = pod["metadata"]["name"]
    text = f"{api.namespace}/{name} failed: pod {failed} ended with exit code {end['exitCode']}"
    if end.get("reason") not in (None, "Error"):
        text += f" ({end['reason']})"
    try:
        lines = api.last_lines(failed, backend.container, LAST_LINES)
    except LogError as error:
        return JobError(f"{text}; {error}.")
    return JobError("\n    ".join([f"{text}. Its last lines:", *lines]) if lines else f"{text}, without logs.")


class LogStream:
    """Prints the logs of a job's first pod, which is rank 0, from a thread; over restarts of the pod and broken
    connections, each line once. Logs that cannot be read are a warning.
    """

    def __init__(self, api: Api, backend: Backend, name: str) -> None:
        self._api, self._backend, self._name = api, backend, name
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
                for pod in self._api.find(PODS, self._backend.first_pod(self._name))[0]:
                    if pod["metadata"]["uid"] != self._pod:
                        self._pod, self._last = pod["metadata"]["uid"], None
                    if pod["status"].get("phase") != "Pending":
                        self._print(pod["metadata"]["name"])
            except (LogError, JobError) as error:
                self._news.say("logs", str(error), f"warning: {error}")
            self._ended.wait(self._api.patience.logs)

    def _print(self, pod: str) -> None:
        before, since = self._last, None
        if before is not None:
            # A little more than is needed; what was printed is told by its time.
            since = max(1, math.ceil((datetime.now(UTC) - before).total_seconds()) + 1)
        for line in self._api.follow(pod, self._backend.container, since):
            moment, _, text = line.partition(" ")
            try:
                time_of_line = datetime.fromisoformat(moment)
            except ValueError:  # a remark of the kubelet
                print(line, flush=True)
                continue
            if before is None or time_of_line > before:
                self._last, before = time_of_line, None
                print(text, flush=True)


def _trouble(pod: Mapping[str, Any], container: str) -> str:
    """What a pod waits for that somebody may have to mend; empty where it does not."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for status in _containers(pod, container):
        waiting = status["state"].get("waiting")
        if waiting is not None and waiting.get("reason") not in USUAL:
            return f"{waiting.get('reason')}: {waiting.get('message')}"
    return ""


def _containers(pod: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    statuses = pod["status"].get("containerStatuses") or []
    return (status for status in statuses if status["name"] == name and status.get("state"))


def _end(pod: Mapping[str, Any], container: str) -> dict[str, Any] | None:
    """How the pod's container ended (ContainerStateTerminated); None if it did not."""
    return next((status["state"].get("terminated") for status in _containers(pod, container)), None)


def _deleted(api: Api, name: str) -> JobError:
    return JobError(
        f"{api.namespace}/{name} was deleted while it ran. Run the same command to go on with the training."
    )
