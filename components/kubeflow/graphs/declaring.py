"""What every task of a graph is declared with: its image, size, disk, credentials, attempts and caching."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask

from components.cluster import certificates
from components.cluster.pods import SECRETS
from components.kubeflow.sections import sizes_of
from components.params import Params
from model.device import NEEDS_GPU

# Any image will do here: the graph sets the one that it is given.
component: Callable[[Callable[..., Any]], Callable[..., PipelineTask]] = dsl.component(
    base_image="dual-hrnet:python", install_kfp_package=False
)
SCRATCH = "/tmp"  # the home of the image, and so where the copies of S3 locations lie
# Argo starts a task again whose pod was deleted, as with its node; not one whose process failed, which has had patience
# with what may pass (seen with KFP 2.17.0 and Argo 4.0.5). This bound counts from the start of the first attempt, work
# included, and ends a later one that is still at work. Left out it is an hour, and a large fetch, prepare or training
# takes longer. 60 days:
LONGEST = "5184000s"
FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "RUN_ID": "metadata.labels['pipeline/runid']",
}


class Needs(NamedTuple):
    """What a task asks of the cluster beside the size that `cluster.steps` gives it. gpu: one, where the cluster has
    GPUs. retries: after its pod was lost; 0 leaves it at what Kubeflow's own settings say.
    """

    gpu: bool = False
    retries: int = 4
    cached: bool = True


def configure(
    task: PipelineTask, step: str, needs: Mapping[str, Needs], params: Params, image: Any, sizes: Any,
    pods: Mapping[str, Any],
) -> None:  # fmt: skip
    """Gives the task of a step its image, size, disk, credentials, attempts and caching.

    needs: of the graph's steps. params: for what Kubeflow takes no parameter for. image, sizes, and node_selector and
    tolerations in `pods`: parameters of the graph; `form.sized` makes cores and memory of `sizes`.
    """
    own = needs[step]
    task.set_container_image(image)
    task.register_pipeline_channels([sizes])
    if own.gpu and params.cluster.device_resource is not None and params.cluster.devices_per_node:
        task.set_accelerator_type(params.cluster.device_resource).set_accelerator_limit(1)
        task.set_env_variable(NEEDS_GPU, "1")
    if own.retries:
        task.set_retry(own.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=LONGEST)
    task.set_caching_options(own.cached)
    scratch = sizes_of(params)[step].scratch
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=SCRATCH, size_limit=scratch)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_image_pull_secrets(task, params.cluster.image_pull_secrets)
    for secret, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if params.cluster.certificates is not None:
        kubernetes.use_config_map_as_volume(task, params.cluster.certificates, certificates.FOLDER)
        for variable, path in certificates.VARIABLES.items():
            task.set_env_variable(variable, path)
    for variable, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, variable, path)
    kubernetes.add_node_selector_json(task, pods["node_selector"])
    kubernetes.add_toleration_json(task, pods["tolerations"])
