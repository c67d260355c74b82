"""The model directory, and the way from image pairs to classes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from model.dual_hrnet import DualHRNet, DualLogits
from model.inference import (
    ModelError,
    Origin,
    Predictor,
    classify,
    estimate,
    load_model,
    normalize,
    read_origin,
    save_model,
)
from model.train.run import origin_of
from tests.comparing import assert_close, tree
from tests.tiny import SMALL
from xbd.names import SAMPLE
from xbd.sample.synthetic import EVENTS
from xbd.scenes import prepared_version, read_index, write_index


@pytest.fixture(scope="module")
def model() -> DualHRNet:
    """A random model that predicts buildings and background alike, so that its masks say something."""
    torch.manual_seed(3)
    model = DualHRNet(**SMALL).train()
    pre, post = image_pair(64, 64, 0)
    with torch.no_grad():
        for _ in range(20):
            model(normalize(pre), normalize(post))  # running statistics, or the logits would explode
    model.eval()
    with torch.no_grad():
        logits = model(normalize(pre), normalize(post))
        bias = model.loc_net.last_layer[3].get_parameter("bias")
        bias[1] += (logits.localization[:, 0] - logits.localization[:, 1]).median()
    return model


def image_pair(height: int, width: int, seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Two random uint8 images with structure at the scale of buildings."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (2, batch, 3, height // 8 + 1, width // 8 + 1), dtype=np.uint8)
    fine = coarse.repeat(8, axis=-2).repeat(8, axis=-1)[..., :height, :width]
    return torch.tensor(fine[0]), torch.tensor(fine[1])


def test_a_saved_model_comes_back_with_the_same_logits(model: DualHRNet, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert not loaded.training
    pre, post = (normalize(image) for image in image_pair(64, 96, 1))
    with torch.inference_mode():
        for saved, found in zip(model(pre, post), loaded(pre, post), strict=True):
            assert torch.equal(saved, found)


def test_the_model_directory_holds_configuration_and_weights_and_nothing_else(model: DualHRNet, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    assert set(tree(tmp_path)) == {"model/config.json", "model/model.safetensors"}
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"]["width"] == 4
    assert config["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


def test_saving_replaces_an_older_model(model: DualHRNet, tmp_path: Path) -> None:
    save_model(DualHRNet(**SMALL | {"width": 2}), tmp_path / "model")
    save_model(model, tmp_path / "model")
    assert load_model(tmp_path / "model").architecture.width == 4
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_same_model_is_written_to_the_same_bytes(model: DualHRNet, tmp_path: Path) -> None:
    save_model(model, tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def edit_architecture(path: Path, **fields: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["architecture"] |= fields
    path.write_text(json.dumps(config), encoding="utf-8")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda d: (d / "config.json").unlink(), "config.json"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors"),
    "configuration that is garbage": (lambda d: (d / "config.json").write_bytes(b"\x80{"), "config.json"),
    "configuration that breaks off": (lambda d: cut(d / "config.json", 0.5), "config.json"),
    "configuration without architecture": (lambda d: (d / "config.json").write_text("{}"), "config.json"),
    "configuration that is a list": (lambda d: (d / "config.json").write_text("[]"), "config.json"),
    "unknown field": (lambda d: edit_architecture(d / "config.json", colour="red"), "config.json"),
    "impossible width": (lambda d: edit_architecture(d / "config.json", width=0), "config.json"),
    "other architecture": (lambda d: edit_architecture(d / "config.json", width=6), "model.safetensors"),
    "more modules than weights": (
        lambda d: edit_architecture(d / "config.json", modules=[1, 2, 1]),
        "model.safetensors",
    ),
    "weights that break off": (lambda d: cut(d / "model.safetensors", 0.5), "model.safetensors"),
    "weights of no length": (lambda d: cut(d / "model.safetensors", 0), "model.safetensors"),
    "weights that are garbage": (lambda d: (d / "model.safetensors").write_bytes(b"x" * 999), "model.safetensors"),
}


@pytest.mark.parametrize(("fault", "named"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_model_is_an_error_that_names_the_file(
    model: DualHRNet, tmp_path: Path, fault: Callable[[Path], object], named: str
) -> None:
    save_model(model, tmp_path / "model")
    fault(tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "model")
    assert str(tmp_path / "model" / named) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("", "found no text"),
        ("hello", "is no JSON: Expecting value"),
        ("[" * 100_000, "is no JSON: "),
        ("null", "found null, expected an object with model and architecture"),
        ('{"architecture": {}}', "model is missing"),
        ('{"model": "dual-hrnet"}', "architecture is missing"),
        ('{"model": "dual-hrnet", "architecture": [1]}', "architecture: found [1], expected the network's settings"),
        ('{"model": "dual-hrnet", "architecture": {"width": "8"}}', 'architecture.width: found "8": input should be'),
        ('{"model": "dual-hrnet", "architecture": {"colour": 1}}', "architecture.colour: found 1: unexpected"),
        ('{"model": "dual-hrnet", "architecture": {"width": 1000000000}}', "architecture: the network is too large"),
    ],
    ids=lambda value: value[:60],
)
def test_a_configuration_says_what_is_wrong_with_it(content: str, finding: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: does not describe a network ({finding}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a model directory"):
        load_model(tmp_path)


def test_normalization_is_that_of_imagenet() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    found = normalize(image).double()
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (np.arange(256).reshape(16, 16) / 255 - mean) / std
        assert_close(
            found[0, channel], torch.from_numpy(expected), 2**-21
        )  # three roundings, of numbers half as large again


def enlarge(logits: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Bilinear, [C, h, w] to [C, *size]; pixel centres at (i + 0.5) x scale - 0.5, borders repeated."""
    for axis, length in ((1, size[0]), (2, size[1])):
        old = logits.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, None)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, old - 1)
        share = (position - lower).reshape((-1, 1) if axis == 1 else (1, -1))
        logits = logits.take(lower, axis) * (1 - share) + logits.take(upper, axis) * share
    return logits


