"""PyTorchJobs to the launcher."""

from typing import Any, Literal

from components.cluster.api import Api, Resource
from components.cluster.backend import Object, Seen, State
from components.cluster.job import KindName, TrainingJob, check_name
from components.cluster.pytorchjob.manifest import CONTAINER, RESOURCE, manifest
from components.cluster.pytorchjob.state import state


class PyTorchJobs:
    """The backend `pytorchjob`."""

    kind: KindName = "pytorchjob"
    operator = "the training operator 1.9"
    resource = RESOURCE
    container = CONTAINER
    propagation: Literal["Foreground", "Background"] = "Foreground"

    def longest_name(self, job: TrainingJob) -> int:
        """NAME-master-0 and NAME-worker-12 name pods and services, which have 63 characters."""
        return 63 - len("-worker-") - len(str(job.cluster.nodes - 1))

    def check(self, job: TrainingJob) -> None:
        """Raises JobError where Kubernetes would refuse the name."""
        check_name(job.name, self.longest_name(job))

    def manifests(self, job: TrainingJob) -> list[dict[str, Any]]:
        """The PyTorchJob."""
        return [manifest(job)]

    def others(self, name: str) -> list[tuple[Resource, str]]:
        """None: the job and its pods tell all that there is."""
        return []

    def pods(self, name: str) -> dict[str, str]:
        """Labels of all pods."""
        return {"training.kubeflow.org/job-name": name}

    def first_pod(self, name: str) -> dict[str, str]:
        """Labels of the master's pod."""
        return {**self.pods(name), "training.kubeflow.org/replica-type": "master"}

    def state(self, seen: Seen) -> State:
        """How the job stands."""
        return state(seen)

    def settle(self, api: Api, job: Object) -> None:
        """Sets the time at which the job failed, which the operator leaves out where an exit code failed it.

        Without it the operator retries "job completion time is nil, cannot cleanup" for ever, and the job is never
        removed; with it the job is, as one that the deadline failed is.
        """
        status = job["status"]
        if not status.get("completionTime"):
            ended = state(Seen(job)).ended
            api.patch(self.resource, job["metadata"]["name"], {"status": {"completionTime": ended}}, status=True)
