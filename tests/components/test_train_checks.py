"""What train says of the scenes to validate on, before it opens a run in MLflow."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.prepare import prepare
from tests.commands import exit_line, step_here, succeed_here
from tests.tiny import prepare_params, write_params
from xbd.scenes import SPLITS, read_index, write_index

SHORT = {"train": {"epochs": 1, "crops_per_scene": 1, "validate_every": 1}}


@pytest.mark.usefixtures("mlflow_store")
def test_without_scenes_to_validate_on_no_run_is_opened(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "data", prepare_params().model_copy(update={"validation_share": 0.0}))
    params = write_params(tmp_path / "params.yaml", SHORT)
    line = exit_line(step_here("train"), "--params", params, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "no scene in validation" in line
    assert "set train.validate_every to 0" in line
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store")
def test_scenes_without_a_building_to_validate_on_are_warned_of(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    none: dict[str, Any] = {"no_damage": 0, "minor_damage": 0, "major_damage": 0, "destroyed": 0}
    records = read_index(data, SPLITS)
    write_index(data, [replace(record, **none) if record.split == "validation" else record for record in records])
    params = write_params(tmp_path / "params.yaml", SHORT)
    succeed_here("train", "--params", params, "--data", data, "--out", tmp_path / "out")
    assert "warning: no scene in validation has a graded building" in capfd.readouterr().err
