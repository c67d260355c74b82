"""Calibration: temperatures that are found again, and a model that carries them to all who predict."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base.grades import KEYS
from components.evaluate import evaluate
from components.params import load_params
from model.calibration.temperature import calibrate
from model.inference import ModelError, Predictor, load_model
from model.networks.pair_network import DualLogits, PairNetwork, Temperatures
from model.train.training import train
from tests.conftest import ALONE, LOGITS, assert_close, write_params
from xbd.dataset import Sample
from xbd.scenes import read_index, write_index

BLOCK = 32  # pixels of one colour, so that few lie where logits are blended


class Told(PairNetwork):
    """Its logits stand in the images: 2 of the localization in pre's first channels, 3 of 4 grades in post's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        pre, post = pre[..., ::4, ::4] * self.weight, post[..., ::4, ::4]
        return DualLogits(pre[:, :2], torch.cat([post, torch.zeros_like(post[:, :1])], 1))


def scene(seed: int, localization: float, damage: float, *, buildings: bool = True) -> Sample:
    """Labels drawn from the probabilities that `Told` should state, were its logits divided by these temperatures."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (2, 1, 3, 8, 8), dtype=torch.uint8, generator=generator)
    pre, post = colours.repeat_interleave(BLOCK, -1).repeat_interleave(BLOCK, -2)
    logits = Predictor(Told()).logits(pre, post)
    places, grades = (
        (head.repeat_interleave(4, -1).repeat_interleave(4, -2)[0] / by).softmax(0).flatten(1).T
        for head, by in zip(logits, (localization, damage), strict=True)
    )
    building = torch.multinomial(places, 1, generator=generator)[:, 0]
    grade = torch.multinomial(grades, 1, generator=generator)[:, 0] + 1
    mask = (building * grade if buildings else building * 0).reshape(1, 8 * BLOCK, 8 * BLOCK).to(torch.uint8)
    mask[:, :8] = 255
    return Sample(pre, post, mask)


def test_the_temperatures_that_the_labels_were_drawn_with_are_found() -> None:
    seen: list[int] = []
    found = calibrate(Told(), [scene(seed, 2.0, 0.6) for seed in range(8)], lambda: seen.append(1))
    assert found.temperatures.localization == pytest.approx(2.0, rel=0.1)
    assert found.temperatures.damage == pytest.approx(0.6, rel=0.1)
    assert list(found.errors) == ["localization", "damage", *KEYS]
    for before, after in found.errors.values():
        assert after < 0.03 < before
    assert len(seen) == 8
    assert str(found).startswith("temperatures: localization ") and "minor damage 0." in str(found)


def test_without_a_building_the_temperature_of_damage_is_one() -> None:
    found = calibrate(Told(), [scene(1, 1.5, 1.5, buildings=False)], lambda: None)
    assert found.temperatures.damage == 1.0


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of a run that had validation scenes."""
    folder = tmp_path_factory.mktemp("trained")
    settings = load_params(write_params(folder / "params.yaml", {"train": {"epochs": 2, "validate_every": 0}})).train
    train(prepared, folder / "out", settings, ALONE)
    return folder / "out" / "model"


def test_a_trained_model_carries_its_temperatures_to_every_prediction(trained: Path) -> None:
    temperatures = json.loads((trained / "config.json").read_text(encoding="utf-8"))["temperatures"]
    model = load_model(trained)
    assert model.temperatures == Temperatures(**temperatures) and 1.0 not in temperatures.values()
    calibrated = Predictor(model)
    model.temperatures = None
    plain = Predictor(model)
    images = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(1))
    for found, before, by in zip(calibrated.logits(*images), plain.logits(*images), temperatures.values(), strict=True):
        assert_close(found * by, before, LOGITS)
    assert torch.equal(calibrated(*images).damage, plain(*images).damage)


def test_evaluate_tells_the_error_before_and_after(trained: Path, prepared: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml"))
    plain = tmp_path / "plain"
    plain.mkdir()
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    del config["temperatures"]
    (plain / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (plain / "model.safetensors").symlink_to(trained / "model.safetensors")
    calibrated = evaluate(prepared, str(trained), tmp_path / "calibrated", params)
    uncalibrated = evaluate(prepared, str(plain), tmp_path / "uncalibrated", params)
    assert calibrated["score"] == uncalibrated["score"]
    for part, error in calibrated["calibration"].items():
        other = uncalibrated["calibration"][part]
        assert other["before"] == other["after"] == pytest.approx(error["before"], abs=1e-3)
        assert error["before"] != error["after"]
    for part in ("localization", "damage"):
        assert calibrated[f"{part}_calibration_error"] == calibrated["calibration"][part]["after"]
    pages = [(tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("calibrated", "uncalibrated")]
    assert ['<table id="calibration">' in page for page in pages] == [True, False]
    assert ["Nobody calibrated this model" in page for page in pages] == [False, True]


def test_a_run_without_validation_scenes_says_that_it_is_not_calibrated(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    split = {"validation": "train"}
    records = [
        dataclasses.replace(record, split=split.get(record.split, record.split)) for record in read_index(prepared)
    ]
    write_index(data, records)
    changes = {"epochs": 1, "validate_every": 0}
    train(data, tmp_path / "out", load_params(write_params(tmp_path / "p.yaml", {"train": changes})).train, ALONE)
    assert "not calibrated: there are no validation scenes" in capsys.readouterr().out
    assert load_model(tmp_path / "out" / "model").temperatures is None


@pytest.mark.parametrize(
    ("part", "content", "finding"),
    [
        ("temperatures", {"localization": 0.0, "damage": 1.0}, "temperatures.localization: found 0.0"),
        ("temperatures", {"localization": 1.0}, "temperatures.damage: "),
        ("temperatures", {"localization": float("nan"), "damage": 1.0}, "temperatures.localization: found NaN"),
        ("temperatures", "warm", 'temperatures: found "warm"'),
        ("grade_offsets", dict.fromkeys(KEYS, 1.0) | {"destroyed": float("nan")}, "destroyed: found NaN"),
        ("grade_offsets", dict.fromkeys(KEYS, 1.0) | {"destroyed": 1e9}, "destroyed: found 1000000000.0"),
        ("grade_offsets", {"no_damage": 1.0}, "grade_offsets.minor_damage: "),
        ("grade_offsets", [0, 1, 2, 3], "grade_offsets: found [0, 1, 2, 3]"),
    ],
    ids=str,
)
def test_what_moves_logits_and_is_wrong_is_one_line(part: str, content: object, finding: str, model: Path) -> None:
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {part: content}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(model)
    assert finding in str(caught.value) and "\n" not in str(caught.value)
