"""What this code asks the Kubernetes API for: every right that a service account needs, in one place.

The roles of deploy/ grant these and no more; `components.kube_check` asks a cluster for them.
"""

from typing import NamedTuple

from components.cluster.api import Resource
from components.cluster.owners import WORKFLOWS
from components.cluster.pytorchjob.manifest import RESOURCE as PYTORCHJOBS

__all__ = ["JOBSETS", "PYTORCHJOBS", "RIGHTS", "TRAINJOBS", "WORKFLOWS", "Right"]

TRAINJOBS = Resource("trainer.kubeflow.org/v1alpha1", "TrainJob")
JOBSETS = Resource("jobset.x-k8s.io/v1alpha2", "JobSet")


class Right(NamedTuple):
    """verbs: on the resource, which is a plural name, with its subresource if any. group: of the API, empty for pods
    and the like. needs: the kind that a cluster must have for the right to be used, if any.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    needs: Resource | None = None


RIGHTS = (
    Right("", "pods", ("get", "list", "watch")),
    Right("", "pods/log", ("get",)),
    Right("", "events", ("list",)),
    Right("argoproj.io", "workflows", ("get",)),
    Right("kueue.x-k8s.io", "workloads", ("list",)),
    Right("kubeflow.org", "pytorchjobs", ("create", "delete", "get", "list", "patch", "watch"), PYTORCHJOBS),
    Right("kubeflow.org", "pytorchjobs/status", ("patch",), PYTORCHJOBS),
    # A launcher looks for jobs that write to its output among those of each kind that the cluster has.
    Right("trainer.kubeflow.org", "trainjobs", ("create", "delete", "get", "list", "patch", "watch"), TRAINJOBS),
    Right("trainer.kubeflow.org", "trainingruntimes", ("create", "get", "patch"), TRAINJOBS),
    Right("jobset.x-k8s.io", "jobsets", ("get", "list", "watch"), TRAINJOBS),
)
