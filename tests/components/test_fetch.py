"""Fetching a raw version: from real DVC remotes, on S3 and in folders, with what can go wrong on the way."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from base.errors import InputError
from components.fetch import fetch, main
from components.storage.dvc import DvcFile, FetchError, find_version
from tests.conftest import assert_one_line, commit, dvc, environment, exit_line, run_step, succeed, tree
from tests.servers.s3_server import S3Server

CHANGED = "train/labels/tiny-flood_00000000_post_disaster.json"
ADDED = "test/labels/tiny-flood_00000010_notes.json"
LOST = "test/images/tiny-fire_00000000_pre_disaster.png"
CORRUPTED = "train/images/tiny-flood_00000003_post_disaster.png"

Arguments = list[str | Path]


@dataclass(frozen=True)
class Published:
    """A git repository with two versions of data/xbd, tags v1 and v2, which real DVC pushed to S3."""

    repository: Path
    prefix: str
    versions: dict[str, str]
    contents: dict[str, dict[str, bytes]]

    def dvc_file(self, tag: str, folder: Path) -> Path:
        """The .dvc file of a version, alone in a folder."""
        command = ["git", "show", f"{tag}:data/xbd.dvc"]
        shown = subprocess.run(command, cwd=self.repository, capture_output=True, check=True).stdout
        (folder / "xbd.dvc").write_bytes(shown)
        return folder / "xbd.dvc"


@pytest.fixture(scope="module")
def published(raw: Path, aws: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Published:
    repository = tmp_path_factory.mktemp("published")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=repository, check=True)
    dvc(repository, "init", "--quiet")
    dvc(repository, "remote", "add", "--default", "storage", "s3://dvc/published")
    data = repository / "data" / "xbd"
    versions, contents = {}, {}
    for tag in ("v1", "v2"):
        if tag == "v1":
            shutil.copytree(raw, data)
        else:
            (data / CHANGED).unlink()  # DVC may have linked it to its cache
            (data / CHANGED).write_text("{}")
            (data / ADDED).write_text("[]")
        dvc(repository, "add", "data/xbd")
        dvc(repository, "push", **aws)
        commit(repository)
        subprocess.run(["git", "tag", tag], cwd=repository, check=True)
        record = yaml.safe_load((repository / "data" / "xbd.dvc").read_text(encoding="utf-8"))
        versions[tag], contents[tag] = record["outs"][0]["md5"], tree(data)
    return Published(repository, "published", versions, contents)


@pytest.fixture
def own_prefix(published: Published, s3: S3Server, request: pytest.FixtureRequest) -> str:
    """A copy of the remote that the test may damage: its prefix in the bucket dvc."""
    client, prefix = s3.client(), f"copies/{request.node.name}"
    for key in keys(client, published.prefix):
        source = {"Bucket": "dvc", "Key": key}
        client.copy_object(Bucket="dvc", Key=prefix + key.removeprefix(published.prefix), CopySource=source)
    return prefix


def keys(client: Any, prefix: str) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket="dvc", Prefix=f"{prefix}/")["Contents"]]


def key_of(prefix: str, md5: str) -> str:
    return f"{prefix}/files/md5/{md5[:2]}/{md5[2:]}"


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def objects_in(cache: Path) -> set[str]:
    """Hashes of the objects in a DVC cache; each must be what its name says."""
    found = {path.parent.name + path.name: path.read_bytes() for path in cache.glob("files/md5/*/*")}
    for md5, content in found.items():
        assert md5_of(content) == md5.removesuffix(".dir")
    return set(found)


# From S3


def test_a_dvc_file_alone_brings_the_version(published: Published, aws: dict[str, str], tmp_path: Path) -> None:
    file = published.dvc_file("v1", tmp_path)
    arguments: Arguments = ["--dvc-file", file, "--remote", "s3://dvc/published", "--out", "new/xbd"]
    assert succeed("fetch", *arguments, cwd=tmp_path, **aws) == f"{published.versions['v1']}\n"
    assert tree(tmp_path / "new" / "xbd") == published.contents["v1"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".xbd.cache", "xbd"]


@pytest.mark.parametrize(("name", "tag", "as_url"), [("v1", "v1", True), ("main", "v2", False), ("hash", "v1", True)])
def test_a_revision_of_a_repository_brings_its_version(
    name: str, tag: str, as_url: bool, published: Published, aws: dict[str, str], tmp_path: Path
) -> None:
    if name == "hash":
        command = ["git", "rev-parse", "v1"]
        name = subprocess.run(command, cwd=published.repository, capture_output=True, text=True).stdout.strip()
    repository = published.repository.as_uri() if as_url else published.repository
    before = tree(published.repository)
    arguments: Arguments = ["--repo", repository, "--revision", name, "--data", "data/xbd/", "--out", "xbd"]
    assert succeed("fetch", *arguments, cwd=tmp_path, **aws) == f"{published.versions[tag]}\n"
    assert tree(tmp_path / "xbd") == published.contents[tag]
    assert tree(published.repository) == before


def test_what_is_there_already_is_kept_and_needs_no_server(
    published: Published, aws: dict[str, str], tmp_path: Path
) -> None:
    arguments: Arguments = [
        "--dvc-file",
        published.dvc_file("v1", tmp_path),
        "--remote",
        "s3://dvc/published",
        "--out",
        "xbd",
    ]
    first = succeed("fetch", *arguments, cwd=tmp_path, **aws)

    def files() -> dict[Path, tuple[int, int]]:
        found = [(path, path.stat()) for path in (tmp_path / "xbd").rglob("*")]
        return {path: (status.st_ino, status.st_mtime_ns) for path, status in found}

    before = files()
    assert succeed("fetch", *arguments, cwd=tmp_path, **aws | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}) == first
    assert files() == before


def test_another_version_takes_its_place_and_only_what_is_new_is_downloaded(
    published: Published, own_prefix: str, s3: S3Server, aws: dict[str, str], tmp_path: Path
) -> None:
    remote: Arguments = ["--remote", f"s3://dvc/{own_prefix}", "--out", "xbd"]
    succeed("fetch", "--dvc-file", published.dvc_file("v1", tmp_path), *remote, cwd=tmp_path, **aws)
    client = s3.client()
    for md5 in objects_in(tmp_path / ".xbd.cache"):
        client.delete_object(Bucket="dvc", Key=key_of(own_prefix, md5))
    assert len(keys(client, own_prefix)) == 3  # the new list of files, the changed one and the added one
    succeed("fetch", "--dvc-file", published.dvc_file("v2", tmp_path), *remote, cwd=tmp_path, **aws)
    assert tree(tmp_path / "xbd") == published.contents["v2"]


@pytest.mark.slow
def test_lost_and_corrupted_files_are_named_and_the_line_says_how_to_repair_them(
    published: Published, own_prefix: str, s3: S3Server, aws: dict[str, str], tmp_path: Path
) -> None:
    client, contents = s3.client(), published.contents["v2"]
    lost, corrupted = (key_of(own_prefix, md5_of(contents[path])) for path in (LOST, CORRUPTED))
    client.delete_object(Bucket="dvc", Key=lost)
    client.put_object(Bucket="dvc", Key=corrupted, Body=contents[CORRUPTED][:-1] + b"?")  # of the same size
    file = published.dvc_file("v2", tmp_path)
    arguments: Arguments = ["--dvc-file", file, "--remote", f"s3://dvc/{own_prefix}", "--out", "new/xbd"]
    result = run_step("fetch", *arguments, cwd=tmp_path, **aws)
    directory = tmp_path / "xbd"  # what the .dvc file stands beside
    assert_one_line(
        result,
        "FetchError: ",
        f"{directory}/{LOST} is missing (s3://dvc/{lost})",
        f"{directory}/{CORRUPTED} is corrupted (s3://dvc/{corrupted})",
    )
    assert result.stdout == ""
    # No file but the sound ones, which the next run finds in the cache.
    assert os.listdir(tmp_path / "new") == [".xbd.cache"]
    sound = {md5_of(content) for path, content in contents.items() if path not in (LOST, CORRUPTED)}
    assert objects_in(tmp_path / "new" / ".xbd.cache") == sound | {published.versions["v2"]}
    # The remedy of the line, word by word; a push alone would find everything up to date.
    whole = tmp_path / "whole"
    shutil.copytree(published.repository, whole, symlinks=True)
    dvc(whole, "remote", "modify", "storage", "url", f"s3://dvc/{own_prefix}")
    dvc(whole, "push", **aws)
    assert lost not in keys(client, own_prefix)
    manifest = key_of(own_prefix, published.versions["v2"])
    assert f"delete the corrupted objects and s3://dvc/{manifest}, then run `dvc push`" in result.stderr
    for key in (corrupted, manifest):
        client.delete_object(Bucket="dvc", Key=key)
    dvc(whole, "push", **aws)
    succeed("fetch", *arguments, cwd=tmp_path, **aws)
    assert tree(tmp_path / "new" / "xbd") == contents


@pytest.mark.parametrize(
    ("remote", "environment", "said"),
    [
        ("s3://dvc/published", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "Forbidden"),
        ("s3://no-such-bucket/published", {}, "The specified bucket does not exist"),
        ("s3://dvc/no-such-prefix", {}, "no-such-prefix"),
        ("s3://dvc/published", {"AWS_PROFILE": "nobody"}, "(nobody) could not be found"),
        pytest.param(
            "s3://dvc/published",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            'Could not connect to the endpoint URL: "http://127.0.0.1:1',
            marks=pytest.mark.slow,
        ),
    ],
    ids=["secret", "bucket", "prefix", "profile", "network"],
)
def test_a_remote_that_does_not_give_the_data_is_one_line_and_nothing_is_written(
    remote: str, environment: dict[str, str], said: str, published: Published, aws: dict[str, str], tmp_path: Path
) -> None:
    file = published.dvc_file("v1", tmp_path)
    before = tree(tmp_path)
    arguments: Arguments = ["--dvc-file", file, "--remote", remote, "--out", "new/xbd"]
    result = run_step("fetch", *arguments, cwd=tmp_path, **aws | environment)
    assert_one_line(result, "FetchError: ", str(tmp_path / "xbd"), remote, said)
    assert result.stdout == ""
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_killed_fetch_leaves_no_output_and_the_next_one_goes_on(
    s3: S3Server, aws: dict[str, str], tmp_path: Path
) -> None:
    """The large file is still on its way when the small ones are there."""
    contents = {f"small/{number}": b"%d" % number for number in range(5)} | {"large": os.urandom(40_000_000)}
    client, prefix = s3.client(), "killed"

    def put(md5: str, content: bytes) -> None:
        client.put_object(Bucket="dvc", Key=key_of(prefix, md5), Body=content)

    file = write_version(contents, tmp_path, put)
    command = [sys.executable, "-m", "components.fetch", "--dvc-file", str(file), "--remote", f"s3://dvc/{prefix}"]
    process = subprocess.Popen([*command, "--out", "xbd"], cwd=tmp_path, env=environment(**aws))
    small = {md5_of(content) for path, content in contents.items() if path != "large"}
    cache = tmp_path / ".xbd.cache"

    def there() -> set[str]:
        return small & {path.parent.name + path.name for path in cache.glob("files/md5/*/*")}

    while not there():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "xbd").exists()
    for md5 in there():  # what is there is not asked for again
        client.delete_object(Bucket="dvc", Key=key_of(prefix, md5))
    succeed("fetch", *command[3:], "--out", "xbd", cwd=tmp_path, **aws)
    assert tree(tmp_path / "xbd") == contents
    assert sorted(path.name for path in tmp_path.iterdir()) == [".xbd.cache", "xbd", "xbd.dvc"]


def test_an_s3_output_holds_one_version(
    published: Published, s3: S3Server, aws: dict[str, str], tmp_path: Path
) -> None:
    arguments: Arguments = ["--remote", "s3://dvc/published", "--out", "s3://dvc/fetched"]
    own = aws | {"DUAL_HRNET_CACHE": str(tmp_path / "scratch")}
    v1: Arguments = ["--dvc-file", published.dvc_file("v1", tmp_path), *arguments]
    for _ in range(2):
        assert succeed("fetch", *v1, cwd=tmp_path, **own) == f"{published.versions['v1']}\n"
        assert keys(s3.client(), "fetched") == sorted(f"fetched/{path}" for path in published.contents["v1"])
    put = s3.client().put_object
    put(Bucket="dvc", Key="fetched/notes.txt", Body=b"mine")
    assert_one_line(run_step("fetch", *v1, cwd=tmp_path, **own), "s3://dvc/fetched", "notes.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "xbd.dvc"]


# From a remote in a folder, without a server


def write_version(contents: dict[str, bytes], folder: Path, put: Any) -> Path:
    """Writes a version by hand as DVC 3 stores it, `put(md5, content)` an object; returns its .dvc file."""
    entries = [{"md5": md5_of(content), "relpath": path} for path, content in sorted(contents.items())]
    manifest = json.dumps(entries, sort_keys=True).encode()
    version = f"{md5_of(manifest)}.dir"
    put(version, manifest)
    for content in contents.values():
        put(md5_of(content), content)
    file = folder / "xbd.dvc"
    file.write_text(yaml.safe_dump({"outs": [{"md5": version, "hash": "md5", "path": "xbd"}]}))
    return file


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--remote", "s3://dvc/x"],
        ["--dvc-file", "xbd.dvc"],
        ["--dvc-file", "xbd.dvc", "--remote", "s3://dvc/x", "--revision", "main"],
        ["--repo", ".", "--revision", "main"],
        ["--repo", ".", "--dvc-file", "xbd.dvc", "--remote", "s3://dvc/x"],
    ],
)
def test_arguments_that_name_no_version_or_two_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--out", "out"])
    assert caught.value.code == 2
