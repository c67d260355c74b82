"""Training: the loss, the schedule, what a run writes, and that a killed run ends in the same weights."""

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

import pytest
import torch
from conftest import assert_one_line, environment, read_csv, run_step, succeed, write_params
from torch import Tensor

from components.params import load_params
from model.dual_hrnet import DualHRNet, DualLogits
from model.inference import load_model
from model.lovasz import lovasz_softmax
from model.settings import TrainSettings
from model.training import TrainingError, dual_loss, poly_learning_rate, train


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    return load_params(params_file).train


def random_logits() -> DualLogits:
    generator = torch.Generator().manual_seed(1)
    return DualLogits(
        torch.randn(1, 2, 16, 16, generator=generator, requires_grad=True),
        torch.randn(1, 4, 16, 16, generator=generator, requires_grad=True),
    )


def quartered_mask() -> Tensor:
    """64 x 64: background, buildings of grades 1-4, un-classified; each quarter far larger than a logit's reach."""
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, :32, 32:48], mask[:, :32, 48:] = 1, 2
    mask[:, 32:, :16], mask[:, 32:, 16:32] = 3, 4
    mask[:, 32:, 32:] = 255
    return mask


def inner(gradient: Tensor | None, top: int, left: int) -> Tensor:
    """Gradient of the logits whose pixels all lie inside the quarter at (top, left), in logits."""
    assert gradient is not None
    return gradient[:, :, top + 1 : top + 7, left + 1 : left + 7]


@pytest.mark.parametrize("cross_entropy", [0.0, 0.3])
def test_un_classified_pixels_teach_neither_head_and_background_teaches_no_damage(
    settings: TrainSettings, cross_entropy: float
) -> None:
    logits, settings = random_logits(), dataclasses.replace(settings, damage_cross_entropy=cross_entropy)
    dual_loss(logits, quartered_mask(), settings).total.backward()  # type: ignore[no-untyped-call]
    for head in logits:
        assert not inner(head.grad, 8, 8).any()  # un-classified
        assert inner(head.grad, 0, 8).any()  # grades 1 and 2
        assert inner(head.grad, 8, 0).any()  # grades 3 and 4
    assert inner(logits.localization.grad, 0, 0).any()  # background
    assert not inner(logits.damage.grad, 0, 0).any()


@pytest.mark.parametrize("cross_entropy", [0.0, 0.3])
def test_changed_logits_on_ignored_pixels_change_no_loss(settings: TrainSettings, cross_entropy: float) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, damage_cross_entropy=cross_entropy)
    before = dual_loss(logits, mask, settings)
    with torch.no_grad():
        logits.localization[:, 0, 9:15, 9:15] += 50
        logits.damage[:, 2, 9:15, 9:15] += 50
        logits.damage[:, 3, 1:7, 1:7] += 50
    after = dual_loss(logits, mask, settings)
    assert torch.equal(before.localization, after.localization)
    assert torch.equal(before.damage, after.damage)


def test_loss_is_localization_plus_weighted_damage_at_full_resolution(settings: TrainSettings) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, damage_weight=0.25, class_weights=(0.4, 1.2, 1.2, 1.2))
    losses = dual_loss(logits, mask, settings)
    probs = [
        torch.nn.functional.interpolate(head.softmax(1), scale_factor=4, mode="bilinear", align_corners=False)
        for head in logits
    ]
    target = mask.long()
    building = torch.where(target == 255, 255, (target > 0).long())
    grade = torch.where((target == 0) | (target == 255), 255, target - 1)
    localization = lovasz_softmax(probs[0], building)
    damage = lovasz_softmax(probs[1], grade, class_weights=[0.4, 1.2, 1.2, 1.2])
    torch.testing.assert_close(losses.localization, localization)
    torch.testing.assert_close(losses.damage, damage)
    torch.testing.assert_close(losses.total, localization + 0.25 * damage)


