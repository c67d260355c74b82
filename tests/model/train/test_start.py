"""Training that goes on from a model: what it begins with, and what of it stays as it is, bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base.errors import Preempted
from components.params import ParamsError, load_params
from model.architecture import Architecture
from model.inference import Origin, load_model, read_origin, save_model
from model.networks.by_name import NETWORKS, build
from model.networks.pair_network import NetworkError
from model.settings import TrainSettings
from model.train.run import make_optimizer, origin_of
from model.train.start import FreezeError, make_network, read_start, set_training
from model.train.training import train
from tests.conftest import ALONE, SMALL, write_params
from xbd.scenes import read_index

NAME = "models:/tiny/7"
SHORT = {"epochs": 2, "crops_per_scene": 1, "validate_every": 0}


def settings_of(folder: Path, **changes: Any) -> TrainSettings:
    return load_params(write_params(folder / "params.yaml", {"train": SHORT | changes})).train


def train_from(model: Path, data: Path, out: Path, settings: TrainSettings) -> dict[str, Tensor]:
    """The weights and statistics after a training from the model directory."""
    train(data, out, settings, ALONE, start=read_start(model, NAME, settings))
    return load_model(out / "model").state_dict()


def is_in(name: str, *parts: str) -> bool:
    return name.startswith(parts)


# Written out from the names of the published checkpoint, by which the tensors are called.
HELD: dict[str, Any] = {
    "stem": ("loc_net.conv", "loc_net.bn", "loc_net.layer1", "cls_net.conv", "cls_net.bn", "cls_net.layer1"),
    "encoder": (
        "fuse_", "loc_net.conv", "loc_net.bn", "loc_net.layer1", "loc_net.trans", "loc_net.stage", "cls_net.conv",
        "cls_net.bn", "cls_net.layer1", "cls_net.trans", "cls_net.stage",
    ),
    "localization": ("loc_net.", "fuse_loc_"),
    "damage": ("cls_net.", "fuse_cls_"),
}  # fmt: skip


@pytest.mark.parametrize("part", HELD)
def test_a_part_holds_the_tensors_that_its_name_says(part: str) -> None:
    model = build(Architecture(**SMALL))
    own = {id(tensor) for module in model.part(part) for tensor in module.state_dict(keep_vars=True).values()}
    names = {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in own}
    assert names == {name for name in model.state_dict() if is_in(name, *HELD[part])}


def test_frozen_parts_and_batch_norms_stay_bit_for_bit_and_the_rest_learns(
    model: Path, prepared: Path, tmp_path: Path
) -> None:
    network = load_model(model)
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    before = network.state_dict()
    for name, changes, held in (
        ("parts", {"freeze": ["stem", "localization"]}, (*HELD["stem"], *HELD["localization"])),
        ("norms", {"freeze_batch_norm": True}, norms),
    ):
        settings = settings_of(tmp_path, **changes)
        after = train_from(model, prepared, tmp_path / name, settings)
        changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert changed == {name for name in before if not is_in(name, *held)}, name


def test_frozen_batch_norm_normalizes_by_the_statistics_that_it_has(model: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, freeze_batch_norm=True)
    network = load_model(model)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    images = torch.randn(2, 1, 3, 64, 64)
    expected = network.eval()(*images)
    set_training(network, settings)
    assert network.training
    for found, wanted in zip(network(*images), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    set_training(network, dataclasses.replace(settings, freeze_batch_norm=False))
    assert not torch.allclose(network(*images).damage, expected.damage, rtol=0.1)


def test_a_run_that_was_stopped_goes_on_to_the_weights_of_an_undisturbed_one(
    model: Path, prepared: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, freeze=["encoder"], freeze_batch_norm=True)
    whole = train_from(model, prepared, tmp_path / "whole", settings)
    start, asked = read_start(model, NAME, settings), iter([False, True])
    with pytest.raises(Preempted):
        train(prepared, tmp_path / "out", settings, ALONE, start=start, should_stop=lambda: next(asked))
    again = train_from(model, prepared, tmp_path / "out", settings)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.items())
    assert read_origin(tmp_path / "out" / "model").started_from == NAME


def test_a_model_says_what_it_started_from_and_what_both_were_trained_on(
    model: Path, prepared: Path, tmp_path: Path
) -> None:
    base = load_model(model)
    save_model(base, model, Origin("synthetic", ("sample-flood",), "0" * 64))
    found = origin_of(prepared, None, read_start(model, NAME, settings_of(tmp_path)))
    own = {record.disaster for record in read_index(prepared, ["train"])}
    assert (found.scenes, found.started_from) == ("synthetic and real", NAME)
    assert found.events == tuple(sorted(own | {"sample-flood"}))
    save_model(base, model)
    assert origin_of(prepared, None, read_start(model, NAME, settings_of(tmp_path))).scenes == "unknown"


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ({"width": 8, "blocks": 2}, ["width: 4", "blocks: 1"]),
        ({"stem_order": "published"}, ["stem_order: imagenet"]),
        ({"name": "siamese-unet", "width": 8}, ["name: dual-hrnet", "width: 4"]),
    ],
)
def test_another_network_than_the_models_is_one_line_with_what_to_set(
    network: dict[str, Any], named: list[str], model: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, network=network)
    with pytest.raises(NetworkError) as caught:
        read_start(model, NAME, settings)
    said = str(caught.value)
    assert said.startswith(f"train.network: is not that of train.start_from {NAME}, expected ") and "\n" not in said
    assert all(part in said for part in named)
    assert "modules" not in said or "name" in network


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        (
            {"freeze": ["head"]},
            "train.freeze: found ['head']: 'head' is no part of the network; expected some of stem",
        ),
        ({"network": {"name": "siamese-unet"}, "freeze": ["stem"]}, "some of encoder, decoder, localization, damage"),
        ({"freeze": "encoder"}, "train.freeze: found 'encoder'"),
        ({"pretrained": "w.pth", "start_from": "models:/a@b"}, "train.start_from: found 'models:/a@b': with train.pre"),
        ({"freeze_batch_norm": "statistics"}, "train.freeze_batch_norm: found 'statistics'"),
    ],
)
def test_parameters_that_do_not_go_together_are_one_line(changes: dict[str, Any], finding: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        settings_of(tmp_path, **changes)
    assert finding in str(caught.value) and "\n" not in str(caught.value)


def test_a_network_that_is_held_as_a_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FreezeError, match=r"train\.freeze: holds the whole network"):
        make_network(settings_of(tmp_path, freeze=["localization", "damage"]), None, None, says=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_part_that_a_network_names_has_weights_and_together_they_are_all(name: str) -> None:
    model = build(NETWORKS[name].Settings())
    parts = {
        part: {id(weight) for module in model.part(part) for weight in module.parameters()}
        for part in model.architecture.parts
    }
    assert all(parts.values())
    assert set().union(*parts.values()) == {id(weight) for weight in model.parameters()}


def test_the_optimizer_holds_what_is_trained_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, freeze=["damage"], freeze_batch_norm=True)
    model = make_network(settings, None, None, says=False)
    (group,) = make_optimizer(model, settings).param_groups
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    of_damage = {id(weight) for module in model.part("damage") for weight in module.parameters()}
    expected = {id(weight) for module in convolutions for weight in module.parameters()} - of_damage
    assert {id(weight) for weight in group["params"]} == expected
