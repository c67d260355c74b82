"""Prepare interrupted: killed, out of disk, out of memory; run again it gives the bytes of an undisturbed run."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from components.prepare import main, prepare
from tests.commands import assert_one_line, environment, exit_line, runs, succeed, wait_until
from tests.comparing import tree
from tests.components.prepared_arrays import array, changed, files
from tests.scenes import TEST_SCENES, TRAIN_SCENES, write_label, write_scene
from tests.tiny import prepare_params, write_params
from xbd import arrays
from xbd.scenes import SceneError

ALL = prepare_params()
ORDER = [*sorted(TEST_SCENES), *sorted(TRAIN_SCENES)]  # the order of the work


def label(raw: Path, scene: str) -> Path:
    return raw / "train" / "labels" / f"{scene}_post_disaster.json"


def command(data: Path, work: Path, workers: int) -> list[str | Path]:
    params = write_params(work / "params.yaml", {"prepare": {"workers": workers}})
    step: list[str | Path] = [sys.executable, "-m", "components.prepare", "--params", params]
    return [*step, "--raw", data, "--out", work / "out"]


def workers_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@contextmanager
def half_way(data: Path, work: Path, scene: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A run and its two workers, one of which waits for an image that does not come: that of `scene`, a pipe; all
    scenes before it are done and in the journal. Afterwards the image is what it was.
    """
    image = data / "train" / "images" / f"{scene}_pre_disaster.png"
    sound = image.read_bytes()
    image.unlink()
    os.mkfifo(image)
    journal = work / ".out.partial" / "journal.csv"
    workers: list[int] = []
    process = subprocess.Popen(
        command(data, work, workers=2), cwd=work, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        done = set(ORDER[: ORDER.index(scene)])
        wait_until(
            lambda: journal.exists() and {line.split(",")[0] for line in journal.read_text().splitlines()} == done
        )
        assert process.poll() is None
        workers = workers_of(process.pid)
        assert len(workers) == 2
        yield process, workers
    finally:
        process.kill()
        for worker in filter(runs, workers):
            os.kill(worker, signal.SIGKILL)
        process.communicate()
        image.unlink()
        image.write_bytes(sound)


@pytest.mark.slow
def test_runs_killed_half_way_leave_their_work_to_the_next_and_no_process(
    data: Path, prepared: Path, tmp_path: Path
) -> None:
    kept: dict[str, tuple[int, int]] = {}
    for scene in (ORDER[4], ORDER[8]):
        with half_way(data, tmp_path, scene) as (process, workers):
            process.kill()
            process.wait()
            wait_until(lambda started=workers: not any(map(runs, started)))  # type: ignore[misc]
        assert not (tmp_path / "out").exists()
        now = files(tmp_path / ".out.partial")
        assert {name: now[name] for name in kept} == kept
        kept = {name: now[name] for name in ORDER[: ORDER.index(scene)]}
    succeed("prepare", *map(str, command(data, tmp_path, workers=2)[3:]), cwd=tmp_path)
    assert changed(kept, files(tmp_path / "out")) == set(ORDER[8:])
    assert tree(tmp_path / "out") == tree(prepared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "params.yaml", "raw"]


@pytest.mark.slow
def test_a_killed_run_leaves_the_earlier_output_as_it_was(data: Path, tmp_path: Path) -> None:
    prepare(data, tmp_path / "out", ALL)
    before = tree(tmp_path / "out")
    for scene in TRAIN_SCENES:
        write_label(label(data, scene), [])
    with half_way(data, tmp_path, ORDER[6]) as (process, _):
        process.kill()
        process.wait()
        assert tree(tmp_path / "out") == before
    prepare(data, tmp_path / "out", ALL)
    prepare(data, tmp_path / "fresh", ALL)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_in_one_line_and_the_next_goes_on(
    data: Path, prepared: Path, tmp_path: Path
) -> None:
    with half_way(data, tmp_path, ORDER[6]) as (process, workers):
        os.kill(workers[0], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
        assert_one_line(subprocess.CompletedProcess([], process.returncode, stdout, stderr), "prepare.workers")
        assert not any(map(runs, workers))
        assert not (tmp_path / "out").exists()
        kept = files(tmp_path / ".out.partial")
    prepare(data, tmp_path / "out", ALL)
    assert changed(kept, files(tmp_path / "out")).isdisjoint(ORDER[:6])
    assert tree(tmp_path / "out") == tree(prepared)


def limited(data: Path, work: Path, size: int) -> "subprocess.CompletedProcess[str]":
    """A run that cannot write more than `size` bytes to a file, as on a full disk."""
    return subprocess.run(
        command(data, work, workers=1), cwd=work, env=environment(PYTHONDONTWRITEBYTECODE="1"), capture_output=True,
        text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), timeout=300,
    )  # fmt: skip


def test_an_array_that_does_not_fit_on_the_disk_ends_in_one_line(data: Path, prepared: Path, tmp_path: Path) -> None:
    result = limited(data, tmp_path, 20_000)  # an array of 64 x 64 pixels takes 28,800
    assert_one_line(result, str(array(tmp_path / ".out.partial", ORDER[0])), "cannot be written")
    assert not (tmp_path / "out").exists()
    prepare(data, tmp_path / "out", ALL)
    assert tree(tmp_path / "out") == tree(prepared)


def test_a_journal_that_does_not_fit_on_the_disk_ends_in_one_line(tmp_path: Path) -> None:
    """Its last line breaks off as a full disk breaks it."""
    names = [f"some-storm_{number:08}" for number in range(12)]
    for name in names:
        write_scene(tmp_path / "raw", "train", name, [], (16, 16))
    result = limited(tmp_path / "raw", tmp_path, 2500)  # an array takes 1920, a line 350
    assert_one_line(result, str(tmp_path / ".out.partial"), "File too large")
    before = files(tmp_path / ".out.partial")
    assert not (tmp_path / ".out.partial" / "journal.csv").read_bytes().endswith(b"\n")
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    assert changed(before, files(tmp_path / "out")).isdisjoint(names[:5])
    prepare(tmp_path / "raw", tmp_path / "fresh", ALL)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_too_little_memory_ends_in_one_line(
    data: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "prepare_scene", lambda raw, sources: np.empty(2**60, np.uint8))
        params = write_params(tmp_path / "params.yaml")
        line = exit_line(main, "--params", params, "--raw", data, "--out", tmp_path / "out")
    assert line.startswith("SceneError: prepare.workers: a process ran out of memory or was killed.")
    assert not (tmp_path / "out").exists()
    prepare(data, tmp_path / "out", ALL)
    assert tree(tmp_path / "out") == tree(prepared)


# The last field of a journal's line is "none"; a line that broke off within it looks whole.
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6, 70, 200, 10**6])
def test_a_journal_that_broke_off_is_used_as_far_as_it_is_whole(
    data: Path, prepared: Path, tmp_path: Path, cut: int
) -> None:
    waiting = _interrupted(data, tmp_path)
    journal = tmp_path / ".out.partial" / "journal.csv"
    content = journal.read_bytes()
    assert content.endswith(b",none\n")
    journal.write_bytes(content[:-cut])
    prepare(data, tmp_path / "out", ALL)
    lost = {ORDER[-2]} if cut > 1 else set()
    if cut < 10**6:
        assert changed(waiting, files(tmp_path / "out")) == {ORDER[-1]} | lost
    assert tree(tmp_path / "out") == tree(prepared)


