"""The networks by name: each offers what training and prediction ask, and a new one is a file and a line."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from components.params import ParamsError, load_params
from model.architecture import Architecture
from model.inference import ModelError, Predictor, load_model, normalize, save_model
from model.networks.by_name import NETWORKS, build
from model.networks.pair_network import NetworkError
from model.settings import network_settings
from model.train.run import identity_of
from model.train.training import train
from tests.conftest import ALONE, LOGITS, SMALL, assert_close, environment, read_csv, tree, write_params
from tests.tiny_network import Tiny, TinySettings


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line of the list."""
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)


def tiny_params(folder: Path, **train: Any) -> Path:
    """params.yaml whose training builds the tiny network."""
    path = write_params(folder / "params.yaml", {"train": train})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["train"]["network"] = {"name": "tiny", "channels": 6}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def images(height: int, width: int) -> Tensor:
    """A pair, [2, 1, 3, height, width] uint8."""
    return torch.randint(0, 256, (2, 1, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_of_a_network_is_where_its_training_fails(name: str) -> None:
    """One pair of that size leaves one value of a channel to batch norm; one twice as large is enough.

    A network without a bound trains on one pair of the smallest crop that there is.
    """
    model = build(NETWORKS[name].Settings())
    coarsest = getattr(model.architecture, "coarsest", None)
    if coarsest is None:
        model(*(normalize(image) for image in images(32, 32)))
        return
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(*(normalize(image) for image in images(coarsest, coarsest)))
    model(*(normalize(image) for image in images(2 * coarsest, 2 * coarsest)))


@pytest.mark.parametrize("name", [*NETWORKS, "tiny"])
def test_every_network_offers_what_training_and_prediction_ask(name: str, tiny: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = NETWORKS[name].Settings()
    assert settings.name == name
    fields = json.loads(json.dumps(dataclasses.asdict(settings))) | {"name": name}
    assert dataclasses.asdict(network_settings(fields)) == {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(settings).items()
    }
    model = build(settings)
    assert type(model) is NETWORKS[name]
    for part, classes in zip(model(*(normalize(image) for image in images(64, 96))), (2, 4), strict=True):
        assert part.shape == (1, classes, 16, 24)
    sum(part.sum() for part in model(*(normalize(image) for image in images(64, 64)))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []

    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert type(loaded) is NETWORKS[name] and not loaded.training
    pre, post = images(50, 61)
    found = Predictor(loaded).logits(pre, post)
    with torch.inference_mode():
        expected = model.eval()(normalize(pre), normalize(post))
    for part, of_the_model in zip(found, expected, strict=True):
        assert part.shape[-2:] == (13, 16)
        assert_close(part, of_the_model, LOGITS)
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 64\).*\(1, 3, 64, 32\)"):
        loaded(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 32))


def test_a_second_network_trains_is_saved_loaded_and_predicts(prepared: Path, tiny: None, tmp_path: Path) -> None:
    settings = load_params(tiny_params(tmp_path, epochs=2, validate_every=1)).train
    kept = train(prepared, tmp_path / "out", settings, ALONE)
    assert 0 <= kept["validation_score"] <= 1
    rows = read_csv(tmp_path / "out" / "history.csv")
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["model"], config["architecture"]["channels"]) == ("tiny", 6)
    model = load_model(tmp_path / "out" / "model")
    assert type(model) is Tiny and model.architecture == settings.network
    pre, post = images(64, 64)
    localization, damage = Predictor(model)(pre, post)
    assert localization.shape == damage.shape == (1, 64, 64)
    assert int(localization.max()) <= 1
    assert bool((damage[localization == 0] == 0).all()) and int(damage.max()) <= 4


def test_a_training_of_a_second_network_goes_on_where_it_stopped(
    prepared: Path, tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_params(tiny_params(tmp_path, epochs=2, validate_every=0)).train
    train(prepared, tmp_path / "whole", settings, ALONE)
    train(prepared, tmp_path / "parts", dataclasses.replace(settings, keep_checkpoints=3), ALONE)
    (last,) = (tmp_path / "parts" / "checkpoints").glob("*_00000006")
    for path in sorted(last.rglob("*")):
        path.unlink()
    last.rmdir()
    train(prepared, tmp_path / "parts", settings, ALONE)
    assert "resumed after epoch 1 of 2" in capsys.readouterr().out
    assert tree(tmp_path / "parts" / "model") == tree(tmp_path / "whole" / "model")


def test_params_name_the_network_and_keep_its_name(tiny: None, tmp_path: Path) -> None:
    params = load_params(tiny_params(tmp_path))
    assert params.train.network == TinySettings(channels=6)
    assert params.model_dump(mode="json", by_alias=True)["train"]["network"] == {"name": "tiny", "channels": 6}
    assert identity_of(params.train)["network"] == {"name": "tiny", "channels": 6}


def test_a_recipe_that_names_a_network_replaces_its_fields(tiny: None, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {network: {name: tiny}}", encoding="utf-8")
    assert load_params(write_params(tmp_path / "params.yaml"), recipe).train.network == TinySettings()


def test_without_a_name_it_is_dual_hrnet_with_the_identity_that_it_always_had(tmp_path: Path) -> None:
    plain = load_params(write_params(tmp_path / "plain.yaml")).train
    named = load_params(write_params(tmp_path / "named.yaml", {"train": {"network": {"name": "dual-hrnet"}}})).train
    assert type(plain.network) is Architecture
    assert named == plain
    # These eight, and no name: checkpoints and runs of before there was a second network are found by them.
    assert identity_of(named)["network"] == {
        **SMALL,
        "modules": [1, 1, 1],
        "stem_order": "imagenet",
        "batch_norm_momentum": 0.1,
    }


@pytest.mark.parametrize(
    ("network", "finding"),
    [
        ({"name": "resnet"}, "'resnet' is no network of this project, expected one of dual-hrnet, "),
        ({"name": 3}, "3 is no network of this project, expected one of dual-hrnet, "),
        ({"name": []}, "[] is no network of this project, expected one of dual-hrnet, "),
        ({"name": "tiny", "width": 8}, "train.network.width: is not a parameter. Remove it or correct its spelling"),
        ({"name": "tiny", "channels": 0}, "train.network.channels: found 0"),
        ("tiny", "train.network: found 'tiny'"),
        (None, "train.network: found None"),
    ],
    ids=str,
)
def test_a_network_that_does_not_exist_or_other_fields_are_one_line(
    network: Any, finding: str, tiny: None, tmp_path: Path
) -> None:
    path = write_params(tmp_path / "params.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["train"]["network"] = network
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert f"{path}: train.network" in str(caught.value)
    assert finding in str(caught.value)
    assert str(caught.value).endswith(".") and not str(caught.value).endswith("..")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet", 3, []], ids=str)
def test_a_model_of_an_unknown_network_is_one_line(name: Any, model: Path) -> None:
    config = model / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"model": name}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(model)
    known = ", ".join(sorted(NETWORKS))
    expected = f"{config}: model: {name!r} is no network of this project, expected one of {known}. Use"
    assert str(caught.value).startswith(expected)


def test_a_model_with_fields_of_another_network_is_one_line(model: Path, tiny: None) -> None:
    config = model / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"model": "tiny"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json: does not describe a network \(.*width") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "pretrained", "finding"),
    [
        ({"recompute": True}, None, "train.recompute: tiny cannot recompute. Set it to false."),
        ({}, Path("imagenet.pth"), "train.pretrained: imagenet.pth: tiny starts from no weights of others."),
    ],
    ids=["recompute", "pretrained"],
)
def test_a_feature_that_a_network_lacks_is_refused_by_its_parameter(
    changes: dict[str, Any], pretrained: Path | None, finding: str, prepared: Path, tiny: None, tmp_path: Path
) -> None:
    settings = load_params(tiny_params(tmp_path, **changes)).train
    with pytest.raises(NetworkError, match=finding.replace(".", r"\.")):
        train(prepared, tmp_path / "out", settings, ALONE, pretrained=pretrained)
    assert not (tmp_path / "out").exists()


def test_params_of_the_usual_network_are_read_without_torch(params_file: Path) -> None:
    code = (
        "import sys; from components.params import load_params; load_params(sys.argv[1]); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(params_file)]
    assert subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout == "False\n"
