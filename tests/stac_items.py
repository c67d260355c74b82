"""STAC items held to their specifications: to the JSON schemas in tests/schemas, and to what no schema here says."""

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource

from tests.paths import ROOT

_CORE = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema"
_GEOJSON = "https://geojson.org/schema"
_SCHEMAS = ROOT / "tests" / "schemas"
_MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"


def check_item(item: Mapping[str, Any]) -> None:
    """Raises jsonschema's ValidationError where it is no item of STAC 1.1.0."""
    resources = [
        (f"{base}/{path.name}", Resource.from_contents(json.loads(path.read_text(encoding="utf-8"))))
        for folder, base in (("stac-v1.1.0", _CORE), ("geojson", _GEOJSON))
        for path in sorted((_SCHEMAS / folder).glob("*.json"))
    ]
    registry: Any = Registry().with_resources(resources)
    schema = registry.contents(f"{_CORE}/item.json")
    Draft7Validator(schema, registry=registry).validate(json.loads(json.dumps(item, allow_nan=False)))


def check_properties(item: Mapping[str, Any]) -> None:
    """Raises jsonschema's ValidationError where the properties are none of a model by the classes of stac-model."""
    schema = json.loads((_SCHEMAS / "stac-model-0.7.0" / "MLModelProperties.json").read_text(encoding="utf-8"))
    named = [{"required": ["name"]}, {"required": ["description"]}]
    texts = {key: {"type": "string", "minLength": 1} for key in ("name", "description", "color_hint")}
    schema["$defs"]["MLMClassification"] = {  # see tests/schemas/README.md
        "type": "object", "properties": {"value": {"type": "integer"}, **texts}, "required": ["value"], "anyOf": named,
    }  # fmt: skip
    Draft202012Validator(schema).validate(json.loads(json.dumps(item["properties"], allow_nan=False)))


def check_model(item: Mapping[str, Any]) -> None:
    """Asserts the rules of the extension of models for items: what it requires, allows and forbids.

    Source: https://github.com/stac-extensions/mlm/tree/v1.5.0, README.md and the schema.
    """
    assert _MLM in item["stac_extensions"]
    properties, assets = item["properties"], item["assets"]
    ours = {key: value for key, value in properties.items() if key.startswith("mlm:")}
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= ours.keys()
    assert not {"mlm:artifact_type", "mlm:compile_method", "mlm:entrypoint"} & ours.keys()
    allowed = {
        "name", "architecture", "tasks", "framework", "framework_version", "memory_size", "total_parameters",
        "pretrained", "pretrained_source", "batch_size_suggestion", "accelerator", "accelerator_constrained",
        "accelerator_summary", "accelerator_count", "input", "output", "hyperparameters",
    }  # fmt: skip
    assert {key.removeprefix("mlm:") for key in ours} <= allowed
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", ours["mlm:name"])
    assert re.match(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", ours.get("mlm:framework_version", "0.0.0"))
    assert set(ours["mlm:tasks"]) == {task for output in ours["mlm:output"] for task in output["tasks"]}
    assert isinstance(ours["mlm:total_parameters"], int)
    assert ours.get("mlm:pretrained", True) or ours["mlm:pretrained_source"] is None
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in ours.get("mlm:hyperparameters", {"a": 1}))
    bands = {band["name"] for band in properties["bands"]}  # of STAC 1.1
    for part, structure in (("mlm:input", "input"), ("mlm:output", "result")):
        for each in ours[part]:
            found = each[structure]
            assert {"shape", "dim_order", "data_type"} <= found.keys()
            assert len(found["shape"]) == len(found["dim_order"]) == len(set(found["dim_order"]))
            assert all(isinstance(side, int) and side >= -1 for side in found["shape"])
            assert all(re.fullmatch(r"[a-z-_]+", name) for name in found["dim_order"])
            assert bool(each.get("bands")) == ("bands" in found["dim_order"])
            assert set(each.get("bands", ())) <= bands
            assert all({"value", "description"} <= own.keys() for own in each.get("classification:classes", ()))
            for scaling in each.get("value_scaling", ()):
                assert scaling["type"] == "z-score" and scaling["stddev"] > 0
    models = [asset for asset in assets.values() if "mlm:model" in asset.get("roles", ())]
    assert len(models) > 0 and all(asset["mlm:artifact_type"] for asset in models)
    assert not any("mlm:artifact_type" in asset for asset in assets.values() if asset not in models)
