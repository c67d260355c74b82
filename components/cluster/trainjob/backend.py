"""TrainJobs to the launcher."""

from typing import Any, Literal

from components.cluster.api import Api, Resource
from components.cluster.backend import Object, Seen, State
from components.cluster.job import JobError, KindName, TrainingJob, check_name
from components.cluster.trainjob.manifest import JOB, NODE, runtime, trainjob
from components.cluster.trainjob.state import JOBSET, state


class TrainJobs:
    """The backend `trainjob`."""

    kind: KindName = "trainjob"
    operator = "Kubeflow Trainer 2, with JobSet"
    resource = JOB
    container = NODE
    # Trainer creates JobSet and pods again while a job is deleted in the foreground.
    propagation: Literal["Foreground", "Background"] = "Background"

    def longest_name(self, job: TrainingJob) -> int:
        """NAME-node-0-10-x7k2p names a pod; Trainer takes longer ones and makes nothing of them."""
        return 63 - len("-node-0-") - len(str(job.cluster.nodes - 1)) - len("-x7k2p")

    def check(self, job: TrainingJob) -> None:
        """Raises JobError where Trainer would refuse the name or a variable, or cannot do what the job asks for."""
        check_name(job.name, self.longest_name(job))
        cluster = job.cluster
        if cluster.elastic_min_nodes is not None:
            raise JobError(
                f"cluster.elastic_min_nodes: found {cluster.elastic_min_nodes}: a TrainJob goes on with all of its "
                "nodes or none. Set it to null, or take cluster.kind: pytorchjob."
            )
        if cluster.gang_scheduling and cluster.queue is None:
            raise JobError(
                "cluster.gang_scheduling: found true, without cluster.queue: a TrainJob has no such setting. "
                "Name a queue of Kueue, which admits the job as a whole, or set it to false."
            )
        for place, variables in (("cluster.environment", cluster.environment), ("environment", job.environment)):
            for name in variables:
                if name.startswith("PET_"):
                    raise JobError(f"{place}.{name}: Kubeflow Trainer sets the variables PET_* itself. Leave it out.")

    def manifests(self, job: TrainingJob) -> list[dict[str, Any]]:
        """The runtime, without which the TrainJob is refused, and the TrainJob."""
        return [runtime(job), trainjob(job)]

    def others(self, name: str) -> list[tuple[Resource, str]]:
        """The JobSet that Trainer makes."""
        return [(JOBSET, name)]

    def pods(self, name: str) -> dict[str, str]:
        """Labels of all pods, which carry none of the TrainJob's."""
        return {"jobset.sigs.k8s.io/jobset-name": name}

    def first_pod(self, name: str) -> dict[str, str]:
        """Labels of the pods of the first node, one for each attempt."""
        return {**self.pods(name), "batch.kubernetes.io/job-completion-index": "0"}

    def state(self, seen: Seen) -> State:
        """How the job stands."""
        return state(seen)

    def settle(self, api: Api, job: Object) -> None:
        """Nothing is left undone: JobSet removes the pods."""
