"""What the pods of a job tell: what they wait for, and how they ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.cluster.backend import Object

# What a pod may be told to wait for that mends itself: starting takes a while.
USUAL = {"ContainerCreating", "PodInitializing"}
OOM = "OOMKilled"


@dataclass(frozen=True)
class End:
    """How the container of a pod ended. reason: beside the exit code; empty where that says all. at: RFC 3339."""

    pod: str
    code: int
    reason: str
    at: str

    @property
    def order(self) -> tuple[str, bool]:
        """Of the ends of one try, the least is the one that made the others end: by time, which has whole seconds, and
        within a second an error before what followed from it, such as a lost connection.
        """
        return self.at or "9", self.code >= 128

    def __str__(self) -> str:
        text = f"pod {self.pod} ended with exit code {self.code}"
        if self.reason == OOM and self.code != 137:
            return f"{text} ({OOM}: a process beside the main one, such as a reader of crops, was killed for memory)"
        return f"{text} ({self.reason})" if self.reason else text

    @property
    def remedy(self) -> str:
        """What to do about it, where the reason tells; else empty."""
        if self.reason != OOM:
            return ""
        return "Raise cluster.memory, which cluster.shared_memory is a part of, or lower train.workers."


def end_of(pod: Object, container: str) -> End | None:
    """How the pod's container ended; None if it did not."""
    for status in _containers(pod, container):
        end = status["state"].get("terminated")
        if end is not None:
            reason = end.get("reason") or ""
            if reason in ("Error", "Completed"):
                reason = _disruption(pod)
            return End(pod["metadata"]["name"], int(end["exitCode"]), reason, str(end.get("finishedAt") or ""))
    return None


def trouble(pod: Object, container: str) -> str:
    """What a pod waits for that somebody may have to mend; empty where it does not."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for status in _containers(pod, container):
        waiting = status["state"].get("waiting")
        if waiting is not None and waiting.get("reason") not in USUAL:
            return f"{waiting.get('reason')}: {waiting.get('message')}"
    return ""


def _containers(pod: Object, name: str) -> Iterator[dict[str, Any]]:
    statuses = pod["status"].get("containerStatuses") or []
    return (status for status in statuses if status["name"] == name and status.get("state"))


def _disruption(pod: Object) -> str:
    """Who took the pod away, such as EvictionByEvictionAPI or PreemptionByScheduler; empty where nobody did."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("reason") or "")
    return str(pod["status"].get("reason") or "")