@pytest.mark.parametrize("weights", [None, (0.4, 1.2, 2.0, 0.5)])
def test_cross_entropy_is_a_weighted_mean_over_graded_pixels(
    settings: TrainSettings, weights: tuple[float, ...] | None
) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, class_weights=weights)
    without = dual_loss(logits, mask, settings).damage
    with_it = dual_loss(logits, mask, dataclasses.replace(settings, damage_cross_entropy=0.3)).damage
    probs = torch.nn.functional.interpolate(logits.damage.softmax(1), scale_factor=4, mode="bilinear")[0].double()
    total = norm = 0.0
    for grade in range(1, 5):
        weight = 1.0 if weights is None else weights[grade - 1]
        chosen = probs[grade - 1][mask[0] == grade]
        total += weight * float(-chosen.detach().log().sum())
        norm += weight * len(chosen)
    assert (with_it - without).item() == pytest.approx(0.3 * total / norm, rel=1e-4)


def test_cross_entropy_without_a_graded_pixel_is_zero_and_not_nan(settings: TrainSettings) -> None:
    settings = dataclasses.replace(settings, damage_cross_entropy=0.3)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, 32:] = 255
    assert dual_loss(random_logits(), mask, settings).damage.item() == 0


def test_confident_right_logits_cost_next_to_nothing(settings: TrainSettings) -> None:
    mask = quartered_mask()[:, ::4, ::4].long()
    one_hot = torch.nn.functional.one_hot
    building = one_hot((mask > 0).long(), 2).permute(0, 3, 1, 2) * 100.0
    damage = one_hot((mask.clamp(1, 4) - 1), 4).permute(0, 3, 1, 2) * 100.0
    right = dual_loss(DualLogits(building, damage), quartered_mask(), settings)
    wrong = dual_loss(DualLogits(-building, damage.roll(1, 1)), quartered_mask(), settings)
    assert right.total.item() < 0.35  # borders between logits are blurred
    assert wrong.total.item() > 1.8


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
    kept = train(prepared, tmp_path, settings, on_epoch=records.append, on_checkpoint=checkpoints.append)
    assert [record["epoch"] for record in records] == list(range(1, 9))
    assert records[-1]["loss_localization"] < 0.85 * records[0]["loss_localization"]
    assert checkpoints == [tmp_path / "checkpoints" / "last.pt"] * 8
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
    kept = train(prepared, tmp_path, settings)
    assert kept["epoch"] == 2
    assert not any(key.startswith("validation") for key in kept)
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["model"]
    for name, tensor in load_model(tmp_path / "model").state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.slow
def test_seed_and_number_of_workers_decide_and_do_not_decide_the_weights(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, epochs=1, crops_per_scene=1, validate_every=0)
    variants: dict[str, dict[str, Any]] = {"a": {}, "workers": {"workers": 2}, "seed": {"seed": 2}}
    weights = {}
    for name, change in variants.items():
        train(prepared, tmp_path / name, dataclasses.replace(settings, **change))
        weights[name] = (tmp_path / name / "model" / "model.safetensors").read_bytes()
    assert weights["a"] == weights["workers"]
    assert weights["a"] != weights["seed"]


@pytest.mark.slow
def test_a_batch_larger_than_an_epoch_is_one_line_that_names_the_parameter(prepared: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"train": {"global_batch_size": 13, "device_batch_size": 1}})
    result = run_step("train", "--params", params, "--data", prepared, "--out", tmp_path / "out", cwd=tmp_path)
    assert_one_line(result, "train.global_batch_size: 13 is more than the 12 crops")
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.slow
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
    said = succeed("train", "--params", params, "--data", prepared, "--out", tmp_path / "out", cwd=tmp_path)
    assert "1 of the file not used (classifier)" in said
    found = load_model(tmp_path / "out" / "model").state_dict()
    for side in ("loc_net", "cls_net"):
        for name in ("conv1.weight", "transitions.2.3.0.0.weight", "stage4.0.branches.3.0.conv2.weight"):
            torch.testing.assert_close(found[f"{side}.{name}"], stream[name])


