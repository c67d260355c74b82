"""The door to Argo Workflows, as which Kubeflow Pipelines runs a graph: how each part of a graph stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.cluster.api import Api, Resource
from components.cluster.job import JobError

WORKFLOWS = Resource("argoproj.io/v1alpha1", "Workflow")
CONTAINER = "main"  # of each of its pods


@dataclass(frozen=True)
class Node:
    """A part of a Workflow: a group, a task, the attempts at it, or the pod of one.

    name: of this node in the whole, such as graph(0).root(0).train(0).executor(0). kind: Argo's type, such as Pod or
    Retry. phase: Pending, Running, Succeeded, Failed, Error, Skipped or Omitted. exit_code: of a pod's container. pod:
    its name, where the node is one.
    """

    name: str
    kind: str
    phase: str
    message: str
    exit_code: int | None
    pod: str


@dataclass(frozen=True)
class Workflow:
    """nodes: in the order of their start. is_stopped: whether a person ended it, by Kubeflow or by Argo."""

    name: str
    is_stopped: bool
    nodes: tuple[Node, ...]


def read_workflow(api: Api, name: str) -> Workflow:
    """The Workflow of that name. Raises JobError where there is none, or it may not be read."""
    found = api.get(WORKFLOWS, name)
    if found is None:
        raise JobError(f"Workflow {api.namespace}/{name}: is not there. It was deleted, or is in another namespace.")
    status = found.get("status", {})
    if not status.get("nodes") and (status.get("compressedNodes") or status.get("offloadNodeStatusVersion")):
        raise JobError(f"Workflow {api.namespace}/{name}: is so large that Argo has packed its nodes.")
    return workflow_of(found)


def workflow_of(content: Mapping[str, Any]) -> Workflow:
    """The Workflow that an object of the API is."""
    name, spec, status = content["metadata"]["name"], content["spec"], content.get("status", {})
    rows = sorted((status.get("nodes") or {}).values(), key=lambda row: (row.get("startedAt") or "", row["name"]))
    # Kubeflow ends a run by a deadline that is over; Argo's own commands set `shutdown`.
    is_stopped = spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))
    return Workflow(name, is_stopped, tuple(_node(name, row) for row in rows))


def _node(workflow: str, row: Mapping[str, Any]) -> Node:
    code = (row.get("outputs") or {}).get("exitCode")
    return Node(
        name=row["name"],
        kind=row["type"],
        phase=row.get("phase", ""),
        message=row.get("message", ""),
        exit_code=None if code is None else int(code),
        pod=pod_name(workflow, row["id"], row.get("templateName", "")) if row["type"] == "Pod" else "",
    )


def pod_name(workflow: str, node: str, template: str) -> str:
    """The pod of a node. Source: Argo, workflow/util/pod_name.go, version 2 of the names."""
    return f"{workflow}-{template}-{node.removeprefix(f'{workflow}-')}"
