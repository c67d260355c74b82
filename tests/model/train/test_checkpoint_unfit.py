"""A checkpoint that is damaged or of another run is found, and gives way to the one before."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import model.train.checkpoint_folder
import model.train.checkpoints
from model.train.checkpoint_folder import describe_difference
from model.train.checkpoints import Checkpoints
from tests.model.train.checkpoint_states import (
    IDENTITY,
    Said,
    flip_bit,
    names,
    number,
    one_line,
    state,
    truncate,
    write,
)


def retype(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace('"epoch": 3', '"epoch": "3"'), encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda path: truncate(path / "state.pt", 0), "state.pt is torn: 0 of "),
    "half": (lambda path: truncate(path / "state.pt", 2000), "state.pt is torn: 2000 of "),
    "first bit": (lambda path: flip_bit(path / "state.pt", 0), "state.pt is damaged: its sha256"),
    "a bit": (lambda path: flip_bit(path / "state.pt", 3000), "state.pt is damaged: its sha256"),
    "last bit": (lambda path: flip_bit(path / "state.pt", -1), "state.pt is damaged: its sha256"),
    "no state": (lambda path: (path / "state.pt").unlink(), "state.pt cannot be read (No such file"),
    "no description": (lambda path: (path / "checkpoint.json").unlink(), "checkpoint.json cannot be read (No such"),
    "half a description": (lambda path: truncate(path / "checkpoint.json", 40), "checkpoint.json is damaged"),
    "a bit of the description": (lambda path: flip_bit(path / "checkpoint.json", 3), "checkpoint.json is damaged"),
    "other types": (lambda path: retype(path / "checkpoint.json"), "checkpoint.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(folder: Path, capsys: Said, damage: str) -> None:
    checkpoints = write(folder, 10, 20, 30, keep=3)
    do, reason = DAMAGES[damage]
    do(folder / "step_00000030")
    loaded = checkpoints.load()
    assert loaded is not None
    assert (loaded.step, number(loaded.state)) == (20, 20)
    assert one_line(capsys).startswith(f"{folder / 'step_00000030'}: is not used: {reason}")


def test_where_all_are_damaged_training_starts_anew_and_says_so(folder: Path, capsys: Said) -> None:
    checkpoints = write(folder, 1, 2)
    for name in names(folder):
        truncate(folder / name / "state.pt", 10)
    assert checkpoints.load() is None
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == [f"{folder}/step_00000002", f"{folder}/step_00000001"]
    assert lines[2:] == [f"{folder}: holds no checkpoint to go on from; training starts anew."]


def test_a_damaged_checkpoint_goes_with_the_next_write_and_takes_no_place_of_a_good_one(folder: Path) -> None:
    checkpoints = write(folder, 10, 20, 30, keep=3)
    flip_bit(folder / "step_00000030" / "state.pt", 3000)
    assert checkpoints.load() is not None
    assert names(folder) == ["step_00000010", "step_00000020", "step_00000030"]
    write(folder, 25, keep=2)
    assert names(folder) == ["step_00000020", "step_00000025"]


def test_a_description_of_another_step_is_found(folder: Path, capsys: Said) -> None:
    write(folder, 10)
    (folder / "step_00000010").rename(folder / "step_00000020")
    assert Checkpoints(folder, IDENTITY, keep=1).load() is None
    assert "step_00000020: is not used: checkpoint.json is that of step 10." in capsys.readouterr().err


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, (self.path,))


def test_a_pickled_call_is_not_made_though_the_sha256_is_right(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr(model.train.checkpoints, "copy_state", lambda value: value)
    checkpoints = Checkpoints(folder, IDENTITY, keep=1)
    checkpoints.save(1, 1, {"model": Trap(str(tmp_path / "trapped"))})
    assert checkpoints.load() is None
    assert "step_00000001: is not used: state.pt cannot be read (" in capsys.readouterr().err
    assert not (tmp_path / "trapped").exists()


def test_a_checkpoint_of_another_run_gives_way_and_the_key_that_differs_is_named(folder: Path, capsys: Said) -> None:
    write(folder, 1)
    write(folder, 2, identity={**IDENTITY, "train": {**IDENTITY["train"], "learning_rate": 0.01}})
    assert names(folder) == ["step_00000002"]
    write(folder.parent / "ours", 1)
    (folder.parent / "ours" / "step_00000001").rename(folder / "step_00000001")
    loaded = Checkpoints(folder, IDENTITY, keep=1).load()
    assert loaded is not None
    assert loaded.step == 1
    assert one_line(capsys) == (
        f"{folder / 'step_00000002'}: is not used: it is of another run (train.learning_rate 0.01, this run has 0.02) "
        "and will be removed when this run has written one of its own; use another output folder to keep it.\n"
    )


def test_checkpoints_of_another_run_go_when_this_one_has_its_first(
    folder: Path, gate: threading.Event, capsys: Said
) -> None:
    gate.set()
    write(folder, 100, 200, identity={"prepared_version": "old"})
    gate.clear()
    checkpoints = Checkpoints(folder, {"prepared_version": "new"}, keep=3)
    assert checkpoints.load() is None
    assert checkpoints.best() is None
    assert capsys.readouterr().err.endswith("training starts anew.\n")
    checkpoints.save(1, 1, state(1))
    assert names(folder) == ["step_00000100", "step_00000200"]
    gate.set()
    checkpoints.wait()
    assert names(folder) == ["step_00000001"]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ({"a": 1, "b": {"c": "x"}}, {"b": {"c": "x"}, "a": 1}, ""),
        ({"a": {"b": {"c": 0.01}}}, {"a": {"b": {"c": 0.02}}}, "a.b.c 0.01, this run has 0.02"),
        ({"a": None, "v": "1f"}, {"a": 3, "v": "2e"}, 'a null, this run has 3; v "1f", this run has "2e"'),
        ({"a": {}}, {"a": {"new": True}}, "a.new missing, this run has true"),
        ({"a": {"old": [1, 2]}}, {}, "a.old [1, 2], this run has none"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a [1, 2], this run has [1, 3]"),
    ],
)
def test_the_difference_of_two_identities(theirs: dict[str, Any], ours: dict[str, Any], expected: str) -> None:
    assert describe_difference(theirs, ours) == expected


def test_a_tuple_in_the_settings_is_no_difference(folder: Path) -> None:
    assert write(folder, 1).load() is not None
    lists = {**IDENTITY, "train": {"network": {"modules": [1, 4, 3], "width": 4}, "learning_rate": 0.02}}
    assert Checkpoints(folder, lists, keep=1).load() is not None
