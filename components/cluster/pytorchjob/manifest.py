"""A training job as the PyTorchJob (kubeflow.org/v1) of Kubeflow's training operator 1.9: the manifest alone."""

from typing import Any

from components.cluster.api import Resource
from components.cluster.job import TrainingJob
from components.cluster.pods import template
from components.params import ClusterParams

RESOURCE = Resource("kubeflow.org/v1", "PyTorchJob")
CONTAINER = "pytorch"  # the operator looks for this name


def manifest(job: TrainingJob) -> dict[str, Any]:
    """The PyTorchJob: a master, and a worker for each further node."""
    cluster = job.cluster
    replicas = {"Master": _replica(job, 1)}
    if cluster.nodes > 1:
        replicas["Worker"] = _replica(job, cluster.nodes - 1)
    spec: dict[str, Any] = {
        "nprocPerNode": str(cluster.processes_per_node),
        "runPolicy": _run_policy(cluster),
        "pytorchReplicaSpecs": replicas,
    }
    if cluster.elastic_min_nodes is not None:
        spec["elasticPolicy"] = {
            "minReplicas": cluster.elastic_min_nodes,
            "maxReplicas": cluster.nodes,
            "maxRestarts": cluster.restarts,
            "rdzvBackend": "c10d",
            "rdzvHost": f"{job.name}-master-0",  # the default is the first worker, which may be lost
        }
    if cluster.topology is not None and cluster.nodes > 1:
        for replica in replicas.values():  # two sets of pods to Kueue, which are to be in one place
            replica["template"]["metadata"]["annotations"]["kueue.x-k8s.io/podset-group-name"] = "nodes"
    return {"apiVersion": RESOURCE.api_version, "kind": RESOURCE.kind, "metadata": job.metadata(), "spec": spec}


def _run_policy(cluster: ClusterParams) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "cleanPodPolicy": "Running",
        "backoffLimit": cluster.restarts,
        "ttlSecondsAfterFinished": cluster.ttl_seconds,
        "activeDeadlineSeconds": cluster.deadline_seconds,
    }
    if cluster.gang_scheduling:
        policy["schedulingPolicy"] = {"minAvailable": cluster.elastic_min_nodes or cluster.nodes}
    return policy


def _replica(job: TrainingJob, replicas: int) -> dict[str, Any]:
    # From exit code 128 on, which is a signal's, a pod is started again.
    return {"replicas": replicas, "restartPolicy": "ExitCode", "template": template(job, CONTAINER)}
