"""How a TrainJob stands, from all that there is of it.

While it runs it has no condition: `jobsStatus` tells whether it has pods, its pods how far they are, its JobSet how
often they were started again, and an event why it has none.
"""

from collections.abc import Iterator
from typing import Any

from components.cluster.api import Resource
from components.cluster.backend import Object, Seen, State
from components.cluster.trainjob.manifest import JOB

JOBSET = Resource("jobset.x-k8s.io/v1alpha2", "JobSet")


def state(seen: Seen) -> State:
    """By the TrainJob, and while it goes on by its JobSet, its pods and its events."""
    true = _conditions(seen.job)
    jobset = next((other for other in seen.others if other["kind"] == JOBSET.kind), {})
    restarts = jobset.get("status", {}).get("restarts", 0)
    if "Complete" in true:
        return State("succeeded", "", restarts, true["Complete"]["lastTransitionTime"])
    if "Failed" in true:
        end = true["Failed"]
        return State("failed", f"{end['reason']}: {end['message']}", restarts, end["lastTransitionTime"])
    # A queue changes the field, and Trainer follows with the condition.
    if seen.job["spec"].get("suspend") or "Suspended" in true:
        return State("queued", true.get("Suspended", {}).get("message", ""), restarts)
    jobs = seen.job.get("status", {}).get("jobsStatus", [])
    if not jobs:
        return State("unclaimed", _refusal(seen), restarts)
    if "RestartingJobSet" in (restarting := _conditions(jobset)):
        return State("restarting", f"restart {restarts}: {restarting['RestartingJobSet']['message']}", restarts)
    if any(job["ready"] for job in jobs) or any(_ends(seen)):
        return State("running", "the pods are running", restarts)
    return State("starting", "the pods are starting", restarts)


def _conditions(of: Object) -> dict[str, dict[str, Any]]:
    """Conditions that are true, by type."""
    conditions = of.get("status", {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


def _refusal(seen: Seen) -> str:
    """Why Trainer has made nothing of the job, such as a name that is too long; empty where it has not tried."""
    said = [
        event["message"]
        for event in seen.events
        if event["type"] == "Warning" and event["involvedObject"]["kind"] == JOB.kind
    ]
    return said[-1] if said else ""


def _ends(seen: Seen) -> Iterator[Object]:
    """How containers of the pods have ended: where one has, the pods are not about to start."""
    for pod in seen.pods:
        for status in pod["status"].get("containerStatuses") or []:
            if "terminated" in status["state"]:
                yield status["state"]["terminated"]
