"""The form of a run in Kubeflow's UI: what its fields are, and how `step_sizes` reach the pods."""

from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

SIZES = "pipelinechannel--step_sizes"  # how the SDK calls the parameter `step_sizes` within a task
STRING = ParameterType.ParameterTypeEnum.STRING


def describe(about: str, fields: Mapping[str, str]) -> str:
    """The description of a graph: what it makes, and its parameters."""
    return "\n".join([about, "", *(f"- {name}: {text}" for name, text in fields.items())])


def fill_in(graph: Any, fields: Mapping[str, str], defaults: Mapping[str, Any]) -> Any:
    """The graph with descriptions of its parameters, and with these values, fit for JSON, as their defaults."""
    parameters = graph.pipeline_spec.root.input_definitions.parameters
    for name, text in fields.items():
        parameters[name].description = text
    for name, value in defaults.items():
        ParseDict(value, parameters[name].default_value)
        parameters[name].is_optional = True
    return graph


def sized(graph: Any, steps: Collection[str]) -> Any:
    """The graph of which each task of these steps takes its cores and memory out of the parameter `step_sizes`.

    Kubeflow's SDK gives a task whole parameters only; what runs a graph takes a part of one by an expression, as the
    SDK writes it for the items of a loop.
    Source: https://github.com/kubeflow/pipelines/blob/2.17.0/backend/src/v2/expression/expression.go
    """
    spec = graph.pipeline_spec
    dags = [("step_sizes", spec.root.dag), *((SIZES, part.dag) for part in spec.components.values())]
    for parameter, dag in dags:
        for step in set(steps) & dag.tasks.keys():
            container = spec.deployment_spec["executors"][f"exec-{step}"]["container"]
            resources = container.get_or_create_struct("resources")
            for part in ("cpu", "memory"):
                name = f"{SIZES}-{part}"
                taken = dag.tasks[step].inputs.parameters[name]
                taken.component_input_parameter = parameter
                taken.parameter_expression_selector = f'parseJson(string_value)["{step}"]["{part}"]'
                # A text, so that 4, as people may write it into a form, is taken as "4".
                spec.components[f"comp-{step}"].input_definitions.parameters[name].parameter_type = STRING
                for end in ("Request", "Limit"):
                    resources[f"resource{part.title()}{end}"] = f"{{{{$.inputs.parameters['{name}']}}}}"
    return graph