@pytest.mark.slow
def test_batch_sizes_that_do_not_fit_are_one_line_with_those_that_do(prepared: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"train": {"global_batch_size": 12, "device_batch_size": 5}})
    result = run_step("train", "--params", params, "--data", prepared, "--out", tmp_path / "out", cwd=tmp_path)
    assert_one_line(result, "train.device_batch_size: 5 does not divide", "12. Values that do: 1, 2, 3, 4, 6, 12.")


@pytest.mark.slow
def test_missing_data_is_one_line(tmp_path: Path, params_file: Path) -> None:
    result = run_step(
        "train", "--params", params_file, "--data", tmp_path / "no", "--out", tmp_path / "o", cwd=tmp_path
    )
    assert_one_line(result, str(tmp_path / "no" / "index.csv"))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_remedy(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, learning_rate=1e30, epochs=3, validate_every=0)
    with pytest.raises(TrainingError, match=r"the loss is nan\. Lower train\.learning_rate"):
        train(prepared, tmp_path, settings)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(prepared: Path, tmp_path: Path) -> None:
    # An epoch has to last longer than it takes to see its predecessor's line in the log.
    long = {"epochs": 4, "crops_per_scene": 16, "validate_every": 2}
    params = write_params(tmp_path / "params.yaml", {"train": long})
    arguments = ("--params", params, "--data", prepared, "--out")
    succeed("train", *arguments, tmp_path / "whole" / "out", cwd=folder(tmp_path / "whole"))

    work, out = folder(tmp_path / "killed"), tmp_path / "killed" / "out"
    kill_in_epoch(3, ["train", *map(str, arguments), str(out)], work)
    assert len(read_csv(out / "history.csv")) == 2
    assert not (out / "model").exists()
    run_id = json.loads((out / "run.json").read_text(encoding="utf-8"))["run_id"]
    assert epochs_in_mlflow(work, run_id) == [1, 2]

    stdout = succeed("train", *arguments, out, cwd=work)
    assert "resumed after epoch 2 of 4" in stdout
    for file in ("model/model.safetensors", "model/config.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / "out" / file).read_bytes(), file
    histories = [read_csv(folder / "history.csv") for folder in (out, tmp_path / "whole" / "out")]
    for rows in histories:
        for row in rows:
            del row["pairs_per_second"]
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


def test_a_torn_checkpoint_starts_anew_and_says_so(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(prepared, tmp_path, short(settings))
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    path = tmp_path / "checkpoints" / "last.pt"
    for size in (path.stat().st_size // 2, 10, 0):
        path.write_bytes(path.read_bytes()[:size])
        capsys.readouterr()
        train(prepared, tmp_path, short(settings))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{path}: cannot be used (")
        assert lines[0].endswith("training starts anew.")
        assert lines[1].startswith("epoch 1/2 ")
        assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_a_finished_run_is_not_trained_again(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(prepared, tmp_path, short(settings))
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    capsys.readouterr()
    records: list[dict[str, float]] = []
    train(prepared, tmp_path, short(settings), on_epoch=records.append)
    assert capsys.readouterr().out.splitlines() == [
        f"resumed after epoch 2 of 2 from {tmp_path / 'checkpoints' / 'last.pt'}"
    ]
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
    train(prepared, tmp_path / "a", short(settings))
    changed = dataclasses.replace(short(settings), **change)
    capsys.readouterr()
    train(prepared, tmp_path / "a", changed)
    assert "belongs to a run with other parameters or data; training starts anew." in capsys.readouterr().out
    train(prepared, tmp_path / "b", changed)
    for name in ("model/model.safetensors", "model/config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_changed_data_starts_anew(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    train(data, tmp_path / "out", short(settings))
    lines = (data / "index.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "index.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    capsys.readouterr()
    train(data, tmp_path / "out", short(settings))
    assert "training starts anew" in capsys.readouterr().out