@pytest.mark.parametrize("garbage", [b"\0" * 400, b"\xff" * 400, b'"'], ids=["zeros", "no text", "quote"])
def test_a_journal_that_ends_in_garbage_after_a_power_cut_harms_nothing(
    data: Path, prepared: Path, tmp_path: Path, garbage: bytes
) -> None:
    _interrupted(data, tmp_path)
    with (tmp_path / ".out.partial" / "journal.csv").open("ab") as file:
        file.write(garbage)
    os.truncate(array(tmp_path / ".out.partial", ORDER[2]), 5000)  # written to the journal, and not to the disk
    (tmp_path / ".out.partial" / "scenes" / f"{ORDER[-1]}.partial").write_bytes(b"half")
    prepare(data, tmp_path / "out", ALL)
    assert tree(tmp_path / "out") == tree(prepared)


def _interrupted(data: Path, work: Path) -> dict[str, tuple[int, int]]:
    """A run that prepared all scenes but the last one; the files of its arrays."""
    path = label(data, ORDER[-1])
    sound = path.read_bytes()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SceneError):
        prepare(data, work / "out", ALL)
    path.write_bytes(sound)
    return files(work / ".out.partial")


def test_a_run_killed_between_its_last_two_renames_is_taken_up(data: Path, prepared: Path, tmp_path: Path) -> None:
    """At that moment the new folder is whole, and the earlier one is no longer in place."""
    out = tmp_path / "out"
    prepare(data, out, ALL)
    before = files(out)
    out.rename(tmp_path / ".out.partial")
    shutil.copytree(prepared, tmp_path / ".out.replaced")
    prepare(data, out, ALL)
    assert changed(before, files(out)) == set()
    assert tree(out) == tree(prepared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_run_killed_before_it_cleared_up_is_taken_up_even_if_the_data_changed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(data, out, ALL)
    out.rename(tmp_path / ".out.partial")
    write_label(label(data, TRAIN_SCENES[1]), [])
    label(data, TRAIN_SCENES[2]).unlink()
    with pytest.raises(SceneError, match=TRAIN_SCENES[2]):
        prepare(data, out, ALL)
    assert not (tmp_path / ".out.partial" / "index.csv").exists()
    prepare(data, out, prepare_params(on_error="skip"))
    prepare(data, tmp_path / "fresh", prepare_params(on_error="skip"))
    assert tree(out) == tree(tmp_path / "fresh")
