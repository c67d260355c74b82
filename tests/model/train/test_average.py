"""The moving average of the weights: its values, and that a run judges, keeps and resumes it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from components.params import load_params
from model.inference import load_model
from model.settings import TrainSettings
from model.train.average import Average
from model.train.training import train
from tests.conftest import ALONE, tree, write_params
from tests.tiny import FEW_LAYERS


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    changes = {"network": FEW_LAYERS, "epochs": 2, "validate_every": 1, "average_decay": 0.7, "keep_checkpoints": 4}
    return load_params(write_params(tmp_path / "params.yaml", {"train": changes})).train


def test_it_forgets_by_its_decay_and_faster_at_the_start() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    tensors = model.state_dict()
    weight, counter = tensors["0.weight"], tensors["1.num_batches_tracked"]
    with torch.no_grad():
        weight.fill_(5.0)
        average, expected = Average(model, 0.3), 5.0
        for step in range(6):
            weight.fill_(float(step))
            counter.fill_(step)
            average.update(model)
            decay = min(0.3, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * step
    assert average.tensors["0.weight"].item() == pytest.approx(expected, rel=1e-6)
    assert average.tensors["1.num_batches_tracked"].item() == 5


def test_a_run_keeps_the_average_and_changes_nothing_else(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    plain = dataclasses.replace(settings, average_decay=0.0, validate_every=0)
    train(prepared, tmp_path / "plain", plain, ALONE)
    train(prepared, tmp_path / "averaged", dataclasses.replace(plain, average_decay=0.7), ALONE)
    states = {}
    for name in ("plain", "averaged"):
        newest = max((tmp_path / name / "checkpoints").glob("step_*"))
        states[name] = torch.load(newest / "state.pt", weights_only=True)
    kept = {name: load_model(tmp_path / name / "model").state_dict() for name in states}
    for name, tensor in states["plain"]["model"].items():
        assert torch.equal(states["averaged"]["model"][name], tensor)
        assert torch.equal(kept["plain"][name], tensor)
        assert torch.equal(kept["averaged"][name], states["averaged"]["average"][name])
    differ = [name for name in kept["plain"] if not torch.equal(kept["plain"][name], kept["averaged"][name])]
    assert len(differ) > len(kept["plain"]) / 2


def test_the_average_is_what_is_validated_and_a_resumed_run_ends_with_the_same(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    whole = train(prepared, tmp_path / "whole", settings, ALONE)
    assert 0 <= whole["validation_score"] <= 1
    best = max((tmp_path / "whole" / "checkpoints").glob("step_*"), key=lambda path: path.name)
    for path in [*best.iterdir()]:
        path.unlink()
    best.rmdir()  # the run was killed before it wrote its last one
    again = train(prepared, tmp_path / "whole", settings, ALONE)
    whole_model = tree(tmp_path / "whole" / "model")
    train(prepared, tmp_path / "fresh", settings, ALONE)
    assert tree(tmp_path / "fresh" / "model") == whole_model
    assert again["validation_score"] == whole["validation_score"]
