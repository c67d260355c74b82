"""Imports that were killed, refused or done before: the next one goes on, and what is there is never overwritten."""

import fcntl
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import (
    ROOT,
    TEST_SCENES,
    TRAIN_SCENES,
    assert_one_line,
    environment,
    exit_line,
    tree,
)
from tests.xbd.importing.packed import FLOOD, hidden, pack, run, sha1, silent
from xbd.importing.__main__ import main
from xbd.importing.archive import import_archives
from xbd.importing.extraction import ArchiveError

KILLER = """
import os, signal

at, partial, calls = {at}, {partial}, 0

def killing(move):
    def moved(source, target, **options):
        global calls
        calls += 1
        if calls == at:
            if partial:
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return move(source, target, **options)
    return moved

os.replace, os.rename = killing(os.replace), killing(os.rename)
"""


# Moves: .gitignore, every file of the tiny data set when it is written, the two splits, the record.
FILES = 4 * (len(TRAIN_SCENES) + len(TEST_SCENES))


@pytest.mark.parametrize(
    ("at", "partial"),
    [(2, False), (20, False), (20, True), (1 + FILES, True), (2 + FILES, False), (3 + FILES, False), (4 + FILES, True)],
)
def test_a_killed_import_goes_on_to_the_same_tree(
    at: int, partial: bool, raw: Path, whole: Path, tmp_path: Path, out: Path
) -> None:
    """Killed at its first file, between files, within a file (half of it written), between splits, before the record;
    the process kills itself, which is the one way to have it happen at these very moments.
    """
    (tmp_path / "sitecustomize.py").write_text(KILLER.format(at=at, partial=partial))
    killer = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    command = ("--archives", whole, "--out", out, "--no-verify")
    assert run(*command, cwd=tmp_path, env=killer).returncode == -signal.SIGKILL
    staged = out.parent / ".xbd.import" / sha1(whole)
    kept = {path: path.stat() for path in staged.rglob("[!.]*.*")}  # not the half one, which is hidden
    if at <= 2 + FILES:
        assert not out.exists() or not any(out.iterdir())
        assert len(kept) == min(at - 2, FILES)
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(out) == tree(raw)
    assert hidden(out) == {".gitignore", "lock", f"{sha1(whole)}.json"}
    for path, before in kept.items():
        after = (out / path.relative_to(staged)).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "written again"


def test_half_a_file_never_comes_into_the_raw_data(raw: Path, whole: Path, out: Path) -> None:
    """A run was killed within a file that came into the raw data another way before the next run."""
    shutil.copytree(raw / "train", out / "train")
    half = out.parent / ".xbd.import" / sha1(whole) / FLOOD
    half.parent.mkdir(parents=True)
    half.with_name(f".{half.name}.partial").write_bytes(b"half")
    silent(whole, out=out)
    assert tree(out) == tree(raw)


def test_an_archive_that_is_there_is_skipped_without_being_read(whole: Path, raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tar.gz"
    shutil.copy2(whole, path)
    command = ("--archives", path, "--out", "xbd", "--no-verify")
    first = run(*command, cwd=tmp_path)
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = run(*command, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert second.stderr.splitlines()[1:] == [f"{path}: is in {tmp_path / 'xbd'} already, skipped."]
    os.utime(path)
    assert_one_line(run("--archives", path, "--out", "xbd", cwd=tmp_path), sha1(path))
    assert tree(tmp_path / "xbd") == tree(raw)


def test_an_archive_under_another_name_is_known_by_its_hash(whole: Path, tmp_path: Path, out: Path) -> None:
    silent(whole, out=out)
    lines: list[str] = []
    shutil.copy(whole, tmp_path / "b.tar.gz")
    import_archives([tmp_path / "b.tar.gz"], out, verify=False, tell=lines.append)
    assert lines[1:] == [f"{tmp_path / 'b.tar.gz'}: is in {out} already, skipped."]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_that_was_lost_comes_back(damage: Callable[[Path], object], raw: Path, whole: Path, out: Path) -> None:
    """What is empty is gone, too, but it is the user's to remove: files that are there are never overwritten."""
    silent(whole, out=out)
    damage(out / FLOOD)
    if (out / FLOOD).exists():
        with pytest.raises(ArchiveError, match=r"with other content .* Move the file away"):
            silent(whole, out=out)
        (out / FLOOD).unlink()
    silent(whole, out=out)
    assert tree(out) == tree(raw)


def test_a_record_that_is_not_readable_only_costs_time(raw: Path, whole: Path, out: Path) -> None:
    silent(whole, out=out)
    record = out.parent / ".xbd.import" / f"{sha1(whole)}.json"
    for content in ("", "{", "[]", "{}", '{"name": 1}'):
        record.write_text(content)
        silent(whole, out=out)
        assert tree(out) == tree(raw)
        assert len(record.read_text()) > 1000


def test_archives_of_parts_of_a_split_are_merged(raw: Path, tmp_path: Path, out: Path) -> None:
    images = pack(raw, tmp_path / "images.tar.gz", "train/images", "test/images")
    labels = pack(raw, tmp_path / "labels.tar.gz", "train/labels", FLOOD, "test/labels")
    silent(images, labels, out=out)
    assert tree(out) == tree(raw)


def test_files_with_other_content_are_never_overwritten(raw: Path, tmp_path: Path, out: Path, whole: Path) -> None:
    other = out / FLOOD
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    line = exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    assert f"{other} is there with other content" in line
    line = exit_line(main, "--archives", raw, "--out", out)
    assert f"{other} is there with other content" in line
    assert tree(out) == {FLOOD: b"mine"}


def test_a_refused_import_leaves_no_hidden_folder_and_keeps_what_earlier_ones_remember(
    whole: Path, tmp_path: Path, out: Path
) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    exit_line(main, "--archives", bad, "--out", out, "--no-verify")
    assert not out.parent.exists()
    silent(whole, out=out)
    before = hidden(out)
    exit_line(main, "--archives", bad, "--out", out, "--no-verify")
    assert hidden(out) == before


def test_a_full_disk_ends_in_one_line_and_the_next_run_goes_on(
    raw: Path, whole: Path, tmp_path: Path, out: Path
) -> None:
    """The kernel refuses to let a file grow, in write(), whose error has no name."""
    largest = max(path.stat().st_size for path in raw.rglob("*.png"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.RLIM_INFINITY))

    command = ("--archives", whole, "--out", out, "--no-verify")
    result = run(*command, cwd=tmp_path, preexec_fn=limit)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2  # the first is the warning
    assert result.stderr.splitlines()[1].startswith(f"OSError: {out.parent / '.xbd.import'}")
    assert "File too large" in result.stderr
    assert not out.exists()
    assert run(*command, cwd=tmp_path).returncode == 0
    assert tree(out) == tree(raw)


def test_two_imports_do_not_meet(whole: Path, out: Path) -> None:
    silent(whole, out=out)
    with (out.parent / ".xbd.import" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another import into it is running" in exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    silent(whole, out=out)


def test_what_a_given_up_import_left_goes_away_with_the_next_one(raw: Path, tmp_path: Path, out: Path) -> None:
    left = out.parent / ".xbd.import" / ("0" * 40) / "train" / "images"
    left.mkdir(parents=True)
    (left / "x.png").write_bytes(b"half")
    (out.parent / ".xbd.import" / f".{'0' * 40}.json.partial").write_bytes(b"half")
    silent(raw, out=out)
    assert hidden(out) == {".gitignore", "lock"}
    assert tree(out) == tree(raw)
