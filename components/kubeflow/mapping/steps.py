"""The steps of a map declared to Kubeflow Pipelines, as `components.kubeflow.steps` has those of a training.

The bodies are a few lines, because Kubeflow takes their source text out of this file; `tasks` beside it works.
"""

from typing import Any

from kfp.dsl import Dataset, Input, Markdown, Metrics, Output

from components.kubeflow.graphs.declaring import Needs, component

# Nothing comes from Kubeflow's cache, which knows no contents of files, and would keep a shard that failed. What lies
# below the root already is taken: it is known by the checksums in the plan.
NEEDS = {
    "plan": Needs(cached=False),
    "predict": Needs(gpu=True, cached=False),
    "merge": Needs(cached=False),
    "deliver": Needs(cached=False),
}


@component
def plan(
    model: str,
    pre: list[Any],
    post: list[Any],
    root: str,
    deliver_to: str,
    shards: int,
    reading: dict[str, Any],
    windows: dict[str, Any],
    align: str,
    features: bool,
    views: int,
    event: str,
    footprints: str,
    areas: str,
    mlflow_uri: str,
    s3_endpoint: str,
    plan: Output[Dataset],
) -> list[str]:
    from components.kubeflow.mapping import tasks
    from components.kubeflow.tasks import task

    with task(mlflow_uri, s3_endpoint):
        options = {"align": align, "features": features, "views": views, "event": event or None}
        options |= {"footprints": footprints or None}
        return tasks.plan(model, pre, post, root, deliver_to, shards, reading, windows, areas, options, plan)


@component
def predict(
    plan: Input[Dataset],
    number: str,
    windows: dict[str, Any],
    mlflow_uri: str,
    s3_endpoint: str,
    shard: Output[Dataset],
) -> None:
    from components.kubeflow.mapping import tasks
    from components.kubeflow.tasks import task

    with task(mlflow_uri, s3_endpoint):
        tasks.predict(plan, number, windows, shard)


@component
def merge(
    plan: Input[Dataset],
    shards: Input[list[Dataset]],
    areas: str,
    cell: float,
    s3_endpoint: str,
    merged: Output[Dataset],
) -> str:
    from components.kubeflow.mapping import tasks
    from components.kubeflow.tasks import task

    with task(s3_endpoint=s3_endpoint):
        return tasks.merge(plan, shards, areas, cell, merged)


@component
def deliver(
    merged: Input[Dataset],
    deliver_to: str,
    taken: str,
    tracking: dict[str, Any],
    mlflow_uri: str,
    mlflow_ui: str,
    kubeflow_uri: str,
    s3_endpoint: str,
    metrics: Output[Metrics],
    links: Output[Markdown],
) -> str:
    from components.kubeflow.mapping import tasks
    from components.kubeflow.tasks import task

    with task(mlflow_uri, s3_endpoint):
        return tasks.deliver(merged, deliver_to, taken, {"tracking": tracking}, mlflow_ui, kubeflow_uri, metrics, links)
