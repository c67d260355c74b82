"""How images are read and taken apart, as a graph of Kubeflow has it: parameters that are dicts of what is given."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from base.problems import describe
from components.kubeflow.sections import NULL, from_kubeflow
from components.kubeflow.tasks import TaskError
from imagery.settings import Reading, Windows

Settings = TypeVar("Settings", Reading, Windows)


def to_kubeflow(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are given, as a parameter of a graph, in which there is no null."""
    content: dict[str, Any] = json.loads(json.dumps(given))
    return {name: _without_nulls(value) for name, value in content.items()}


def settings_of(kind: type[Settings], parameter: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a parameter of the graph; what is not there is as usual. Raises TaskError, SettingsError."""
    names = [field.name for field in fields(kind)]
    for name in given:
        if name not in names:
            raise TaskError(f"{parameter}.{name}: is no setting, expected one of {', '.join(names)}. Correct it.")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(from_kubeflow(given)), strict=True)
    except ValidationError as error:
        raise TaskError(f"{parameter}.{describe(error.errors()[0])}. Correct it.") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return NULL if value is None else value
