"""The form of a run in Kubeflow's UI: what its fields are, and how `step_sizes` reach the pods."""

from collections.abc import Mapping
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from components.kubeflow.steps import NEEDS

SIZES = "pipelinechannel--step_sizes"  # how the SDK calls the parameter `step_sizes` within a task
STRING = ParameterType.ParameterTypeEnum.STRING
ABOUT = "Building damage from satellite images: a version of the raw data to a registered model."
KEYS = "Sections (dict) are those of params.yaml, which explains their keys; a key that is not there is null."
PARAMETERS = {
    "raw_version": "DVC's hash of the raw data, as a .dvc file names it; or latest, which components.publish names",
    "data_remote": "the DVC remote that has the raw data: s3://BUCKET/PREFIX",
    "root": "where data, models and scores go: s3://BUCKET/PREFIX",
    "image": "of every task and of the training job, best by its digest",
    "prepare": "section: which scenes are left out or validate",
    "train": "section: network, crops, optimizer, epochs",
    "evaluate": "section: which splits are scored, and how",
    "register": "section: name of the model in MLflow",
    "promote": "section: the gate in front of production",
    "tracking": "section: experiment in MLflow",
    "cluster": "section: nodes, GPUs, cores, memory of the training job",
    "step_sizes": "cores and memory of each task's pod (cluster.steps); docs/kubeflow-ui.md tells how to size them",
    "node_selector": "labels of the nodes for all pods",
    "tolerations": "taints of nodes that all pods put up with",
    "mlflow_uri": "MLflow as pods reach it; empty: what the image or the platform says in MLFLOW_TRACKING_URI",
    "mlflow_ui": "MLflow as browsers reach it, for links; empty: as pods do",
    "s3_endpoint": "an S3 server other than AWS; empty: AWS, or what the environment says",
    "kubeflow_uri": "Kubeflow's UI, for links to this run in MLflow; empty: none",
    "auto_promote": "true: a model that passes the gate goes to production",
}
DESCRIPTION = "\n".join([ABOUT, "", KEYS, "", *(f"- {name}: {text}" for name, text in PARAMETERS.items())])


def fill_in(graph: Any, defaults: Mapping[str, Any]) -> Any:
    """The graph with descriptions of its parameters, and with these texts and truth values as their defaults."""
    parameters = graph.pipeline_spec.root.input_definitions.parameters
    for name, text in PARAMETERS.items():
        parameters[name].description = text
    for name, value in defaults.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value"
        setattr(parameters[name].default_value, kind, value)
        parameters[name].is_optional = True
    return graph


def sized(graph: Any) -> Any:
    """The graph of which each task takes its cores and memory out of the parameter `step_sizes`.

    Kubeflow's SDK gives a task whole parameters only; what runs a graph takes a part of one by an expression, as the
    SDK writes it for the items of a loop.
    Source: https://github.com/kubeflow/pipelines/blob/2.17.0/backend/src/v2/expression/expression.go
    """
    spec = graph.pipeline_spec
    dags = [("step_sizes", spec.root.dag), *((SIZES, part.dag) for part in spec.components.values())]
    for parameter, dag in dags:
        for step in NEEDS.keys() & dag.tasks.keys():
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
