"""The steps declared to Kubeflow Pipelines: what goes in and out of each task, what it needs, how often it may start.

The bodies are two lines, because Kubeflow takes their source text out of this file; `components.kubeflow.tasks` works.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Metrics, Model, Output, PipelineTask

from model.device import NEEDS_GPU

# Any image will do here: the graph sets the one that it is given.
component: Callable[[Callable[..., Any]], Callable[..., PipelineTask]] = dsl.component(
    base_image="dual-hrnet:python", install_kfp_package=False
)
SCRATCH = "/tmp"  # the home of the image, and so where the copies of S3 locations lie
# Secrets with the credentials, as deploy/ names them, and their keys, which become variables. Roles need none.
SECRETS = {
    "dual-hrnet-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "dual-hrnet-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}
# Argo starts a task again whose pod was deleted, as with its node; not one whose process failed, which has had patience
# with what may pass (seen with KFP 2.17.0 and Argo 4.0.5). This bound counts from the start of the first attempt, work
# included, and ends a later one that is still at work. Left out it is an hour, and a large fetch, prepare or training
# takes longer. 60 days:
LONGEST = "5184000s"
FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_UID": "metadata.uid",
    "POD_NAMESPACE": "metadata.namespace",
    "RUN_ID": "metadata.labels['pipeline/runid']",
}


class Needs(NamedTuple):
    """What a task asks of the cluster. cpu: cores. scratch: of the node's disk. gpu: one, where the cluster has GPUs.
    retries: after its pod was lost; 0 leaves it at what Kubeflow's own settings say.
    """

    cpu: str
    memory: str
    scratch: str = "10Gi"
    gpu: bool = False
    retries: int = 4
    cached: bool = True


NEEDS = {
    # The raw data once as DVC's objects and once, linked, as files: xBD is 51 GB.
    "fetch": Needs("4", "8Gi", "120Gi"),
    # Of the largest source, tier3: 29 GB raw and 47 GB prepared.
    "prepare": Needs("8", "8Gi", "120Gi"),
    # It only waits for the job.
    "train": Needs("1", "2Gi"),
    "evaluate": Needs("8", "24Gi", "60Gi", gpu=True),
    "register": Needs("1", "8Gi"),
    # It may have to score production as evaluate scored the new version.
    "promote": Needs("8", "24Gi", "60Gi", gpu=True, cached=False),
    "finish": Needs("1", "2Gi", retries=0, cached=False),
}


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
    tracking: dict[str, Any],
    cluster: dict[str, Any],
    image: str,
    processes: int,
    mlflow_uri: str,
    s3_endpoint: str,
    model: Output[Model],
) -> None:
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        sections = {"prepare": prepare, "train": train, "tracking": tracking, "cluster": cluster}
        tasks.train(parts, root, sections, image, processes, model)


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
    s3_endpoint: str,
) -> str:
    from components.kubeflow import tasks

    with tasks.task(mlflow_uri, s3_endpoint):
        return tasks.register(model, evaluation, root, image, {"register": register})


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
def finish(tracking: dict[str, Any], mlflow_uri: str, kubeflow_uri: str, status: dsl.PipelineTaskFinalStatus) -> None:
    from components.kubeflow import ending, tasks

    with tasks.task(mlflow_uri):
        ending.finish(status.state, status.pipeline_job_resource_name, kubeflow_uri, {"tracking": tracking})


def configure(task: PipelineTask, step: str, device: str | None, image: Any, placement: Mapping[str, Any]) -> None:
    """Gives the task of a step its image, resources, disk, credentials, attempts and caching.

    device: name of GPUs in Kubernetes, None where there are none. image, and node_selector and tolerations in
    `placement`: values, or parameters of the graph.
    """
    needs = NEEDS[step]
    task.set_container_image(image)
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    if needs.gpu and device is not None:
        task.set_accelerator_type(device).set_accelerator_limit(1)
        task.set_env_variable(NEEDS_GPU, "1")
    if needs.retries:
        task.set_retry(needs.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=LONGEST)
    task.set_caching_options(needs.cached)
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=SCRATCH, size_limit=needs.scratch)
    kubernetes.set_security_context(task, run_as_non_root=True)
    for secret, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    for variable, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, variable, path)
    kubernetes.add_node_selector_json(task, placement["node_selector"])
    kubernetes.add_toleration_json(task, placement["tolerations"])
