"""Checkpoints: what is saved comes back, written beside the training, and the newest and the best are kept."""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.train.checkpoint_folder
import model.train.checkpoints
from model.train.checkpoint_folder import write_checkpoint
from model.train.checkpoints import Checkpoints
from tests.model.train.checkpoint_states import (
    IDENTITY,
    Said,
    flip_bit,
    names,
    number,
    one_line,
    state,
    write,
)


def test_a_state_comes_back_as_it_was(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, 5, 5, generator=generator)
    saved = {
        "weight": weight.contiguous(memory_format=torch.channels_last),
        "slice": weight[1:, ::2],
        "parameter": torch.nn.Parameter(weight),
        "half": weight.bfloat16(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        "rng": generator.get_state(),
        "plain": {"a": [1, 2.5, True, None, "text", b"bytes"], "betas": (0.9, 0.999), 3: {}},
    }
    checkpoints = Checkpoints(folder, IDENTITY, keep=1)
    checkpoints.save(120, 3, saved, score=0.25)
    checkpoints.wait()
    loaded = Checkpoints(folder, IDENTITY, keep=1).load()
    assert loaded is not None
    assert loaded[:4] == (folder / "step_00000120", 120, 3, 0.25)
    assert list(loaded.state) == list(saved)
    assert loaded.state["plain"] == saved["plain"]
    for name, tensor in saved.items():
        if isinstance(tensor, torch.Tensor):
            found = loaded.state[name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found, tensor)
    assert loaded.state["weight"].stride() == (75, 1, 15, 3)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimizer_goes_on_to_the_same_weights(folder: Path, kind: str) -> None:
    def start() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = torch.nn.Linear(5, 3)
        if kind == "sgd":
            return network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1)

    def steps(network: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()

    network, optimizer = start()
    steps(network, optimizer)
    with Checkpoints(folder, IDENTITY, keep=1) as checkpoints:
        checkpoints.save(3, 1, {"model": network.state_dict(), "optimizer": optimizer.state_dict()})
        steps(network, optimizer)
    loaded = checkpoints.load()
    assert loaded is not None
    again, its_optimizer = start()
    again.load_state_dict(loaded.state["model"])
    its_optimizer.load_state_dict(loaded.state["optimizer"])
    steps(again, its_optimizer)
    assert torch.equal(again.weight, network.weight)


def test_the_description_says_what_the_checkpoint_is(folder: Path) -> None:
    with Checkpoints(folder, IDENTITY, keep=1) as checkpoints:
        checkpoints.save(12, 1, state(1), score=0.5)
    path = folder / "step_00000012"
    assert names(path) == ["checkpoint.json", "state.pt"]
    description = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    assert len(description.pop("state_sha256")) == 64
    assert description == {
        "step": 12,
        "epoch": 1,
        "score": 0.5,
        "identity": json.loads(json.dumps(IDENTITY)),
        "state_size": (path / "state.pt").stat().st_size,
        "torch_version": torch.__version__,
    }


def test_no_checkpoint_is_none_and_says_nothing(folder: Path, capsys: Said) -> None:
    checkpoints = Checkpoints(folder, IDENTITY, keep=1)
    assert checkpoints.load() is None
    assert checkpoints.best() is None
    assert capsys.readouterr() == ("", "")
    assert not folder.exists()


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(1), {1}, Path("/"), torch.Size([1])], ids=repr)
def test_what_could_not_be_loaded_again_is_not_saved(folder: Path, value: Any) -> None:
    checkpoints = Checkpoints(folder, IDENTITY, keep=1)
    with pytest.raises(TypeError, match=type(value).__name__):
        checkpoints.save(1, 1, {"history": [{"loss": value}]})
    assert not folder.exists()


def test_save_returns_before_it_is_written_and_later_changes_do_not_reach_the_disk(
    folder: Path, gate: threading.Event
) -> None:
    written: list[Path] = []
    changing = state(1)
    with Checkpoints(folder, IDENTITY, 1, written.append) as checkpoints:
        checkpoints.save(1, 1, changing)
        assert not folder.exists()
        changing["model"]["weight"].fill_(2)
        changing["model"]["more"] = torch.zeros(3)
        changing["history"][0]["loss"] = 9.0
        changing["history"].append({})
        gate.set()
    assert written == [folder / "step_00000001"]
    loaded = checkpoints.load()
    assert loaded is not None
    assert number(loaded.state) == 1
    assert list(loaded.state["model"]) == ["weight"]
    assert loaded.state["history"] == [{"loss": 1.0}]


