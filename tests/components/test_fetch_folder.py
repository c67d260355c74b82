"""Fetching a raw version from a DVC remote in a folder: caches, outputs that are there, and lists that are damaged."""

import re
from pathlib import Path

import pytest
import yaml

from base.errors import InputError
from components.fetch import fetch, main
from components.storage.dvc import DvcFile, FetchError, find_version
from tests.components.dvc_versions import Arguments, md5_of, write_version
from tests.conftest import exit_line, tree


class FolderRemote:
    """A DVC remote in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, md5: str) -> Path:
        return self.folder / "files" / "md5" / md5[:2] / md5[2:]

    def put(self, md5: str, content: bytes) -> None:
        self.path(md5).parent.mkdir(parents=True, exist_ok=True)
        self.path(md5).write_bytes(content)


CONTENTS = {"train/a": b"a", "train/b": b"bb", "test/same as a": b"a", "test/empty": b""}


@pytest.fixture
def remote(tmp_path: Path) -> FolderRemote:
    return FolderRemote(tmp_path / "remote")


@pytest.fixture
def file(remote: FolderRemote, tmp_path: Path) -> Path:
    return write_version(CONTENTS, tmp_path, remote.put)


def test_the_version_is_returned_and_files_that_share_their_content_are_all_there(
    file: Path, remote: FolderRemote, tmp_path: Path
) -> None:
    version = fetch(DvcFile(file), tmp_path / "out", remote=str(remote.folder))
    assert version == yaml.safe_load(file.read_text())["outs"][0]["md5"]
    assert tree(tmp_path / "out") == CONTENTS
    # Marked as verified for DVC, which shares the cache, and safe from an editor that follows the link.
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("out/*/*")} == {0o444}


def test_an_existing_dvc_cache_is_used(file: Path, remote: FolderRemote, tmp_path: Path) -> None:
    before = tree(remote.folder)
    fetch(DvcFile(file), tmp_path / "out", remote=str(tmp_path / "nowhere"), cache=remote.folder)
    assert tree(tmp_path / "out") == CONTENTS
    assert tree(remote.folder) == before
    assert not (tmp_path / ".out.cache").exists()


def test_damage_in_the_cache_is_mended_from_the_remote(file: Path, remote: FolderRemote, tmp_path: Path) -> None:
    cache = FolderRemote(tmp_path / "cache")
    cache.put(md5_of(b"bb"), b"b?")
    cache.path(md5_of(b"bb")).chmod(0o444)  # by which DVC knows what it has verified
    fetch(DvcFile(file), tmp_path / "out", remote=str(remote.folder), cache=cache.folder)
    assert tree(tmp_path / "out") == CONTENTS
    assert cache.path(md5_of(b"bb")).read_bytes() == b"bb"


@pytest.mark.parametrize("change", ["edited", "foreign"])
def test_a_folder_with_what_the_cache_does_not_hold_is_never_replaced(
    change: str, file: Path, remote: FolderRemote, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fetch(DvcFile(file), out, remote=str(remote.folder))
    if change == "edited":
        (out / "train" / "b").unlink()
    (out / "train" / ("b" if change == "edited" else "notes.txt")).write_bytes(b"mine")
    before = tree(out)
    named = re.escape(str(out / "train" / ("b" if change == "edited" else "notes.txt")))
    with pytest.raises(FetchError, match=f"^{named}: is of no version in the cache"):
        fetch(DvcFile(file), out, remote=str(remote.folder))
    assert tree(out) == before


def test_a_file_in_the_place_of_the_output_is_left_alone(file: Path, remote: FolderRemote, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        fetch(DvcFile(file), tmp_path / "out", remote=str(remote.folder))
    assert (tmp_path / "out").read_bytes() == b"mine"


@pytest.mark.parametrize("md5", ["0" * 32, f"{'0' * 32}.dir"])
def test_a_remote_folder_that_is_not_there_is_named_and_nothing_is_made(md5: str, tmp_path: Path) -> None:
    for remote, said in (
        (tmp_path / "nowhere", "is no folder here, expected a DVC remote"),
        (tmp_path, "missing|is not on"),
    ):
        line = exit_line(main, "--version", md5, "--remote", remote, "--out", tmp_path / "out")
        assert re.search(f"{re.escape(str(remote))}.* {said}|{said}.*{re.escape(str(remote))}", line)
        assert "Errno" not in line
        assert list(tmp_path.iterdir()) == []


def test_a_damaged_list_of_files_is_told_from_a_lost_one(file: Path, remote: FolderRemote, tmp_path: Path) -> None:
    version = find_version(DvcFile(file), str(remote.folder)).md5
    arguments: Arguments = ["--dvc-file", file, "--remote", remote.folder, "--out", tmp_path / "out"]
    remote.put(version, b"[]")
    line = exit_line(main, *arguments)
    assert line.startswith(f"FetchError: {tmp_path / 'xbd'}: the list of its files is corrupted on {remote.folder}. ")
    remote.path(version).unlink()
    line = exit_line(main, *arguments)
    assert line.startswith(f"FetchError: {tmp_path / 'xbd'}: raw version {version} is not on {remote.folder} (")
    assert not (tmp_path / "out").exists()


def test_of_many_lost_files_three_are_named_and_the_others_counted(remote: FolderRemote, tmp_path: Path) -> None:
    contents = {f"{number}.png": b"%d" % number for number in range(9)}
    file = write_version(contents, tmp_path, remote.put)
    for number in (1, 3, 5, 7, 8):
        remote.path(md5_of(contents[f"{number}.png"])).unlink()
    line = exit_line(main, "--dvc-file", file, "--remote", remote.folder, "--out", tmp_path / "out")
    assert [f"/{number}.png is missing" in line for number in range(9)] == [number in (1, 3, 5) for number in range(9)]
    assert ", and 2 more. To repair it, delete " in line


def test_a_list_that_leads_outside_is_refused(remote: FolderRemote, tmp_path: Path) -> None:
    for number, path in enumerate(["../stolen", "/stolen", "train/../../stolen"]):
        file = write_version({"good": b"1", path: b"2"}, tmp_path, remote.put)
        with pytest.raises(FetchError, match=f"lists {path}, which is outside"):
            fetch(DvcFile(file), tmp_path / str(number), remote=str(remote.folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["remote", "xbd.dvc"]


def test_a_tracked_file_comes_into_the_folder_by_its_name(remote: FolderRemote, tmp_path: Path) -> None:
    remote.put(md5_of(b"weights"), b"weights")
    file = tmp_path / "weight.pth.dvc"
    file.write_text(f"outs:\n- md5: {md5_of(b'weights')}\n  hash: md5\n  path: weight.pth\n")
    assert fetch(DvcFile(file), tmp_path / "out", remote=str(remote.folder)) == md5_of(b"weights")
    assert tree(tmp_path / "out") == {"weight.pth": b"weights"}
