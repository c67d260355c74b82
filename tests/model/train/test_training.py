"""Training: the schedule, what a run writes, and that a killed run ends in the same weights."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.params import load_params
from model.calibration.domain import read_domain
from model.dual_hrnet import DualHRNet
from model.inference import load_model
from model.settings import AugmentationSettings, TrainSettings
from model.train.training import TrainingError, poly_learning_rate, train
from tests.commands import assert_one_line, environment, exit_line, run_step, step_here, succeed, succeed_here
from tests.comparing import read_csv
from tests.stores import ready_store
from tests.tiny import ALONE, few_layers, write_params
from xbd.augmentation.pipelines import Augmentation
from xbd.scenes import read_index


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    return few_layers(load_params(params_file).train)


@pytest.mark.parametrize(
    ("progress", "power", "expected"),
    [(0, 0.9, 0.05), (0.5, 0.9, 0.0267943366), (0.9, 0.9, 0.00629462706), (0.5, 1, 0.025), (0.7, 0, 0.05)],
)
def test_poly_learning_rate(settings: TrainSettings, progress: float, power: float, expected: float) -> None:
    settings = dataclasses.replace(settings, learning_rate=0.05, poly_power=power)
    assert poly_learning_rate(settings, progress) == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
def test_training_lowers_the_loss_and_writes_history_and_model(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, epochs=8, crops_per_scene=4, validate_every=4)
    records: list[dict[str, float]] = []
    checkpoints: list[Path] = []
    kept = train(prepared, tmp_path, settings, ALONE, on_epoch=records.append, on_checkpoint=checkpoints.append)
    assert [record["epoch"] for record in records] == list(range(1, 9))
    assert records[-1]["loss_localization"] < 0.85 * records[0]["loss_localization"]
    # After each epoch, and also before each validation, which replaces it by one with its score.
    assert [path.name for path in checkpoints] == [f"step_{6 * i:08}" for i in (1, 2, 3, 4, 4, 5, 6, 7, 8, 8)]
    validated = [record for record in records if "validation_score" in record]
    assert [record["epoch"] for record in validated] == [4, 8]
    assert kept["validation_score"] == max(record["validation_score"] for record in validated)
    rows = read_csv(tmp_path / "history.csv")
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in records]
    assert [row["validation_score"] == "" for row in rows] == [True, True, True, False] * 2
    # 6 scenes x 4 crops in batches of 4: 6 steps an epoch; the rate recorded is that of the last step.
    for record in records:
        progress = (record["epoch"] * 6 - 1) / 48
        assert record["learning_rate"] == pytest.approx(settings.learning_rate * (1 - progress) ** 0.9)
    assert load_model(tmp_path / "model").architecture == settings.network


@pytest.mark.slow
def test_without_validation_the_last_weights_are_kept(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings, epochs=2, crops_per_scene=1, validate_every=0)
    kept = train(prepared, tmp_path, settings, ALONE)
    assert kept["epoch"] == 2
    assert not any(key.startswith("validation") for key in kept)
    state = torch.load(tmp_path / "checkpoints" / "step_00000002" / "state.pt", weights_only=True)["model"]
    for name, tensor in load_model(tmp_path / "model").state_dict().items():
        assert torch.equal(tensor, state[name])
    known = read_domain(tmp_path / "model")
    assert known is not None
    metres = [record.gsd / 4 for record in read_index(prepared, ["train"])]  # gsd is that of xBD's colour bands
    np.testing.assert_allclose(known.gsd, metres, rtol=1e-6)
    assert (known.gsd < 1).all()


@pytest.mark.slow
def test_a_model_keeps_the_pipelines_that_its_samples_went_through(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    """In the library's own form, so that they are still known when a preset has become another."""
    augmentation = AugmentationSettings(geometry="paper", photometry="strong")
    settings = dataclasses.replace(settings, epochs=1, validate_every=0, augmentation=augmentation)
    train(prepared, tmp_path, settings, ALONE)
    kept = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["augmentation"]
    again = Augmentation(**kept, size=settings.crop_size).as_dict()
    assert json.loads(json.dumps(again)) == kept
    names = [transform["__class_fullname__"] for transform in kept["geometry"]["transform"]["transforms"]]
    assert names == ["xbd.augmentation.rotated_crop.RotatedCrop"]
    load_model(tmp_path / "model")


