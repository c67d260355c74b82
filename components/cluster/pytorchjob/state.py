"""How a PyTorchJob stands, by the conditions that the training operator 1.9 sets."""

from collections.abc import Mapping
from typing import Any

from components.cluster.backend import Phase, Seen, State

# The condition that was true last tells the phase; Running and Restarting replace each other.
PHASES: list[tuple[str, Phase]] = [
    ("Succeeded", "succeeded"),
    ("Failed", "failed"),
    ("Suspended", "queued"),
    ("Restarting", "restarting"),
    ("Running", "running"),
    ("Created", "starting"),
]


def state(seen: Seen) -> State:
    """The state; the operator counts no restarts."""
    conditions = _conditions(seen.job)
    status = seen.job.get("status") or {}
    for name, phase in PHASES:
        if name in conditions:
            condition = conditions[name]
            # A job that failed by an exit code has no completionTime.
            ended = status.get("completionTime") or condition.get("lastTransitionTime")
            return State(
                phase, condition.get("message") or name, ended=ended if phase in ("succeeded", "failed") else None
            )
    if seen.job["spec"]["runPolicy"].get("suspend"):
        return State("queued")  # by Kueue's webhook, before the operator has seen the job
    # While a pod or a service is refused, the operator sets no condition at all; events tell.
    return State("starting" if seen.pods or seen.events else "unclaimed")


def _conditions(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Conditions that are true, by type."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}
