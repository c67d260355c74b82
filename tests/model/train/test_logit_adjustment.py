"""A run whose losses see the grades by their shares of the training buildings."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from components.params import load_params
from model.train.training import train
from tests.comparing import read_csv
from tests.conftest import ALONE, write_params
from tests.tiny import FEW_LAYERS
from xbd.scenes import read_index, write_index


def test_rare_grades_move_the_damage_loss_alone(prepared: Path, tmp_path: Path) -> None:
    changes = {"network": FEW_LAYERS, "epochs": 1, "validate_every": 0, "learning_rate": 1e-12}
    settings = load_params(write_params(tmp_path / "params.yaml", {"train": changes})).train
    scenes = shutil.copytree(prepared, tmp_path / "prepared")  # which has as many buildings of each grade
    write_index(scenes, [dataclasses.replace(record, no_damage=90) for record in read_index(scenes)])
    for strength in (0.0, 1.0):
        train(scenes, tmp_path / str(strength), dataclasses.replace(settings, logit_adjustment=strength), ALONE)
    (plain,), (adjusted,) = (read_csv(tmp_path / strength / "history.csv") for strength in ("0.0", "1.0"))
    assert float(adjusted["loss_localization"]) == pytest.approx(float(plain["loss_localization"]), rel=1e-6)
    assert float(adjusted["loss_damage"]) != pytest.approx(float(plain["loss_damage"]), rel=1e-2)