def test_classes_are_the_largest_enlarged_logits_and_damage_stays_inside_buildings() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = DualLogits(torch.randn(2, 2, 6, 8, generator=generator), torch.randn(2, 4, 6, 8, generator=generator))
    localization, damage = classify(logits, (24, 32))
    assert localization.dtype == damage.dtype == torch.uint8
    for i in range(2):
        buildings = enlarge(logits.localization[i].double().numpy(), (24, 32))
        grades = enlarge(logits.damage[i].double().numpy(), (24, 32))
        expected = buildings.argmax(0)
        ordered = np.sort(grades, axis=0)
        clear = (np.abs(buildings[0] - buildings[1]) > 1e-5) & (ordered[-1] - ordered[-2] > 1e-5)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(localization[i].numpy()[clear], expected[clear])
        np.testing.assert_array_equal(damage[i].numpy()[clear], np.where(expected, grades.argmax(0) + 1, 0)[clear])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 70), (33, 31), (1, 95)])
def test_any_size_is_predicted_as_its_padded_images_cut_back(model: DualHRNet, height: int, width: int) -> None:
    pre, post = image_pair(height, width, 2)
    rows, columns = -(-height // 4), -(-width // 4)
    padded = []
    for image in (pre, post):
        canvas = torch.zeros(2, 3, -(-height // 32) * 32, -(-width // 32) * 32)
        canvas[..., :height, :width] = normalize(image)
        padded.append(canvas)
    with torch.inference_mode():
        logits = DualLogits(*(part[..., :rows, :columns] for part in model(*padded)))
    for found, expected in zip(Predictor(model)(pre, post), classify(logits, (4 * rows, 4 * columns)), strict=True):
        assert found.shape == (2, height, width)
        assert (found != expected[:, :height, :width]).float().mean() < 0.001  # rounding may decide a pixel


def test_damage_is_zero_exactly_outside_buildings(model: DualHRNet) -> None:
    localization, damage = Predictor(model)(*image_pair(96, 128, 4))
    assert 0.05 < localization.float().mean() < 0.95  # else the test would say nothing
    assert set(np.unique(localization)) == {0, 1}
    assert torch.equal(damage == 0, localization == 0)
    assert int(damage.max()) <= 4


def test_pairs_are_predicted_alone_as_in_a_batch(model: DualHRNet) -> None:
    pre, post = image_pair(64, 64, 6, batch=3)
    predictor = Predictor(model)
    whole = predictor(pre, post)
    for i in range(3):
        alone = predictor(pre[i : i + 1], post[i : i + 1])
        assert (alone.damage != whole.damage[i]).float().mean() < 0.001  # rounding may differ between batch sizes


def test_images_of_different_size_are_refused(model: DualHRNet) -> None:
    pre, post = image_pair(64, 64, 7)
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\).*\(2, 3, 64, 32\)"):
        Predictor(model)(pre, post[..., :32])


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_than_three_channels_are_refused(model: DualHRNet, channels: int) -> None:
    images = torch.zeros(2, 1, channels, 64, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match=rf"\(1, {channels}, 64, 64\).*\(1, {channels}, 64, 64\)"):
        Predictor(model)(*images)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (61, 87)])
