"""The steps declared to Kubeflow Pipelines: what goes in and out of each task, what it needs, how often it may start.

The bodies are two lines, because Kubeflow takes their source text out of this file; `components.kubeflow.tasks` works.
"""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.kubeflow.graphs.declaring import Needs, component

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
