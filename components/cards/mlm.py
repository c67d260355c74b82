"""A model as a STAC item with the fields of the Machine Learning Model extension, by which catalogues find models.

Source: https://github.com/stac-extensions/mlm/tree/v1.5.0
"""

import re
from collections.abc import Mapping
from typing import Any

from base import stac
from base.grades import GRADES
from base.times import rfc3339
from components.cards.card import CARD
from components.cards.facts import Facts
from xbd.licence import licence_of

MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
OURS = "dual-hrnet:"  # how properties begin that no extension has
BANDS = ("red", "green", "blue")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+].*)?")
_KEY = re.compile(r"[0-9a-zA-Z_.-]+")
_TASK = "semantic-segmentation"


def describe_model(facts: Facts) -> dict[str, Any]:
    """The item of a model, fit for JSON, with links relative to the model's directory. It lies nowhere on the earth;
    its time is that of its registration.
    """
    licence, time = licence_of(facts.origin.events).spdx, rfc3339(facts.registered)
    bands = [{"name": band} for band in BANDS]
    properties = {
        "title": facts.name,
        "description": f"Building damage from two satellite images: {facts.origin}. See {CARD}.",
        "datetime": time,
        "created": time,
        **({} if licence is None else {"license": licence}),
        "bands": bands,  # which the extension looks for here, and STAC only where an asset has some, too
        "mlm:name": mlm_name(facts.name),
        "mlm:architecture": facts.network,
        "mlm:tasks": [_TASK],
        "mlm:framework": "PyTorch",
        **_framework_version(facts.versions),
        "mlm:total_parameters": facts.parameters,
        **_pretrained(facts),
        "mlm:accelerator": None,  # "could make use of some", and needs none
        "mlm:input": [_input(moment, when) for moment, when in (("pre", "before"), ("post", "after"))],
        "mlm:output": _outputs(),
        **_hyperparameters(facts.params),
        **_scores(facts.metrics),
        f"{OURS}events": list(facts.origin.events),
        f"{OURS}trained_on": facts.origin.scenes,
        f"{OURS}run": facts.run,
        f"{OURS}weights_sha256": facts.weights[0],
        **{f"{OURS}{name}": span for name, span in (("gsd", facts.gsd), ("off_nadir", facts.off_nadir)) if span},
    }
    assets: dict[str, dict[str, Any]] = {
        "model": {
            "href": "./model.safetensors", "type": "application/octet-stream; framework=pytorch",
            "title": "weights, as safetensors", "roles": ["mlm:model", "mlm:weights", "data"],
            "mlm:artifact_type": "safetensors.torch.save_file", "bands": bands,
        },
        "config": {"href": "./config.json", "type": stac.JSON, "title": "architecture", "roles": ["metadata"]},
        "card": {"href": f"./{CARD}", "type": "text/markdown", "title": "model card", "roles": ["metadata"]},
    }  # fmt: skip
    identity = f"{mlm_name(facts.name)}-{facts.content[:16]}"
    return stac.item(identity, None, None, properties, assets, [], [MLM])


def mlm_name(name: str) -> str:
    """The name of a model as the extension allows it: what it does not know becomes a hyphen."""
    plain = re.sub(r"[^a-zA-Z0-9_.\-]", "-", name).strip("-_.")
    return plain if _NAME.fullmatch(plain) else f"model-{plain or 'unnamed'}"


def _framework_version(versions: Mapping[str, str]) -> dict[str, str]:
    found = versions.get("torch", "")
    return {"mlm:framework_version": found} if _VERSION.fullmatch(found) else {}


def _pretrained(facts: Facts) -> dict[str, Any]:
    """From which weights its training began; nothing where nobody recorded it."""
    source = facts.origin.started_from or facts.params.get("train.pretrained")
    if source is None:
        return {}
    return {"mlm:pretrained": source != "None", "mlm:pretrained_source": None if source == "None" else source}


def _input(name: str, when: str) -> dict[str, Any]:
    from model.inference import MEAN, STD

    return {
        "name": name,
        "description": f"the image {when} the disaster, 8 bits, of the same place and size as the other one",
        "bands": list(BANDS),
        "input": {"shape": [-1, 3, -1, -1], "dim_order": ["batch", "bands", "height", "width"], "data_type": "uint8"},
        "value_scaling": [
            {"type": "z-score", "mean": round(255 * mean, 4), "stddev": round(255 * deviation, 4)}
            for mean, deviation in zip(MEAN, STD, strict=True)
        ],
        "resize_type": None,
    }


def _outputs() -> list[dict[str, Any]]:
    """The logits, a quarter as fine as the images."""
    classes = {
        "localization": [(0, "background"), (1, "building")],
        "damage": [(grade.number - 1, grade.label) for grade in GRADES],
    }
    said = {
        "localization": "logits at a quarter of the images' resolution; the larger one is the class",
        "damage": "logits at a quarter of the images' resolution; the largest one is the grade of a building's pixel",
    }
    return [
        {
            "name": name,
            "description": said[name],
            "tasks": [_TASK],
            "result": {
                "shape": [-1, len(own), -1, -1],
                "dim_order": ["batch", "class", "height", "width"],
                "data_type": "float32",
            },
            "classification:classes": [
                {"value": value, "name": _slug(label), "description": label} for value, label in own
            ],
        }
        for name, own in classes.items()
    ]


def _slug(label: str) -> str:
    return label.replace(" ", "-")


def _hyperparameters(params: Mapping[str, str]) -> dict[str, Any]:
    known = {key: value for key, value in sorted(params.items()) if key.startswith("train.") and _KEY.fullmatch(key)}
    return {"mlm:hyperparameters": known} if known else {}


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of metrics.json over all, and the score of each event."""
    own = {f"{OURS}{key}": value for key, value in metrics.items() if isinstance(value, float)}
    events = {name: of["score_present"] for name, of in metrics.get("per_disaster", {}).items()}
    return {**own, f"{OURS}score_by_event": events, f"{OURS}scored_on": metrics["prepared_version"]}
