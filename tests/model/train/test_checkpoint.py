"""Checkpoints: what is saved comes back, a kill or a full disk costs one of them at most, and damage is found."""

import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.train.checkpoint_folder
import model.train.checkpoints
from model.train.checkpoint_folder import describe_difference, write_checkpoint
from model.train.checkpoints import Checkpoints

IDENTITY: dict[str, Any] = {
    "train": {"learning_rate": 0.02, "network": {"width": 4, "modules": (1, 4, 3)}},
    "prepared_version": "abc",
}
Said = pytest.CaptureFixture[str]


def state(number: float, size: int = 1000) -> dict[str, Any]:
    return {"model": {"weight": torch.full((size,), float(number))}, "history": [{"loss": 1.0}]}


def number(loaded: Mapping[str, Any]) -> float:
    """The number that `state` was made of; every value is it."""
    weight = loaded["model"]["weight"]
    assert (weight == weight[0]).all()
    return float(weight[0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def write(folder: Path, *steps: int, keep: int = 9, identity: Mapping[str, Any] = IDENTITY) -> Checkpoints:
    """Checkpoints of these steps, each of the state of its number."""
    checkpoints = Checkpoints(folder, identity, keep)
    for step in steps:
        checkpoints.save(step, step // 10, state(step))
    checkpoints.wait()
    assert checkpoints.errors == []
    return checkpoints


def one_line(said: Said) -> str:
    """What was printed, which is one line on stderr."""
    out, err = said.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return str(err)


# --- what is saved comes back ---


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


# --- beside the training ---


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints are written when it is set."""
    event = threading.Event()

    def write_when_open(*arguments: Any, **named: Any) -> None:
        event.wait()
        write_checkpoint(*arguments, **named)

    monkeypatch.setattr(model.train.checkpoints, "write_checkpoint", write_when_open)
    yield event
    event.set()


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


# --- which are kept ---


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


# --- killed ---


def fork(work: Callable[[], None]) -> int:
    """Runs `work` in a process that is a copy of this one; returns its id."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return process


def test_a_process_killed_in_mid_write_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    write(folder, 1, 2, keep=1)
    file_class = model.train.checkpoint_folder._HashedFile
    original = file_class.write

    def write_slowly(file: Any, data: Any) -> int:
        time.sleep(0.01)
        return original(file, data)

    def save_much() -> None:
        monkeypatch.setattr(file_class, "write", write_slowly)
        many = {str(i): torch.zeros(5000) for i in range(2000)}  # 20 s to write
        with Checkpoints(folder, IDENTITY, keep=1) as checkpoints:
            checkpoints.save(3, 1, many)

    process = fork(save_much)
    partial = folder / ".step_00000003.partial" / "state.pt"
    try:
        while not partial.exists() or partial.stat().st_size < 100_000:
            assert os.waitpid(process, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert names(folder) == [".step_00000003.partial", "step_00000002"]
    loaded = Checkpoints(folder, IDENTITY, keep=1).load()
    assert loaded is not None
    assert (loaded.step, number(loaded.state)) == (2, 2)
    assert names(folder) == ["step_00000002"]
    assert capsys.readouterr() == ("", "")
    write(folder, 3, keep=1)
    assert names(folder) == ["step_00000003"]


def test_what_an_earlier_write_left_is_not_mixed_into_the_next(folder: Path) -> None:
    leftover = folder / ".step_00000001.partial"
    leftover.mkdir(parents=True)
    (leftover / "more.pt").write_bytes(b"half")
    write(folder, 1)
    assert names(folder) == ["step_00000001"]
    assert names(folder / "step_00000001") == ["checkpoint.json", "state.pt"]


def kill_at_change(number: int) -> None:
    """From now on, this process ends by kill -9 just before its change `number` to the names of files."""
    left = number

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove") or (event == "open" and arguments[1] == "wb"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


@pytest.mark.parametrize("step", [2, 3], ids=["the same step", "a later step"])
def test_wherever_a_kill_comes_a_whole_checkpoint_is_left(tmp_path: Path, step: int, capsys: Said) -> None:
    found = []
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        write(folder, 1, 2, keep=1)

        def save(folder: Path = folder, moment: int = moment) -> None:
            kill_at_change(moment)
            with Checkpoints(folder, IDENTITY, keep=1) as checkpoints:
                checkpoints.save(step, 1, state(7))

        _, status = os.waitpid(fork(save), 0)
        loaded = Checkpoints(folder, IDENTITY, keep=1).load()
        assert loaded is not None
        assert (loaded.step, number(loaded.state)) in [(2, 2), (step, 7)]
        assert all(names(path) == ["checkpoint.json", "state.pt"] for path in folder.iterdir())
        found.append(number(loaded.state))
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert status == 0
    assert found == sorted(found)
    assert found.count(2) >= 3 and found.count(7) >= 3, found
    assert capsys.readouterr() == ("", "")


# --- damaged ---


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


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


# --- of another run ---


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


# --- a disk that fails ---


@contextmanager
def small_files_only() -> Iterator[None]:
    """The kernel refuses writes beyond the first 64 KiB of a file, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_costs_one_checkpoint_and_the_next_is_written(folder: Path, capsys: Said) -> None:
    checkpoints = write(folder, 1, 2, keep=1)
    with small_files_only():
        checkpoints.save(3, 1, state(3, 100_000))
        checkpoints.wait()
    assert one_line(capsys) == (
        f"{folder / 'step_00000003'}: not written (OSError: [Errno 27] File too large). Training goes on; the last "
        "good checkpoint is step_00000002.\n"
    )
    assert [type(error) for error in checkpoints.errors] == [OSError]
    assert names(folder) == ["step_00000002"]
    loaded = checkpoints.load()
    assert loaded is not None
    assert number(loaded.state) == 2
    checkpoints.save(4, 1, state(4, 100_000))
    checkpoints.wait()
    assert names(folder) == ["step_00000004"]


@pytest.mark.parametrize("size", [1, 1000, 100_000], ids=str)
@pytest.mark.parametrize("file", ["STATE", "DESCRIPTION"])
def test_a_full_disk_is_named_and_nothing_half_written_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said, size: int, file: str
) -> None:
    written: list[Path] = []
    checkpoints = Checkpoints(folder, IDENTITY, 1, written.append)
    with monkeypatch.context() as patch:
        patch.setattr(model.train.checkpoint_folder, file, "/dev/full")
        checkpoints.save(1, 1, state(1, size))
        checkpoints.wait()
    assert one_line(capsys) == (
        f"{folder / 'step_00000001'}: not written (OSError: [Errno 28] No space left on device). Training goes on; the "
        "last good checkpoint is none.\n"
    )
    assert (names(folder), written) == ([], [])
    checkpoints.save(2, 1, state(2, size))
    checkpoints.wait()
    assert written == [folder / "step_00000002"]


def test_a_file_in_the_place_of_the_folder_is_named_and_training_goes_on(folder: Path, capsys: Said) -> None:
    folder.write_text("in the way")
    checkpoints = Checkpoints(folder, IDENTITY, keep=1)
    assert checkpoints.load() is None
    checkpoints.save(1, 1, state(1))
    checkpoints.wait()
    line = one_line(capsys)
    assert re.match(rf"{folder}/step_00000001: not written \((NotADirectory|FileExists)Error: .*{folder}", line)
    assert line.endswith("Training goes on; the last good checkpoint is none.\n")
    assert folder.read_text() == "in the way"
    folder.unlink()
    write(folder, 2)


def test_a_folder_that_vanishes_between_two_writes_comes_back(folder: Path) -> None:
    checkpoints = write(folder, 1)
    shutil.rmtree(folder)
    checkpoints.save(2, 1, state(2))
    checkpoints.wait()
    assert checkpoints.errors == []
    assert names(folder) == ["step_00000002"]


def test_a_folder_that_vanishes_in_mid_write_costs_one_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    checkpoints = write(folder, 1)
    original = model.train.checkpoint_folder._write_state

    def write_and_vanish(path: Path, state: Mapping[str, Any]) -> tuple[int, str]:
        result = original(path, state)
        shutil.rmtree(folder)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(model.train.checkpoint_folder, "_write_state", write_and_vanish)
        checkpoints.save(2, 1, state(2))
        checkpoints.wait()
    line = one_line(capsys)
    assert line.startswith(f"{folder / 'step_00000002'}: not written (FileNotFoundError: ")
    assert line.endswith("the last good checkpoint is none.\n")
    checkpoints.save(3, 1, state(3))
    checkpoints.wait()
    assert names(folder) == ["step_00000003"]
