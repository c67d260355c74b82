"""The steps declared to Kubeflow Pipelines: what goes in and out of each task, what it needs, how often it may start.

The bodies are two lines, because Kubeflow takes their source text out of this file; `components.kubeflow.tasks` works.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output, PipelineTask

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


NEEDS = {
    # It asks which raw version is the latest: an answer of yesterday would hide today's.
    "check": Needs(cached=False),
    "fetch": Needs(),
    "prepare": Needs(),
    "train": Needs(),
    "evaluate": Needs(gpu=True),
    "register": Needs(),
    "promote": Needs(gpu=True, cached=False),
    "finish": Needs(retries=0, cached=False),
}


@component
def check(
    raw_version: str,
    data_remote: str,
    root: str,
    mlflow_uri: str,
    s3_endpoint: str,
    prepare: dict[str, Any],
    train: dict[str, Any],
    evaluate: dict[str, Any],
    register: dict[str, Any],
    promote: dict[str, Any],
    tracking: dict[str, Any],
    cluster: dict[str, Any],
    step_sizes: dict[str, Any],
    node_selector: dict[str, Any],
    tolerations: list[Any],
) -> NamedTuple("Checked", [("raw_version", str), ("news", str), ("start_from", str)]):  # type: ignore[valid-type]
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        sections = {"prepare": prepare, "train": train, "evaluate": evaluate, "register": register}
        sections |= {"promote": promote, "tracking": tracking}
        pods = {"steps": step_sizes, "node_selector": node_selector, "tolerations": tolerations}
        return tasks.check(raw_version, data_remote, root, sections | {"cluster": cluster | pods})


@component
def fetch(raw_version: str, data_remote: str, root: str, s3_endpoint: str, raw: Output[Dataset]) -> list[str]:
    from components.kubeflow import tasks

    with tasks.task(s3_endpoint=s3_endpoint):
        return tasks.fetch(raw_version, data_remote, root, raw)


@component
def prepare(
    raw: Input[Dataset], source: str, root: str, prepare: dict[str, Any], s3_endpoint: str, prepared: Output[Dataset]
) -> None:
    from components.kubeflow import tasks

    with tasks.task(s3_endpoint=s3_endpoint):
        tasks.prepare(raw, source, root, {"prepare": prepare}, prepared)


@component
def train(
    parts: Input[list[Dataset]],
    root: str,
    prepare: dict[str, Any],
    train: dict[str, Any],
    start_from: str,
    tracking: dict[str, Any],
    cluster: dict[str, Any],
    node_selector: dict[str, Any],
    tolerations: list[Any],
    image_pull_secrets: list[str],
    certificates: str,
    image: str,
    mlflow_uri: str,
    s3_endpoint: str,
    model: Output[Model],
) -> None:
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        compiled = {"image_pull_secrets": image_pull_secrets, "certificates": certificates or None}
        pods = {"node_selector": node_selector, "tolerations": tolerations, **compiled}
        sections = {"prepare": prepare, "train": train, "tracking": tracking, "cluster": cluster | pods}
        tasks.train(parts, root, sections, start_from, image, model)


@component
def evaluate(
    parts: Input[list[Dataset]],
    model: Input[Model],
    root: str,
    evaluate: dict[str, Any],
    mlflow_uri: str,
    s3_endpoint: str,
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
) -> NamedTuple("Scored", [("location", str), ("data", list[str])]):  # type: ignore[valid-type]
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        return tasks.evaluate(parts, model, root, {"evaluate": evaluate}, metrics, confusion, report)


@component
def register(
    model: Input[Model],
    evaluation: str,
    root: str,
    register: dict[str, Any],
    image: str,
    mlflow_uri: str,
    mlflow_ui: str,
    s3_endpoint: str,
    links: Output[Markdown],
) -> str:
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        return tasks.register(model, evaluation, root, image, {"register": register}, mlflow_ui, links)


@component
def promote(
    version: str,
    data: list[str],
    promote: dict[str, Any],
    evaluate: dict[str, Any],
    mlflow_uri: str,
    s3_endpoint: str,
) -> str:
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        return tasks.promote(version, data, {"promote": promote, "evaluate": evaluate})


@component
def finish(mlflow_uri: str, kubeflow_uri: str, status: dsl.PipelineTaskFinalStatus) -> None:
    from components.kubeflow import ending, tasks

    with tasks.task(mlflow_uri):
        ending.finish(status.state, status.pipeline_job_resource_name, kubeflow_uri)


def configure(task: PipelineTask, step: str, params: Params, image: Any, sizes: Any, pods: Mapping[str, Any]) -> None:
    """Gives the task of a step its image, size, disk, credentials, attempts and caching.

    params: for what Kubeflow takes no parameter for. image, sizes, and node_selector and tolerations in `pods`:
    parameters of the graph; `form.sized` makes cores and memory of `sizes`.
    """
    needs = NEEDS[step]
    task.set_container_image(image)
    task.register_pipeline_channels([sizes])
    if needs.gpu and params.cluster.device_resource is not None and params.cluster.devices_per_node:
        task.set_accelerator_type(params.cluster.device_resource).set_accelerator_limit(1)
        task.set_env_variable(NEEDS_GPU, "1")
    if needs.retries:
        task.set_retry(needs.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=LONGEST)
    task.set_caching_options(needs.cached)
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
