"""Which version of the data a .dvc file or a git revision names, and where it says that its objects are stored."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.fetch import main
from components.storage.dvc import DvcFile, FetchError, Revision, find_version
from tests.conftest import commit, exit_line

Arguments = list[str | Path]
RECORD = f"outs:\n- path: xbd\n  hash: md5\n  md5: {'2' * 32}.dir\n"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Where the repository says that its data are."""
    return tmp_path / "remote"


@pytest.fixture
def repository(remote: Path, tmp_path: Path) -> Path:
    """A repository with data/xbd, and a stage's output data/prepared, at the branch main."""
    folder = tmp_path / "repository"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "data").mkdir()
    settings = f"[core]\n    remote = Storage\n['remote \"Storage\"']\n    url = {remote}\n"
    (folder / ".dvc" / "config").write_text(settings)
    (folder / "data" / "xbd.dvc").write_text(RECORD)
    lock = {"stages": {"prepare": {"cmd": "true", "outs": [{"path": "data/prepared", "hash": "md5", "md5": "1" * 32}]}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", **lock}))
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder, check=True)
    commit(folder)
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\x89PNG\r\n", "is not a file that DVC wrote"),
        (b"outs: 3\n", "is not a file that DVC wrote"),
        (b"- a\n", "is not a file that DVC wrote"),
        (b"outs:\n- md5: 00\n", "is not a file that DVC wrote"),
        (b"train:\n  epochs: 3\n", "tracks 0 paths, expected one"),
        (b"outs:\n- path: a\n- path: b\n", "tracks 2 paths, expected one"),
        (b"outs:\n- path: xbd\n  etag: 5\n", "xbd has no md5 of DVC 3"),
        (b"outs:\n- path: xbd\n  md5: %s.dir\n" % (b"0" * 32), "xbd has no md5 of DVC 3"),  # of DVC 2
        (b"outs:\n- path: xbd\n  hash: md5\n  md5: ../../secret\n", "xbd has no md5 of DVC 3"),
    ],
)
def test_a_file_that_names_no_version_is_one_line(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "xbd.dvc"
    if content is not None:
        file.write_bytes(content)
    line = exit_line(main, "--dvc-file", file, "--remote", tmp_path / "remote", "--out", tmp_path / "out")
    assert line.startswith(f"FetchError: {file}: {said}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [("carrier://pigeon", "Unsupported URL type"), ("gs://bucket/prefix", "dvc-gs")],
)
def test_a_remote_of_an_unknown_kind_is_one_line(url: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "xbd.dvc").write_text(RECORD)
    line = exit_line(main, "--dvc-file", tmp_path / "xbd.dvc", "--remote", url, "--out", tmp_path / "out")
    assert line.startswith("FetchError: ")
    assert said in line


def test_an_empty_remote_or_revision_is_refused(repository: Path, tmp_path: Path) -> None:
    """As the form of a run may give them; the command line takes no empty text at all."""
    (tmp_path / "xbd.dvc").write_text(RECORD)
    with pytest.raises(FetchError, match=r"does not say where its data are stored\. Give --remote"):
        find_version(DvcFile(tmp_path / "xbd.dvc"), "")
    with pytest.raises(FetchError, match=r"the revision is empty\. Give --revision"):
        find_version(Revision(str(repository), "", "data/xbd"))


def test_what_a_stage_made_is_found_in_the_lock(repository: Path, remote: Path) -> None:
    version = find_version(Revision(str(repository), "main", "data/prepared"))
    assert (version.path, version.md5, version.url) == ("data/prepared", "1" * 32, str(remote))


def test_a_bare_repository_has_its_settings_in_the_revision(repository: Path, remote: Path) -> None:
    bare = repository.with_name("bare.git")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(repository), str(bare)], check=True)
    assert find_version(Revision(str(bare), "main", "data/xbd")).url == str(remote)


def test_settings_of_this_machine_count_in_a_working_tree(repository: Path, tmp_path: Path) -> None:
    settings = f"['remote \"storage\"']\n    url = {tmp_path / 'mirror'}\n"
    (repository / ".dvc" / "config.local").write_text(settings)
    assert find_version(Revision(str(repository), "main", "data/xbd")).url == str(tmp_path / "mirror")


def test_data_that_have_a_remote_of_their_own_are_found_there(repository: Path, tmp_path: Path) -> None:
    with (repository / ".dvc" / "config").open("a") as settings:
        settings.write(f"['remote \"Mirror\"']\n    url = {tmp_path / 'mirror'}\n")
    with (repository / "data" / "xbd.dvc").open("a") as record:
        record.write("  remote: Mirror\n")
    commit(repository)
    assert find_version(Revision(str(repository), "main", "data/xbd")).url == str(tmp_path / "mirror")


def test_a_given_remote_goes_before_that_of_the_repository(repository: Path, tmp_path: Path) -> None:
    version = find_version(Revision(str(repository), "main", "data/xbd"), str(tmp_path / "given"))
    assert version.url == str(tmp_path / "given")


@pytest.mark.parametrize(
    ("revision", "data", "said"),
    [
        ("nope", "data/xbd", "at nope: git says: couldn't find remote ref nope. "),
        ("main", "data/sample", "data/sample: is not tracked by DVC in "),
        ("main", "data/sample", "; tracked are data/prepared, data/xbd. "),
    ],
)
def test_what_the_repository_does_not_have_is_one_line(
    revision: str, data: str, said: str, repository: Path, tmp_path: Path
) -> None:
    arguments: Arguments = ["--repo", repository, "--revision", revision, "--data", data, "--out", tmp_path / "out"]
    line = exit_line(main, *arguments)
    assert line.startswith("FetchError: ")
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "has no default remote. Add one, or give --remote."),
        ("[core\n", "config file error"),
        ("[core]\n    remote = other\n", "remote 'other' doesn't exist"),
    ],
)
def test_settings_without_a_usable_remote_are_one_line(
    settings: str, said: str, repository: Path, tmp_path: Path
) -> None:
    (repository / ".dvc" / "config").write_text(settings)
    commit(repository)
    for location in (repository, repository.as_uri()):
        arguments: Arguments = ["--repo", location, "--revision", "main", "--data", "data/xbd"]
        line = exit_line(main, *arguments, "--out", tmp_path / "out")
        assert line.startswith("FetchError: ")
        assert said in line


def test_a_repository_that_cannot_be_reached_is_one_line_without_its_token(tmp_path: Path) -> None:
    arguments: Arguments = ["--revision", "main", "--data", "data/xbd", "--out", tmp_path / "out"]
    line = exit_line(main, "--repo", "http://user:token@127.0.0.1:1/data.git", *arguments)
    assert line.startswith("FetchError: http://127.0.0.1:1/data.git at main: git says: unable to access ")
    assert "token" not in line
    line = exit_line(main, "--repo", tmp_path, *arguments)
    assert line.startswith(f"FetchError: {tmp_path} at main: git says: '{tmp_path}' does not appear to be a git repo")


def test_an_address_for_ssh_is_one_line_where_there_is_no_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    arguments: Arguments = ["--revision", "main", "--data", "data/xbd", "--out", tmp_path / "out"]
    line = exit_line(main, "--repo", "git@example.org:maps/xbd.git", *arguments)
    assert line == (
        "FetchError: git@example.org:maps/xbd.git at main: is an address for ssh, which is not installed here, nor in "
        "the image. Give the https:// address of the repository, or the version itself: --version and --remote."
    )
