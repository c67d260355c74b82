"""The pod of a training job, which is the same under every kind of job.

The operator tells every pod by PET_* variables how many nodes there are and which one it is; `components.launch` reads
them as torchrun does and starts the processes of its node.
"""

from typing import Any

from components.cluster import certificates
from components.cluster.job import TrainingJob
from components.params import ClusterParams
from model.device import NEEDS_GPU

# tini, as in the image's own entry point: Python as the first process ignores SIGTERM until torchrun listens to it, and
# leaves readers of crops whose process was killed as zombies.
COMMAND = ["tini", "--", "python", "-m", "components.launch", "-m", "components.train"]
SCRATCH = "/scratch"
# Secrets with the credentials, as deploy/ names them, and the keys that every step has as variables. Roles need none.
SECRETS = {
    "dual-hrnet-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "dual-hrnet-mlflow": (
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_WORKSPACE",
    ),
}
USER = 10001  # of the image
# From SIGTERM on: a step of training, a checkpoint of 480 MB to a disk and from there to S3, the end of the MLflow run.
GRACE_SECONDS = 120


def template(job: TrainingJob, container: str) -> dict[str, Any]:
    """A pod template with everything but the restart policy; `container` is the name of its only container."""
    cluster = job.cluster
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,  # training asks Kubernetes nothing
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # The training operator adds a container of its own to workers, whose image would run as root.
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(job, container)],
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
    if cluster.certificates is not None:
        volume, mount = certificates.mount(cluster.certificates)
        pod["volumes"].append(volume)
        pod["containers"][0]["volumeMounts"].append(mount)
    if cluster.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in cluster.image_pull_secrets]
    # The proxy of a service mesh would go on running beside a training that has ended.
    annotations = {"sidecar.istio.io/inject": "false"}
    if cluster.topology is not None:
        # Source: https://kueue.sigs.k8s.io/docs/concepts/topology_aware_scheduling/
        annotations["kueue.x-k8s.io/podset-preferred-topology"] = cluster.topology
    return {"metadata": {"labels": job.pod_labels(), "annotations": annotations}, "spec": pod}


def environment(job: TrainingJob) -> list[dict[str, Any]]:
    """The container's `env`: what is written here before what refers to secrets."""
    # HOME: libraries keep files there, and nothing else can be written to.
    own = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "DUAL_HRNET_CACHE": f"{SCRATCH}/cache"}
    if job.cluster.certificates is not None:
        own.update(certificates.VARIABLES)
    if has_gpus(job.cluster):
        own[NEEDS_GPU] = "1"
    values = {**own, **job.cluster.environment, **job.environment}
    referred = [dict(entry) for entry in job.references if entry["name"] not in values]
    return [*({"name": name, "value": value} for name, value in values.items()), *referred]


def env_from(job: TrainingJob) -> list[dict[str, Any]]:
    """The container's `envFrom`: what the steps of a pipeline have, and then the secrets of the section `cluster`."""
    # The last of two that have the same key wins.
    usual = [{"secretRef": {"name": secret, "optional": True}} for secret in SECRETS]
    own = [{"secretRef": {"name": secret}} for secret in job.cluster.secrets]
    return [*usual, *(dict(entry) for entry in job.env_from), *own]


def resources(cluster: ClusterParams) -> dict[str, dict[str, str]]:
    """Requests and limits of a node's container."""
    # As much as it asks for and no more, so that the pod is among the last to be evicted.
    limits = {"cpu": str(cluster.cpu), "memory": cluster.memory}
    if has_gpus(cluster):
        limits[str(cluster.device_resource)] = str(cluster.devices_per_node)
    return {"requests": {**limits, "ephemeral-storage": cluster.scratch}, "limits": limits}


def has_gpus(cluster: ClusterParams) -> bool:
    """Whether each node asks for GPUs."""
    return cluster.device_resource is not None and cluster.devices_per_node > 0


def _container(job: TrainingJob, name: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": job.image,
        "command": COMMAND,
        "args": list(job.arguments),
        "envFrom": env_from(job),
        "env": environment(job),
        "resources": resources(job.cluster),
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
    return container
