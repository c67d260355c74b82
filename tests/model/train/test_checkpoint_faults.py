"""A kill, a full disk or a folder that vanishes costs one checkpoint at most."""

import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import model.train.checkpoint_folder
import model.train.checkpoints
from model.train.checkpoints import Checkpoints
from tests.model.train.checkpoint_states import IDENTITY, Said, names, number, one_line, state, write


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