def test_one_checkpoint_is_through_before_the_next_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def write_and_note(path: Path, *arguments: Any, **named: Any) -> None:
        events.append(f"write {path.name}")
        write_checkpoint(path, *arguments, **named)

    def note(path: Path) -> None:
        time.sleep(0.1)  # time for the next to begin, if it did not wait
        assert threading.current_thread() is not threading.main_thread()
        events.append(f"through {path.name}")

    monkeypatch.setattr(model.train.checkpoints, "write_checkpoint", write_and_note)
    with Checkpoints(folder, IDENTITY, 2, note) as checkpoints:
        for step in (1, 2, 3):
            assert checkpoints.save(step, 1, state(step)) > 0
    assert checkpoints.errors == []
    assert events == [f"{what} step_{step:08}" for step in (1, 2, 3) for what in ("write", "through")]


def test_an_error_of_on_written_is_one_line_and_remembered(folder: Path, capsys: Said) -> None:
    errors = [ConnectionError("no route\nto the storage"), None]

    def fail_once(path: Path) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error from OSError("socket")

    checkpoints = Checkpoints(folder, IDENTITY, 2, fail_once)
    for step in (1, 2):
        checkpoints.save(step, 1, state(step))
    checkpoints.wait()
    assert one_line(capsys) == (
        f"{folder / 'step_00000001'}: not passed on (ConnectionError: no route). Training goes on; it is whole on this "
        "disk.\n"
    )
    assert [type(error) for error in checkpoints.errors] == [ConnectionError]
    assert names(folder) == ["step_00000001", "step_00000002"]


def test_the_newest_and_the_best_are_kept(folder: Path) -> None:
    checkpoints = Checkpoints(folder, IDENTITY, keep=2)
    kept = []
    for step, score in enumerate([0.3, 0.6, None, 0.6, 0.5, None, None], 1):
        checkpoints.save(step, 1, state(step), score)
        checkpoints.wait()
        kept.append([int(name.removeprefix("step_")) for name in names(folder)])
    assert kept == [[1], [1, 2], [2, 3], [3, 4], [4, 5], [4, 5, 6], [4, 6, 7]]
    best = checkpoints.best()
    assert best is not None
    assert (best.step, best.score, number(best.state)) == (4, 0.6, 4)


@settings(max_examples=15)
@given(
    scores=st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5]) | st.floats(0, 1), min_size=1, max_size=7),
    keep=st.integers(1, 3),
)
def test_of_any_scores_the_newest_and_the_last_of_the_best_are_kept(scores: list[float | None], keep: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with Checkpoints(folder, IDENTITY, keep) as checkpoints:
            for step, score in enumerate(scores):
                checkpoints.save(step, 0, state(step, 1), score)
        best = sorted((score, step) for step, score in enumerate(scores) if score is not None)[-1:]
        expected = {*range(max(0, len(scores) - keep), len(scores)), *(step for _, step in best)}
        assert names(folder) == [f"step_{step:08}" for step in sorted(expected)]
        assert checkpoints.errors == []


def test_without_scores_the_best_is_the_newest(folder: Path) -> None:
    best = write(folder, 1, 2, 3, keep=2).best()
    assert best is not None
    assert best.step == 3


def test_a_damaged_best_gives_way_to_the_next(folder: Path, capsys: Said) -> None:
    checkpoints = Checkpoints(folder, IDENTITY, keep=3)
    for step, score in ((1, 0.5), (2, 0.9), (3, 0.4)):
        checkpoints.save(step, 1, state(step), score)
    checkpoints.wait()
    flip_bit(folder / "step_00000002" / "state.pt", 5000)
    best = checkpoints.best()
    assert best is not None
    assert best.step == 1
    assert one_line(capsys).startswith(f"{folder / 'step_00000002'}: is not used: state.pt is damaged")


def test_a_checkpoint_of_the_same_step_is_replaced(folder: Path) -> None:
    checkpoints = write(folder, 1, 2)
    checkpoints.save(2, 1, state(5), score=0.5)
    loaded = checkpoints.load()
    assert loaded is not None
    assert (loaded.step, loaded.score, number(loaded.state)) == (2, 0.5, 5)
    assert names(folder) == ["step_00000001", "step_00000002"]


def test_files_that_are_no_checkpoints_stay(folder: Path) -> None:
    for name in ("notes.txt", "step_12", "step_00000001.old", ".hidden"):
        (folder / name).mkdir(parents=True)
    checkpoints = write(folder, 1, 2, keep=1)
    assert checkpoints.load() is not None
    assert names(folder) == sorted(["notes.txt", "step_12", "step_00000001.old", ".hidden", "step_00000002"])
