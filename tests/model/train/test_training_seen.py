"""What a run shows of itself: its record, a line a minute, a trace, and that it ends when it no longer improves."""

import dataclasses
import json
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.params import load_params
from model.inference import load_model
from model.settings import TrainSettings
from model.train import history, training
from model.train.training import train
from tests.comparing import read_csv
from tests.tiny import ALONE, few_layers
from xbd.dataset import Sample, SceneCrops


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    """Two steps an epoch, one epoch."""
    given = few_layers(load_params(params_file).train)
    return dataclasses.replace(given, epochs=1, validate_every=0, device_batch_size=2)


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Lets the validations give these scores, one after the other."""
    keys = ("localization_f1", "damage_f1")
    given = iter(scores)
    monkeypatch.setattr(training, "validate", lambda *_: {"score": next(given), **dict.fromkeys(keys, 0.5)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patience", "scores", "epochs", "best"),
    [
        (2, (0.5, 0.6, 0.55, 0.4), 4, 2),
        (1, (0.5, 0.6, 0.7, 0.6), 4, 3),
        (2, (0.5, 0.5, 0.5), 3, 3),  # one that only equals the best is no better; of equals the later is kept
        (0, (0.5, 0.4, 0.3, 0.2, 0.1), 5, 1),
        (3, (0.1, 0.4, 0.3, 0.2, 0.5), 5, 5),
    ],
    ids=str,
)
def test_training_ends_after_so_many_validations_without_a_better_score_and_keeps_the_best(
    patience: int,
    scores: tuple[float, ...],
    epochs: int,
    best: int,
    prepared: Path,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, *scores)
    changes: dict[str, Any] = {"epochs": 5, "validate_every": 1, "patience": patience, "crops_per_scene": 1}
    settings = dataclasses.replace(settings, **changes, keep_checkpoints=9)
    kept = train(prepared, tmp_path, settings, ALONE)
    assert (kept["epoch"], kept["validation_score"]) == (best, scores[best - 1])
    assert [float(row["validation_score"]) for row in read_csv(tmp_path / "history.csv")] == list(scores[:epochs])
    state = torch.load(tmp_path / "checkpoints" / f"step_{best:08}" / "state.pt", weights_only=True)["model"]
    model = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in state.items())


def test_a_stopped_run_that_is_started_again_stays_stopped(
    prepared: Path, settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, epochs=5, validate_every=1, patience=1, crops_per_scene=1)
    scripted(monkeypatch, 0.5, 0.4)
    first = train(prepared, tmp_path, settings, ALONE)
    assert train(prepared, tmp_path, settings, ALONE) == first  # there is no third score to be had


@pytest.mark.slow
def test_a_trace_of_a_few_steps_is_written_on_request(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings, profile=True, crops_per_scene=4, epochs=2)  # 6 steps an epoch
    train(prepared, tmp_path, settings, ALONE)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text(encoding="utf-8"))
    names = [event.get("name") for event in trace["traceEvents"]]
    steps = sorted({name for name in names if re.fullmatch(r"ProfilerStep#\d+", str(name))})
    assert steps == ["ProfilerStep#3", "ProfilerStep#4", "ProfilerStep#5"]  # the fourth to the sixth
    assert {"aten::convolution", "aten::native_batch_norm", "Optimizer.step#SGD.step"} <= set(names)


def test_without_a_request_there_is_no_trace(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    train(prepared, tmp_path, settings, ALONE)
    assert not (tmp_path / "profile").exists()


LINE = r"epoch 1/1  update (\d)/3  loss (\d\.\d{4})  (\d+\.\d\d) pairs/s"


def test_without_a_terminal_the_steps_so_far_are_a_line_each_minute(
    prepared: Path,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(history, "MINUTE", 0.0)
    kept = train(prepared, tmp_path, settings, ALONE)
    *lines, last, calibrated = capsys.readouterr().out.splitlines()
    assert calibrated.startswith("calibrated on ")
    found = [re.fullmatch(LINE, line) for line in lines]
    assert all(found), lines
    assert [match[1] for match in found if match] == ["1", "2", "3"]
    assert last.startswith("epoch 1/1  loss ")
    assert found[2] is not None
    assert float(found[2][2]) == pytest.approx(kept["loss"], abs=5e-5)  # the mean of the epoch so far
    assert float(found[2][3]) == pytest.approx(kept["pairs_per_second"], rel=0.01, abs=0.01)


@pytest.mark.parametrize(("minute", "terminal"), [(60.0, False), (0.0, True)], ids=["a short run", "a terminal"])
def test_there_is_no_such_line_within_a_minute_or_beside_a_bar(
    minute: float,
    terminal: bool,
    prepared: Path,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(history, "MINUTE", minute)
    monkeypatch.setattr(history.sys.stderr, "isatty", lambda: terminal)  # type: ignore[attr-defined]
    train(prepared, tmp_path, settings, ALONE)
    line, calibrated = capsys.readouterr().out.splitlines()
    assert calibrated.startswith("calibrated on ")
    assert line.startswith("epoch 1/1  loss ")


class SlowCrops(SceneCrops):
    """Crops that take longer to read than to train on."""

    def __getitem__(self, index: int) -> Sample:
        time.sleep(0.25)
        return super().__getitem__(index)


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, True])
def test_the_record_of_an_epoch(
    slow: bool, prepared: Path, settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slow:
        monkeypatch.setattr(training, "SceneCrops", SlowCrops)
    settings = dataclasses.replace(settings, damage_weight=0.5)
    start = time.perf_counter()
    kept = train(prepared, tmp_path, settings, ALONE)
    passed = time.perf_counter() - start
    (row,) = read_csv(tmp_path / "history.csv")
    record = {name: float(value) for name, value in row.items()}
    assert record == kept
    assert set(record) == {
        *("epoch", "loss", "loss_localization", "loss_damage", "gradient_norm", "learning_rate"),
        *("pairs_per_second", "data_wait_share", "checkpoint_pause", "peak_memory_gb"),
    }
    assert record["loss"] == pytest.approx(record["loss_localization"] + 0.5 * record["loss_damage"], rel=1e-6)
    assert record["learning_rate"] == pytest.approx(0.05 * (1 / 3) ** 0.9)  # of the last of 3 steps
    assert record["gradient_norm"] > 0
    # 3 steps of 4 pairs are a part of the whole time; reading them slowly takes 3 s of it.
    assert record["pairs_per_second"] > 12 / passed
    if slow:
        assert record["pairs_per_second"] < 4
        assert record["data_wait_share"] == pytest.approx(3 * record["pairs_per_second"] / 12, rel=0.1)
    assert 0 < record["data_wait_share"] < 1
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
    assert 0.1e9 < record["peak_memory_gb"] * 1e9 <= usage
