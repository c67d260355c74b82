"""Sections of params.yaml as Kubeflow keeps them: parameters of a graph, where a null is left out and 16 is 16.0."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.params import Params, StepSize, load_params, validate

ROOT = Path(__file__).resolve().parents[2]
NULL = "null"  # as people write it into a form
SECTIONS = ("prepare", "train", "evaluate", "register", "promote", "tracking", "cluster")
# Of the section cluster, what the pods of the graph itself need, too: parameters of their own.
OF_PODS = ("steps", "node_selector", "tolerations")
# And what Kubeflow takes no parameters for: a graph has what it was compiled with.
COMPILED = ("image_pull_secrets", "certificates")  # and `scratch` of each step
Sections = Mapping[str, Mapping[str, Any]]


def sizes_of(params: Params) -> Mapping[str, StepSize]:
    """The size of each step's pod; one that is not told is that of params.yaml."""
    usual = load_params(ROOT / "params.yaml").cluster.steps
    assert usual is not None
    return {str(step): size for step, size in {**usual, **(params.cluster.steps or {})}.items()}


def defaults_of(params: Params, steps: Collection[str]) -> dict[str, Any]:
    """What a graph of these steps shows of the parameters in the form of a run: the sections, and those of its pods."""
    sections = _without_nulls(params.model_dump(mode="json", by_alias=True, include={*SECTIONS, "register_"}))
    cluster, sizes = sections["cluster"], sizes_of(params)
    of_pods = {name: cluster.pop(name, None) for name in (*OF_PODS, *COMPILED)}
    return {
        **sections,
        "step_sizes": {step: {"cpu": sizes[step].cpu, "memory": sizes[step].memory} for step in steps},
        "node_selector": of_pods["node_selector"],
        "tolerations": of_pods["tolerations"],
    }


def params_of(sections: Sections) -> Params:
    """The parameters of these sections; the others, which the step does not look at, are those of params.yaml.

    A key that is missing is null; but of the pods' part of the section cluster it is that of params.yaml.
    Raises ParamsError.
    """
    usual = load_params(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)
    given = {name: {**dict.fromkeys(usual[name]), **from_kubeflow(values)} for name, values in sections.items()}
    if "cluster" in given:
        cluster = given["cluster"]
        held = {name: usual["cluster"][name] for name in (*OF_PODS, *COMPILED)}
        cluster.update({name: value for name, value in held.items() if cluster[name] is None})
        cluster["steps"] = {
            step: {**held["steps"].get(step, {}), **size} if isinstance(size, Mapping) else size
            for step, size in cluster["steps"].items()
        }
    return validate({**usual, **given}, "the parameters of the pipeline")


def from_kubeflow(content: Any) -> Any:
    """A parameter as it was given: numbers are floats there, 16 comes back as 16.0, which is no number of epochs."""
    if isinstance(content, Mapping):
        return {key: from_kubeflow(part) for key, part in content.items()}
    if isinstance(content, list):
        return [from_kubeflow(part) for part in content]
    if isinstance(content, float) and content.is_integer():
        return int(content)
    return None if content == NULL else content


def _without_nulls(content: Any) -> Any:
    """Null is no value of a default there."""
    if isinstance(content, Mapping):
        return {key: _without_nulls(part) for key, part in content.items() if part is not None}
    if isinstance(content, list):
        return [_without_nulls(part) for part in content]
    return content
