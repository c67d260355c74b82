from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from model.calibration.domain import (
    Distance,
    colours_of,
    distance_in_colours,
    distance_in_features,
    read_domain,
    summarize,
    to_tensors,
)
from model.dual_hrnet import DualHRNet
from model.inference import DOMAIN, ModelError, Predictor, save_model
from tests.tiny import SMALL
from tests.tiny_network import Tiny, TinySettings
from xbd.dataset import Scenes

GENERATOR = np.random.default_rng(0)
SCENES = GENERATOR.normal([3.0, -7.0, 0.5, 20.0], [1.0, 5.0, 0.1, 2.0], (40, 4)).astype(np.float32)


def test_the_domain_of_scenes_is_what_the_network_and_the_images_say(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).eval()
    scenes = Scenes(prepared, ["train"])
    told = []
    domain = summarize(model, DataLoader(scenes), [1.5] * 6, [3.0, np.nan] * 3, lambda: told.append(1))
    assert len(told) == len(domain.colours) == len(scenes)
    maps = Predictor(model).with_features(scenes[2].pre[None], scenes[2].post[None])[1]
    expected = torch.cat([part[0].double().flatten(1).mean(1) for part in maps])
    np.testing.assert_allclose(domain.features[2], expected.numpy(), rtol=1e-5, atol=1e-6)
    both = np.concatenate([scenes[2].pre.numpy(), scenes[2].post.numpy()]).reshape(6, -1)
    np.testing.assert_allclose(domain.colours[2], [*both.mean(1), *both.std(1)], rtol=1e-5)
    save_model(model, tmp_path / "model", domain=to_tensors(domain))
    back = read_domain(tmp_path / "model")
    assert back is not None
    for name, value in vars(domain).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    save_model(model, tmp_path / "model")
    assert read_domain(tmp_path / "model") is None


def test_a_network_without_features_has_a_domain_of_colours(prepared: Path) -> None:
    domain = summarize(Tiny(TinySettings()), DataLoader(Scenes(prepared, ["test"])), [], [], lambda: None)
    assert domain.features.shape == (3, 0) and domain.colours.shape == (3, 12)
    assert distance_in_features(domain.features, domain.features) is None


@pytest.mark.parametrize("distance", [distance_in_features, distance_in_colours])
def test_what_is_like_the_scenes_is_near_and_what_is_not_is_far(distance: Any) -> None:
    near = distance(SCENES[:30], SCENES[30:])
    assert not near.is_unlike
    away = SCENES[30:] + np.array([30.0, -100.0, -5.0, 0.0], np.float32)
    assert distance(SCENES[:30], away).distance > near.distance
    assert distance_in_colours(SCENES[:30], away).is_unlike  # type: ignore[union-attr]
    # The units of the numbers do not matter, but for rounding.
    scaled = distance(SCENES[:30] * 1000 + 5, SCENES[30:] * 1000 + 5)
    assert scaled == pytest.approx(near, rel=1e-3)


def test_usual_is_what_nearly_all_scenes_keep_to_among_one_another() -> None:
    found = distance_in_colours(SCENES, SCENES[:1])
    standard = (SCENES - SCENES.mean(0)) / SCENES.std(0)
    apart = np.sqrt(((standard[:, None] - standard) ** 2).mean(2)) + np.diag(np.full(40, np.inf))
    assert found == pytest.approx(Distance(0, float(np.quantile(apart.min(1), 0.95))), abs=1e-4)


def test_few_scenes_or_nothing_to_compare_give_no_distance() -> None:
    assert distance_in_colours(SCENES[:3], SCENES) is None
    assert distance_in_colours(SCENES, SCENES[:0]) is None
    assert distance_in_features(SCENES, np.zeros((2, 0), np.float32)) is None


def test_images_of_one_colour_have_no_deviation() -> None:
    found = colours_of(np.full((3, 4, 4), 7, np.uint8), np.full((3, 4, 4), 9, np.uint8))
    assert found.tolist() == [7, 7, 7, 9, 9, 9, 0, 0, 0, 0, 0, 0]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / DOMAIN).write_bytes(b"none")
    with pytest.raises(ModelError, match=r"domain\.safetensors: cannot be read"):
        read_domain(tmp_path)
    shapes = {"features": (2, 5), "colours": (2, 12), "gsd": (2,), "off_nadir": (3,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / DOMAIN)
    with pytest.raises(ModelError, match=r"found the shapes .*, expected features, colours, gsd and off_nadir"):
        read_domain(tmp_path)
