"""Which kind of training job a cluster runs: the one that the parameters name, or the one that its API has."""

import sys

from components.cluster.api import Api
from components.cluster.backend import Backend
from components.cluster.job import JobError
from components.cluster.pytorchjob.backend import PyTorchJobs
from components.cluster.trainjob.backend import TrainJobs
from components.params import ClusterParams

# API groups of the schedulers that the training operator hands its pods to: Volcano, and the plugin Coscheduling.
GANG_SCHEDULERS = ("scheduling.volcano.sh", "scheduling.x-k8s.io")
# In the order in which `auto` takes them.
BACKENDS: tuple[Backend, ...] = (PyTorchJobs(), TrainJobs())


def of_kind(kind: str) -> Backend:
    """The backend of that name, without a cluster; for auto the first."""
    return next(backend for backend in BACKENDS if kind in ("auto", backend.kind))


def choose(api: Api, cluster: ClusterParams) -> Backend:
    """The backend for `cluster.kind`. Raises JobError where the cluster lacks it."""
    wanted = [backend for backend in BACKENDS if cluster.kind in ("auto", backend.kind)]
    served = [backend for backend in wanted if api.serves(backend.resource)]
    if not served:
        kinds = " or ".join(f"{backend.resource.kind} ({backend.resource.api_version})" for backend in wanted)
        raise JobError(
            f"cluster.kind: {cluster.kind}: the cluster has no {kinds}. Install the operator, or name the other kind."
        )
    if len(served) > 1:
        others = " and ".join(backend.resource.kind for backend in served[1:])
        print(f"cluster.kind: auto: takes {served[0].resource.kind}; the cluster has {others}, too", file=sys.stderr)
    return served[0]


def warn_of_gang(api: Api, cluster: ClusterParams) -> None:
    """Says where nothing will honour `cluster.gang_scheduling`: the operator passes over it then (seen with 1.9.4)."""
    if not cluster.gang_scheduling or cluster.queue is not None or any(map(api.version_of, GANG_SCHEDULERS)):
        return
    print(
        f"warning: cluster.gang_scheduling: found true, but the cluster has no scheduler that starts pods together "
        f"({' or '.join(GANG_SCHEDULERS)}): pods that find room will wait for those that do not. Install one, or let "
        "a queue of Kueue admit the job as a whole (cluster.queue).",
        file=sys.stderr,
        flush=True,
    )


def there(api: Api) -> list[Backend]:
    """The backends whose kind the cluster has, and whose jobs may be listed here."""
    return [backend for backend in BACKENDS if api.serves(backend.resource) and api.may("list", backend.resource)]
