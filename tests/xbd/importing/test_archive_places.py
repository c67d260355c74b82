"""Where an import takes its scenes from and where it puts them: folders, links, mount points."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import (
    exit_line,
    tiny_buildings,
    tree,
    write_scene,
)
from tests.xbd.importing.packed import FLOOD, hidden, pack, run, silent
from xbd.importing.__main__ import main


def test_an_unpacked_folder_is_linked(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "unpacked"
    write_scene(source, "tier3", "tiny-quake_00000001", tiny_buildings("a"))
    write_scene(source, "hold", "tiny-quake_00000002", tiny_buildings("b"))
    expected = tree(source)
    (source / "hold" / "images" / ".DS_Store").write_bytes(b"")
    (source / "hold" / "masks").mkdir()
    (source / "hold" / "masks" / "tiny-quake_00000002_post_disaster.png").write_bytes(b"")
    for _ in range(2):
        main(["--archives", str(source), "--out", str(out)])
        assert tree(out) == expected
        assert all((out / name).samefile(source / name) for name in expected)
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [str(source), "not", "verified", "8", "2"] in lines
        assert ["tier3", "1", "1", "1", "1", "1", "1"] in lines
        assert ["hold", "1", "1", "1", "1", "1", "1"] in lines
    assert hidden(out) == {".gitignore", "lock"}


def test_a_folder_on_another_file_system_is_copied(raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))

    monkeypatch.setattr(os, "link", refuse)
    silent(raw, out=out)
    assert tree(out) == tree(raw)
    assert not (out / FLOOD).samefile(raw / FLOOD)


def test_links_in_an_unpacked_folder_are_followed(raw: Path, tmp_path: Path, out: Path) -> None:
    """As DVC's cache makes them: a folder of links, or a link to a folder."""
    source = tmp_path / "linked"
    (source / "train").mkdir(parents=True)
    (source / "train" / "images").symlink_to(raw / "train" / "images")
    shutil.copytree(raw / "train" / "labels", source / "train" / "labels", copy_function=os.symlink)
    silent(source, out=out)
    assert tree(out) == {name: content for name, content in tree(raw).items() if name.startswith("train/")}
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_the_raw_data_itself_is_checked_and_left_alone(raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(raw, tmp_path / "xbd")
    (out / "notes.txt").write_text("mine")
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    result = run("--archives", "xbd", "--out", "xbd", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert ["train", "8", "8", "8", "8", "8", "8"] in [line.split() for line in result.stdout.splitlines()]
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before


def test_a_folder_may_hold_archives_and_unpacked_splits(raw: Path, tmp_path: Path, out: Path) -> None:
    shutil.copytree(raw / "train", tmp_path / "both" / "train")
    pack(raw, tmp_path / "both" / "test.tar.gz", "test")
    assert [one.name for one in silent(tmp_path / "both", tmp_path / "both", out=out)] == [
        "test.tar.gz",
        str(tmp_path / "both"),
    ]
    assert tree(out) == tree(raw)


def test_sources_without_data_are_named(raw: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "train" / "images").mkdir(parents=True)
    for source, finding in (
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "empty", "holds no archive"),
        (tmp_path / "hollow", "holds no file of the layout"),
        (raw / "train", "holds no archive"),
    ):
        line = exit_line(main, "--archives", source, "--out", out)
        assert line.startswith(f"ArchiveError: {source}: {finding}")
    assert not out.parent.exists()


@pytest.mark.parametrize("kind", ["file", "folder is a file"])
def test_an_output_that_is_no_folder_is_named(kind: str, whole: Path, out: Path) -> None:
    path = out if kind == "file" else out.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert str(path) in exit_line(main, "--archives", whole, "--out", out, "--no-verify")


def test_an_output_that_is_a_mount_point_is_refused_before_the_work(
    whole: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounting needs rights that a test has not; the number of the file system is what a mount point differs in."""
    out.mkdir(parents=True)
    stat = Path.stat

    def mounted(path: Path, **options: bool) -> os.stat_result:
        found = list(stat(path, **options))
        return os.stat_result([*found[:2], found[2] + (path == out), *found[3:]])

    monkeypatch.setattr(Path, "stat", mounted)
    line = exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    assert (
        line
        == f"StagingError: {out}: is a file system of its own, nothing can be moved there. Name a folder inside it."
    )
    assert list(out.iterdir()) == []


def test_the_raw_data_may_be_a_link_to_a_larger_disk(raw: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "xbd").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "xbd")
    silent(whole, out=tmp_path / "link")
    assert tree(tmp_path / "disk" / "xbd") == tree(raw)
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}


def test_git_sees_nothing_of_what_the_import_remembers(whole: Path, tmp_path: Path, out: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    silent(whole, out=out)
    status = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True)
    assert status.stdout
    assert all(line.startswith("?? data/xbd/") for line in status.stdout.splitlines())
