"""Sections of params.yaml as Kubeflow keeps them: parameters of a graph, in which null is a word and 16 is 16.0."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.params import Params, load_params, validate

ROOT = Path(__file__).resolve().parents[2]
NULL = "null"
Sections = Mapping[str, Mapping[str, Any]]


def params_of(sections: Sections) -> Params:
    """The parameters of these sections; the others, which the step does not look at, are those of params.yaml.

    Raises ParamsError.
    """
    usual = load_params(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)
    return validate({**usual, **_replace_values(sections, _from_kubeflow)}, "the parameters of the pipeline")


def sections_of(params: Params, names: Sequence[str]) -> dict[str, Any]:
    """These sections as Kubeflow can keep them as defaults of a graph: null is no value there, and stands as a word."""
    whole = params.model_dump(mode="json", by_alias=True)
    return {name: _replace_values(whole[name], lambda value: NULL if value is None else value) for name in names}


def _from_kubeflow(value: Any) -> Any:
    """Numbers are floats there: 16 comes back as 16.0, which is no number of epochs."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if value == NULL else value


def _replace_values(content: Any, replace: Callable[[Any], Any]) -> Any:
    if isinstance(content, Mapping):
        return {key: _replace_values(part, replace) for key, part in content.items()}
    if isinstance(content, list):
        return [_replace_values(part, replace) for part in content]
    return replace(content)