@pytest.mark.slow
def test_seed_and_number_of_workers_decide_and_do_not_decide_the_weights(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, epochs=1, crops_per_scene=1, validate_every=0)
    variants: dict[str, dict[str, Any]] = {"a": {}, "workers": {"workers": 2}, "seed": {"seed": 2}}
    weights = {}
    for name, change in variants.items():
        train(prepared, tmp_path / name, dataclasses.replace(settings, **change), ALONE)
        weights[name] = (tmp_path / name / "model" / "model.safetensors").read_bytes()
    assert weights["a"] == weights["workers"]
    assert weights["a"] != weights["seed"]


@pytest.fixture
def store_here(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow store for steps in this process; it keeps files in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("store_here")
def test_a_batch_larger_than_an_epoch_is_one_line_that_names_the_parameter(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = write_params(tmp_path / "params.yaml", {"train": {"global_batch_size": 13, "device_batch_size": 1}})
    line = exit_line(step_here("train"), "--params", params, "--data", prepared, "--out", tmp_path / "out")
    assert "train.global_batch_size: 13 is more than the 12 crops" in line
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.usefixtures("store_here")
def test_training_starts_from_the_pretrained_file_in_both_streams(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = load_params(write_params(tmp_path / "params.yaml", {})).train.network
    stream = DualHRNet(network).loc_net.state_dict()
    backbone = {
        re.sub(r"^transitions\.(\d)", lambda match: f"transition{int(match[1]) + 1}", name): tensor
        for name, tensor in stream.items()
        if not name.startswith("last_layer.")
    }
    torch.save({**backbone, "classifier.weight": torch.zeros(10, 8)}, tmp_path / "imagenet.pth")
    changes = {"pretrained": str(tmp_path / "imagenet.pth"), "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    params = write_params(tmp_path / "params.yaml", {"train": changes})
    said = succeed_here("train", "--params", params, "--data", prepared, "--out", tmp_path / "out")
    assert "1 of the file not used (classifier)" in said
    found = load_model(tmp_path / "out" / "model").state_dict()
    for side in ("loc_net", "cls_net"):
        for name in ("conv1.weight", "transitions.2.3.0.0.weight", "stage4.0.branches.3.0.conv2.weight"):
            torch.testing.assert_close(found[f"{side}.{name}"], stream[name])


@pytest.mark.usefixtures("store_here")
def test_batch_sizes_that_do_not_fit_are_one_line_with_those_that_do(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = write_params(tmp_path / "params.yaml", {"train": {"global_batch_size": 12, "device_batch_size": 5}})
    line = exit_line(step_here("train"), "--params", params, "--data", prepared, "--out", tmp_path / "out")
    assert "12 is not a multiple of train.device_batch_size 5 x 1 process." in line
    assert "Values of train.device_batch_size that fit 1 process: 1, 2, 3, 4, 6, 12." in line
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_missing_data_is_one_line(tmp_path: Path, params_file: Path) -> None:
    ready_store(tmp_path)
    result = run_step(
        "train", "--params", params_file, "--data", tmp_path / "no", "--out", tmp_path / "o", cwd=tmp_path
    )
    assert_one_line(result, str(tmp_path / "no" / "index.csv"))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_remedy(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, learning_rate=1e30, epochs=3, validate_every=0)
    with pytest.raises(
        TrainingError, match=r"the loss is not finite in a pass with tiny-flood_\d{8}.* Lower train\.learning_rate"
    ):
        train(prepared, tmp_path, settings, ALONE)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(prepared: Path, tmp_path: Path) -> None:
    # An epoch has to last longer than it takes to see its predecessor's line in the log.
    long = {"epochs": 4, "crops_per_scene": 8, "validate_every": 2}
    params = write_params(tmp_path / "params.yaml", {"train": long})
    arguments = ("--params", params, "--data", prepared, "--out")
    train(prepared, tmp_path / "whole", load_params(params).train, ALONE)

    work, out = folder(tmp_path / "killed"), tmp_path / "killed" / "out"
    ready_store(work)
    kill_in_epoch(3, ["train", *map(str, arguments), str(out)], work)
    assert len(read_csv(out / "history.csv")) == 2
    assert not (out / "model").exists()
    run_id = json.loads((out / "run.json").read_text(encoding="utf-8"))["run_id"]
    assert epochs_in_mlflow(work, run_id) == [1, 2]

    stdout = succeed("train", *arguments, out, cwd=work)
    # The checkpoint of the epoch's end may still have been on its way; that of its last step was there.
    assert re.search(r"resumed after (update \d+ of \d+ of )?epoch 2 of 4", stdout)
    for file in ("model/model.safetensors", "model/config.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    histories = [read_csv(folder / "history.csv") for folder in (out, tmp_path / "whole")]
    for rows in histories:
        for row in rows:
            for measured in ("pairs_per_second", "data_wait_share", "checkpoint_pause", "peak_memory_gb"):
                del row[measured]
    assert histories[0] == histories[1]
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["run_id"] == run_id
    assert epochs_in_mlflow(work, run_id) == [1, 2, 3, 4]
    assert run_status(work, run_id) == "FINISHED"


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def kill_in_epoch(epoch: int, arguments: list[str], cwd: Path) -> None:
    """Starts a step and kills it when the line of the epoch before `epoch` is in its log."""
    command = [sys.executable, "-m", f"components.{arguments[0]}", *arguments[1:]]
    path = cwd / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 240
            while f"epoch {epoch - 1}/" not in path.read_text():
                assert process.poll() is None, path.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.15)  # into the epoch
            run_id = json.loads((cwd / "out" / "run.json").read_text(encoding="utf-8"))["run_id"]
            while epochs_in_mlflow(cwd, run_id)[-1:] != [epoch - 1]:  # a thread sends it
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def epochs_in_mlflow(folder: Path, run_id: str) -> list[int]:
    """The distinct steps at which the run has its loss, read from the store without MLflow."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        rows = store.execute("select distinct step from metrics where run_uuid = ? and key = 'loss'", [run_id])
        return sorted(step for (step,) in rows)


def run_status(folder: Path, run_id: str) -> str:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return str(store.execute("select status from runs where run_uuid = ?", [run_id]).fetchone()[0])


def short(settings: TrainSettings) -> TrainSettings:
    return dataclasses.replace(settings, epochs=2, crops_per_scene=1, validate_every=0)


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(prepared, tmp_path, short(settings), ALONE)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    newest = tmp_path / "checkpoints" / "step_00000002"
    for file in ("state.pt", "checkpoint.json"):
        content = (newest / file).read_bytes()
        (newest / file).write_bytes(content[: len(content) // 2])
        capsys.readouterr()
        train(prepared, tmp_path, short(settings), ALONE)
        out, err = capsys.readouterr()
        assert err.startswith(f"{newest}: is not used: ")
        assert out.splitlines()[0] == f"resumed after epoch 1 of 2 from {newest.with_name('step_00000001')}"
        assert out.splitlines()[1].startswith("epoch 2/2 ")
        assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_a_finished_run_is_not_trained_again(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(prepared, tmp_path, short(settings), ALONE)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    capsys.readouterr()
    records: list[dict[str, float]] = []
    train(prepared, tmp_path, short(settings), ALONE, on_epoch=records.append)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"resumed after epoch 2 of 2 from {tmp_path / 'checkpoints' / 'step_00000002'}"
    assert [line.split(":")[0] for line in said[1:]] == ["calibrated on 2 validation scenes"]
    assert [record["epoch"] for record in records] == [1, 2]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.04}, {"seed": 9}, {"epochs": 1}, {"scale": (1.0, 1.0)}], ids=str
)
def test_changed_settings_start_anew_and_say_so(
    prepared: Path,
    settings: TrainSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    train(prepared, tmp_path / "a", short(settings), ALONE)
    changed = dataclasses.replace(short(settings), **change)
    capsys.readouterr()
    train(prepared, tmp_path / "a", changed, ALONE)
    said = capsys.readouterr().err
    assert f"it is of another run (train.{next(iter(change))} " in said
    assert "training starts anew" in said
    train(prepared, tmp_path / "b", changed, ALONE)
    for name in ("model/model.safetensors", "model/config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_changed_data_starts_anew(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    train(data, tmp_path / "out", short(settings), ALONE)
    lines = (data / "index.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "index.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    capsys.readouterr()
    train(data, tmp_path / "out", short(settings), ALONE)
    said = capsys.readouterr().err
    assert "it is of another run (prepared_version " in said
    assert "training starts anew" in said
