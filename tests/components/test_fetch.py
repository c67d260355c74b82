"""Fetching a raw version from real DVC remotes on S3, with what can go wrong on the way."""

import os
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

from components.fetch import main
from tests.components.dvc_versions import Arguments, md5_of, objects_in, write_version
from tests.conftest import assert_one_line, commit, dvc, environment, run_step, succeed, tree
from tests.servers.s3_server import S3Server

CHANGED = "train/labels/tiny-flood_00000000_post_disaster.json"
ADDED = "test/labels/tiny-flood_00000010_notes.json"
LOST = "test/images/tiny-fire_00000000_pre_disaster.png"
CORRUPTED = "train/images/tiny-flood_00000003_post_disaster.png"


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
