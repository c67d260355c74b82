"""A model that grades as if all grades were as frequent: the same weights, and logits moved by the labels' shares."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from base.grades import KEYS
from components.params import load_params
from model.calibration.__main__ import main
from model.calibration.offsets import count_grades, grade_offsets
from model.inference import CONFIG, FILES, Predictor, load_model
from model.train.start import make_network, read_start
from model.train.training import train
from tests.conftest import ALONE, write_params
from tests.tiny import FEW_LAYERS
from xbd.scenes import MASK, open_scene, read_index, write_index

CHANGES = {"network": FEW_LAYERS, "epochs": 1, "validate_every": 1}


@pytest.fixture(scope="module")
def models(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Trained alike, without and with an adjustment."""
    folder = tmp_path_factory.mktemp("offsets")
    settings = load_params(write_params(folder / "params.yaml", {"train": CHANGES})).train
    for name, strength in (("plain", 0.0), ("moved", 0.5)):
        train(prepared, folder / name, dataclasses.replace(settings, logit_adjustment=strength), ALONE)
    return folder / "plain", folder / "moved"


def test_a_grade_gets_the_logarithm_of_its_share_and_one_without_pixels_nothing() -> None:
    found = grade_offsets(torch.tensor([70, 20, 10, 0]), 0.5)
    expected = [-0.5 * math.log(0.7), -0.5 * math.log(0.2), -0.5 * math.log(0.1), 0]
    np.testing.assert_allclose([getattr(found, key) for key in KEYS], expected, rtol=1e-12)
    assert str(found) == "no damage 0.178, minor damage 0.805, major damage 1.15, destroyed 0"


@pytest.mark.parametrize(("pixels", "strength"), [([0, 0, 0, 0], 1), ([0, 9, 0, 0], 1), ([70, 20, 10, 0], 0)])
def test_where_nothing_is_to_be_raised_there_are_no_offsets(pixels: list[int], strength: float) -> None:
    assert grade_offsets(torch.tensor(pixels), strength) is None


def test_the_grades_are_counted_over_all_pixels_of_all_masks(prepared: Path) -> None:
    records = read_index(prepared, ["train"])
    masks = [np.array(open_scene(prepared, record))[..., MASK] for record in records]
    expected = [sum(int((mask == grade).sum()) for mask in masks) for grade in range(1, 5)]
    assert min(expected) > 0
    assert count_grades(prepared, records).tolist() == expected
    shares = (count_grades(prepared, records[rank::2]) for rank in range(2))
    assert sum(shares).tolist() == expected  # type: ignore[union-attr]


def test_training_is_the_same_and_every_prediction_is_moved(prepared: Path, models: tuple[Path, Path]) -> None:
    plain, moved = (load_model(folder / "model") for folder in models)
    assert plain.grade_offsets is None
    assert moved.grade_offsets == grade_offsets(count_grades(prepared, read_index(prepared, ["train"])), 0.5)
    weights = moved.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.state_dict().items())
    plain.temperatures = moved.temperatures = None
    images = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(1))
    before, after = (Predictor(model).logits(*images) for model in (plain, moved))
    assert torch.equal(before.localization, after.localization)
    expected = torch.tensor([getattr(moved.grade_offsets, key) for key in KEYS]).view(1, 4, 1, 1)
    torch.testing.assert_close(after.damage, before.damage + expected)


def test_offsets_come_before_the_temperatures(models: tuple[Path, Path]) -> None:
    model = load_model(models[1] / "model")
    assert model.temperatures is not None
    images = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(1))
    divided, by = Predictor(model).logits(*images).damage, model.temperatures.damage
    model.temperatures = None
    torch.testing.assert_close(divided * by, Predictor(model).logits(*images).damage)


def test_a_finished_model_is_moved_as_its_training_would_have(
    prepared: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    plain, moved = (folder / "model" for folder in models)
    for start, strength, wanted in ((plain, "0.5", moved), (moved, "0", plain)):
        out = tmp_path / strength
        given = ["--model", str(start), "--data", str(prepared), "--logit-adjustment", strength, "--out", str(out)]
        main(given)
        for name in FILES:
            if name != CONFIG:
                assert (out / name).read_bytes() == (wanted / name).read_bytes()
        found, expected = (json.loads((folder / CONFIG).read_text(encoding="utf-8")) for folder in (out, wanted))
        assert found == expected


def test_shares_of_other_data_than_the_models_are_refused(
    prepared: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    write_index(data, [dataclasses.replace(record, no_damage=90) for record in read_index(data)])
    given = ["--model", str(models[0] / "model"), "--data", str(data), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"^[^\n]*Give the data set of its training\.$"):
        main([*given, "--logit-adjustment", "1"])
    for strength in ("-1", "nan", "11", "much"):
        with pytest.raises(SystemExit):
            main([*given, "--logit-adjustment", strength])
        assert f"found {strength}, expected a number from 0 to 10" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_training_that_goes_on_from_such_a_model_starts_without(models: tuple[Path, Path]) -> None:
    params = models[1].parent / "params.yaml"
    settings = load_params(params).train
    start = read_start(models[1] / "model", "moved", settings)
    assert start.network.grade_offsets is not None
    assert make_network(settings, None, start, says=False).grade_offsets is None