def test_probabilities_come_with_the_same_classes_and_have_their_largest_there(
    model: DualHRNet, height: int, width: int
) -> None:
    pre, post = image_pair(height, width, 8)
    predictor = Predictor(model)
    classes = predictor(pre, post)
    again, (building, damage) = predictor.probabilities(pre, post)
    assert torch.equal(again.localization, classes.localization) and torch.equal(again.damage, classes.damage)
    assert (building.shape, damage.shape) == ((2, height, width), (2, 4, height, width))
    clear = (building - 0.5).abs() > 1e-6  # where rounding may not decide
    assert torch.equal((building > 0.5)[clear], (classes.localization == 1)[clear])
    first, second = damage.topk(2, dim=1).values.unbind(1)
    seen = (classes.localization == 1) & (first - second > 1e-6)
    assert float(clear.float().mean()) > 0.99 and bool(seen.any())
    assert torch.equal(damage.argmax(1)[seen] + 1, classes.damage[seen])
    torch.testing.assert_close(damage.sum(1), torch.ones(2, height, width))


def test_probabilities_are_the_softmax_of_the_logits_at_full_size() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = DualLogits(*(torch.randn(2, channels, 4, 5, generator=generator) for channels in (2, 4)))
    _, (building, damage) = estimate(logits, (16, 20))
    for part, found in zip(logits, (building[:, None], damage), strict=True):
        full = torch.nn.functional.interpolate(part, (16, 20), mode="bilinear").double().exp()
        expected = (full / full.sum(1, keepdim=True))[:, -found.shape[1] :]
        assert_close(found.double(), expected, 2**-20)


def test_a_model_says_what_it_was_trained_on(tmp_path: Path) -> None:
    model = DualHRNet(**SMALL)
    save_model(model, tmp_path / "unknown")
    assert read_origin(tmp_path / "unknown") == Origin()
    origin = Origin("real", ("palu-tsunami", "santa-rosa-wildfire"), "0" * 64, "1" * 32 + ".dir")
    save_model(model, tmp_path / "real", origin)
    assert read_origin(tmp_path / "real") == origin
    load_model(tmp_path / "real")


@pytest.mark.parametrize(
    ("trained_on", "finding"),
    [
        ("xBD", 'trained_on: found "xBD"'),
        ({"scenes": "drawn"}, 'trained_on.scenes: found "drawn"'),
        ({"events": [7]}, "trained_on.events.0: found 7"),
    ],
)
def test_a_wrong_origin_is_one_line(trained_on: Any, finding: str, tmp_path: Path) -> None:
    save_model(DualHRNet(**SMALL), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"trained_on": trained_on}))
    with pytest.raises(ModelError) as caught:
        read_origin(tmp_path / "model")
    assert str(caught.value).startswith(f"{path}: does not describe a network ({finding}")


@pytest.mark.parametrize(
    ("events", "scenes"),
    [(["sample-flooding", "sample-wildfire"], "synthetic"), (["palu-tsunami"], "real"),
     (["palu-tsunami", "sample-flooding"], "synthetic and real")],
)  # fmt: skip
def test_scenes_of_the_sample_are_synthetic(events: list[str], scenes: str, prepared: Path, tmp_path: Path) -> None:
    records = read_index(prepared, ["train", "test"])
    trained = [replace(record, disaster=events[i % len(events)], split="train") for i, record in enumerate(records[:4])]
    other = replace(records[4], disaster="mexico-earthquake", split="test")
    write_index(tmp_path, [*trained, other])
    found = origin_of(tmp_path, "1" * 32)
    assert found == Origin(scenes, tuple(sorted(events)), prepared_version(tmp_path), "1" * 32)  # type: ignore[arg-type]
    assert all(event.name.startswith(SAMPLE) for event in EVENTS)
