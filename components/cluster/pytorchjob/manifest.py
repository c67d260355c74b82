"""A training job as the PyTorchJob (kubeflow.org/v1) of Kubeflow's training operator 1.9: the manifest alone.

The operator tells every pod by PET_* variables how many nodes there are and which one it is; `components.launch` reads
them as torchrun does and starts the processes of its node.
"""

import hashlib
import json
from typing import Any

from components.cluster.job import TrainJob
from components.params import ClusterParams
from model.device import NEEDS_GPU

API_VERSION, KIND = "kubeflow.org/v1", "PyTorchJob"
CONTAINER = "pytorch"  # the operator looks for this name
CONTENT_ANNOTATION = "dual-hrnet/content"  # a hash, by which a launcher that was started again knows its job
SCRATCH = "/scratch"
USER = 10001  # of the image
# From SIGTERM on: a step of training, a checkpoint of 480 MB to a disk and from there to S3, the end of the MLflow run.
GRACE_SECONDS = 120


def manifest(job: TrainJob) -> dict[str, Any]:
    """The PyTorchJob: a master, and a worker for each further node."""
    cluster = job.cluster
    labels = {"app.kubernetes.io/name": "dual-hrnet", **job.labels}
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
    # Without labels and owner, so that the same training of another pipeline run is known, too.
    content = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    for replica in replicas.values():
        replica["template"]["metadata"]["labels"] = labels
    metadata: dict[str, Any] = {
        "name": job.name,
        "namespace": job.namespace,
        "labels": labels,
        "annotations": {CONTENT_ANNOTATION: content},
    }
    if job.owner is not None:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **job.owner._asdict()}]
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


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


def _replica(job: TrainJob, replicas: int) -> dict[str, Any]:
    cluster = job.cluster
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,  # training asks Kubernetes nothing
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # The operator adds a container of its own to workers, whose image would run as root.
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(job)],
        "volumes": [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}},
            {"name": "scratch", "emptyDir": {"sizeLimit": cluster.scratch}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if cluster.node_selector:
        pod["nodeSelector"] = cluster.node_selector
    if cluster.tolerations:
        pod["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in cluster.tolerations]
    if cluster.service_account is not None:
        pod["serviceAccountName"] = cluster.service_account
    return {
        "replicas": replicas,
        # From exit code 128 on, which is a signal's, a pod is started again.
        "restartPolicy": "ExitCode",
        "template": {
            # The proxy of a service mesh would go on running beside a training that has ended.
            "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
            "spec": pod,
        },
    }


def _container(job: TrainJob) -> dict[str, Any]:
    cluster = job.cluster
    # HOME: libraries keep files there, and nothing else can be written to.
    own = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "DUAL_HRNET_CACHE": f"{SCRATCH}/cache"}
    # As much as it asks for and no more, so that the pod is among the last to be evicted.
    resources = {"cpu": str(cluster.cpu), "memory": cluster.memory}
    if cluster.device_resource is not None and cluster.devices_per_node > 0:
        resources[cluster.device_resource] = str(cluster.devices_per_node)
        own[NEEDS_GPU] = "1"
    environment = {**own, **cluster.environment, **job.environment}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": job.image,
        "command": ["python", "-m", "components.launch", "-m", "components.train"],
        "args": list(job.arguments),
        "env": [*({"name": name, "value": value} for name, value in environment.items()), *job.references],
        "resources": {"requests": {**resources, "ephemeral-storage": cluster.scratch}, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    if cluster.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in cluster.secrets]
    return container
