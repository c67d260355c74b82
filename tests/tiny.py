"""Tiny settings: a network, the parameters of every step, and a params.yaml of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from components.params import PrepareParams
from model.networks.siamese_unet import SiameseUNetSettings
from model.settings import TrainSettings
from model.train.distributed import World
from tests.paths import ROOT

ALONE = World(0, 1, 0, torch.device("cpu"))  # one process
# Everything that a test relies on, so that the recipe of params.yaml can change without them.
SMALL: dict[str, Any] = {
    "width": 4,
    "stem_width": 8,
    "stage1_width": 4,
    "stage1_blocks": 1,
    "modules": (1, 1, 1),
    "blocks": 1,
}
# Where a test is about the run and not about the network; of many processes each batch norm is some messages, too.
FEW_LAYERS: dict[str, Any] = {"name": "siamese-unet", "width": 8, "blocks": [1, 1, 1, 1], "decoder": 4}
TINY: dict[str, Any] = {
    "sample": {"train": 4, "test": 2, "size": 96},
    "prepare": {"validation_share": 0.25, "exclude": []},
    "train": {
        "network": {
            "width": 4,
            "stem_width": 8,
            "stage1_width": 4,
            "stage1_blocks": 1,
            "modules": [1, 1, 1],
            "blocks": 1,
            "batch_norm_momentum": 0.1,
        },
        "seed": 1,
        "epochs": 2,
        "global_batch_size": 4,
        "device_batch_size": 4,
        "crop_size": 64,
        "crops_per_scene": 2,
        "scale": [0.8, 1.2],
        "augmentation": None,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "poly_power": 0.9,
        "damage_weight": 1.0,
        "damage_cross_entropy": 0.0,
        "class_weights": None,
        "validate_every": 2,
        "workers": 0,
    },
    "evaluate": {"splits": ["test"], "unclassified_as": 1, "per_building": "off", "pictures": 2},
    "register": {"name": "tiny"},
    "promote": {"minimum_score": 0.0, "tolerance": 0.0},
    "tracking": {"experiment": "tiny"},
}


def few_layers(settings: TrainSettings) -> TrainSettings:
    """The same settings for a network of FEW_LAYERS."""
    return replace(settings, network=SiameseUNetSettings(**FEW_LAYERS))


def write_params(path: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """The repository's params.yaml with the tiny settings and then `overrides` laid over it."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for layer in (TINY, overrides or {}):
        _lay_over(content, layer)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def prepare_params(**overrides: Any) -> PrepareParams:
    """The section prepare, a quarter of the scenes held back, in one process."""
    usual: dict[str, Any] = {
        "validation_share": 0.25,
        "holdout_disasters": [],
        "exclude": [],
        "on_error": "fail",
        "workers": 1,
    }
    return PrepareParams(**usual | overrides)


def _lay_over(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        known = base.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(known, dict)
            and (key != "network" or _name_of(value) == _name_of(known))
        ):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _name_of(network: Mapping[str, Any]) -> object:
    """Each has settings of its own."""
    return network.get("name", "dual-hrnet")
