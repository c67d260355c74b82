"""What can be known of a training job before it has pods, and before its data are copied."""

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from base.errors import InputError
from components.cluster.api import Api, JobPatience
from components.cluster.certificates import check_variables
from components.cluster.choose import choose, of_kind
from components.cluster.job import JobError, TrainingJob
from components.cluster.workflow import WORKFLOWS
from components.params import ClusterParams, Params
from model.train.batch import share_of_batch

SECONDS = 2  # for a cluster that need not be reached
# What such a variable holds would be plain text in manifests, which many may read.
SECRET = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|ACCESS_KEY|PRIVATE_KEY|API_KEY)(?!.*_(FILE|PATH|URI)$)")
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def check(params: Params) -> None:
    """Raises InputError where a training job with these parameters would fail in its pods, or could not be made."""
    cluster, train = params.cluster, params.train
    # An elastic job goes on with any number of nodes between the two.
    for nodes in range(cluster.elastic_min_nodes or cluster.nodes, cluster.nodes + 1):
        try:
            share_of_batch(train.global_batch_size, train.device_batch_size, nodes * cluster.processes_per_node)
        except InputError as error:
            raise JobError(
                f"{error} (cluster.nodes: {nodes}, with {cluster.processes_per_node} processes each, see "
                "cluster.devices_per_node)"
            ) from None
    if train.augmentation is not None:
        _check_augmentation(asdict(train.augmentation), train.crop_size)
    if cluster.kind != "auto":  # which only the cluster decides
        of_kind(cluster.kind).check(any_job(cluster))
    for name in ("priority", "topology"):
        if cluster.queue is None and getattr(cluster, name) is not None:
            raise JobError(
                f"cluster.{name}: found {getattr(cluster, name)!r} without a queue. It is Kueue's: name the queue in "
                "cluster.queue, too, or set it to null."
            )
    check_variables(cluster)
    for name, value in cluster.environment.items():
        if is_secret(name, value):
            raise JobError(
                f"cluster.environment.{name}: holds a password or key, which everybody could read in the job. Put it "
                "into a Kubernetes secret, and name that in cluster.secrets."
            )


def check_there(api: Api, cluster: ClusterParams) -> None:
    """Raises JobError where the cluster has no such kind of job, or its kind cannot do what the section asks for."""
    choose(api, cluster).check(any_job(cluster))


def warn_of_cluster(cluster: ClusterParams, namespace: str) -> None:
    """Warns where the cluster of the kubeconfig, if it runs pipelines, could not run the training job of this section.

    A kubeconfig may name another cluster than the one that a run goes to, or one that is not reached from here: says
    nothing where there is none, where it does not answer at once, or where it has no Argo Workflows.
    """
    try:
        api = Api(namespace, replace(JobPatience(), away=0, connect=SECONDS, answer=SECONDS))
        if not api.serves(WORKFLOWS):
            return
    except JobError:
        return
    try:
        check_there(api, cluster)
    except JobError as error:
        print(f"warning: the cluster of your kubeconfig, {api.host}: {error}", file=sys.stderr)


def _check_augmentation(pipelines: Mapping[str, Any], size: int) -> None:
    """Presets are known to be right; to build another takes an import of seconds."""
    if any(isinstance(pipeline, Mapping) for pipeline in pipelines.values()):
        from xbd.augmentation.pipelines import Augmentation, AugmentationError

        try:
            Augmentation(**pipelines, size=size)
        except AugmentationError as error:
            raise JobError(str(error)) from None


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a password or key, by its name or by its value."""
    return bool(SECRET.search(name.upper()) or PASSWORD_IN_URL.search(value))


def any_job(cluster: ClusterParams) -> TrainingJob:
    """A job of which only the section is known yet."""
    return TrainingJob("train", "", "", (), "", cluster)
