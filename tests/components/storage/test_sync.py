"""A folder and a location on a real S3 server: what a sync moves, deletes, leaves alone and refuses."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.stac import ITEM
from components.storage import sync
from components.storage.s3 import StorageError, Store
from imagery.shards.stored import SHARD
from model.inference import CONFIG
from model.train.checkpoint_folder import DESCRIPTION
from tests.comparing import tree
from tests.components.storage.s3_objects import everything, put, remote_tree, requests_of, use_server, write
from tests.servers.s3_server import S3Server
from xbd.scenes import INDEX, is_prepared_file

FILES = {
    "index.csv": b"scene,split\n",
    "empty": b"",
    "scenes/a b+c%20d&e#f.npy": b"1" * 3000,
    "scenes/Überschwemmung 洪水 🛰.npy": b"2" * 3000,
    "scenes/deep/er/.hidden": b"3",
}


def test_what_goes_up_comes_down_byte_for_byte(server: S3Server, uri: str, tmp_path: Path) -> None:
    sync.upload(write(tmp_path / "here", FILES), Store(uri))
    assert remote_tree(server, uri) == FILES
    assert sync.download(Store(uri), tmp_path / "there") == tmp_path / "there"
    assert tree(tmp_path / "there") == FILES


def test_a_browser_is_told_what_a_file_is(server: S3Server, uri: str, tmp_path: Path) -> None:
    kinds = {"report.html": "text/html", "report/a.jpg": "image/jpeg", "report/b.js": "text/javascript"}
    sync.upload(write(tmp_path / "here", dict.fromkeys(kinds, b"x")), Store(uri))
    client, prefix = server.client(), uri.removeprefix("s3://data/")
    for name, kind in kinds.items():
        found = client.head_object(Bucket="data", Key=f"{prefix}/{name}")["ContentType"]
        assert found.replace("application/javascript", "text/javascript") == kind


def test_a_large_file_goes_in_parts_both_ways_and_its_checksum_is_one_of_the_whole(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.storage.s3.PART_SIZE", 5 * 2**20)  # the smallest that S3 allows
    content = os.urandom(11 * 2**20)
    up, down = Store(uri), Store(uri)
    seen = requests_of(up)
    sync.upload(write(tmp_path / "here", {"large": content}), up)
    assert [operation for operation, _ in seen].count("UploadPart") == 3
    bucket, key = up.bucket, f"{up.prefix}/large"
    head = server.client().head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert (head["ChecksumType"], "-3" in head["ETag"]) == ("FULL_OBJECT", True)
    seen = requests_of(down)
    sync.download(down, tmp_path / "there")
    assert [operation for operation, _ in seen].count("GetObject") == 3
    assert (tmp_path / "there" / "large").read_bytes() == content


def test_a_second_sync_asks_for_one_listing_and_moves_nothing(server: S3Server, uri: str, tmp_path: Path) -> None:
    write(tmp_path / "here", FILES)
    for run in range(2):
        up, down = Store(uri), Store(uri)
        uploaded, downloaded = requests_of(up), requests_of(down)
        sync.upload(tmp_path / "here", up, everything)
        sync.download(down, tmp_path / "there")
        moved = [operation for operation, _ in uploaded + downloaded if operation in ("PutObject", "GetObject")]
        assert len(moved) == (0 if run else 2 * len(FILES))
    assert [operation for operation, _ in uploaded] == ["ListObjectsV2"]
    assert [operation for operation, _ in downloaded] == ["ListObjectsV2"]


def test_only_what_changed_is_moved_and_what_is_gone_is_deleted(server: S3Server, uri: str, tmp_path: Path) -> None:
    here, there = write(tmp_path / "here", {"a": b"1", "b": b"2", "folder/c": b"3"}), tmp_path / "there"
    sync.upload(here, Store(uri), everything)
    sync.download(Store(uri), there)
    write(here, {"a": b"4", "new/d": b"5"})
    (here / "folder" / "c").unlink()
    up, down = Store(uri), Store(uri)
    uploaded, downloaded = requests_of(up), requests_of(down)
    sync.upload(here, up, everything)
    sync.download(down, there)
    expected = {"a": b"4", "b": b"2", "new/d": b"5"}
    assert remote_tree(server, uri) == tree(there) == expected
    assert not (there / "folder").exists()
    keys = {f"{up.prefix}/{name}" for name in ("a", "new/d")}
    assert {key for operation, key in uploaded if operation == "PutObject"} == keys
    assert {key for operation, key in downloaded if operation == "GetObject"} == keys


@pytest.mark.parametrize("content", [b"12", b"", b"654321", None], ids=["truncated", "empty", "altered", "deleted"])
def test_a_damaged_copy_is_fetched_again_and_nothing_else(
    content: bytes | None, server: S3Server, uri: str, tmp_path: Path
) -> None:
    files = {"a": b"123456", "b": b"7"}
    sync.upload(write(tmp_path / "here", files), Store(uri))
    sync.download(Store(uri), tmp_path / "there")
    damaged = tmp_path / "there" / "a"
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    (tmp_path / "there" / "strange").write_bytes(b"8")
    store = Store(uri)
    seen = requests_of(store)
    sync.download(store, tmp_path / "there")
    assert tree(tmp_path / "there") == files
    assert [operation for operation, _ in seen] == ["ListObjectsV2", "GetObject", "HeadObject"]


def test_an_upload_keeps_what_others_put_beside_it(server: S3Server, uri: str, tmp_path: Path) -> None:
    put(server, f"{uri}/evaluate/metrics.json", b"{}")
    here = write(tmp_path / "here", {"a": b"1", "b": b"2"})
    sync.upload(here, Store(uri))
    (here / "b").unlink()
    sync.upload(here, Store(uri))
    assert remote_tree(server, uri) == {"a": b"1", "evaluate/metrics.json": b"{}"}
    (here / "a").unlink()
    put(server, f"{uri}/a", b"of someone else")
    sync.upload(here, Store(uri))
    assert remote_tree(server, uri) == {"a": b"of someone else", "evaluate/metrics.json": b"{}"}


def test_a_location_that_holds_something_else_is_not_replaced(server: S3Server, uri: str, tmp_path: Path) -> None:
    put(server, f"{uri}/thesis.pdf", b"years")
    here = write(tmp_path / "here", {"index.csv": b"1"})
    for attempt in (sync.claim, sync.upload):
        with pytest.raises(StorageError, match=r"thesis\.pdf: would be deleted by writing .* anew"):
            attempt(here, Store(uri), is_prepared_file)
    assert remote_tree(server, uri) == {"thesis.pdf": b"years"}


def test_a_folder_that_is_no_copy_is_not_replaced(server: S3Server, uri: str, tmp_path: Path) -> None:
    put(server, f"{uri}/a", b"1")
    mine = write(tmp_path / "mine", {"thesis.pdf": b"years"})
    with pytest.raises(StorageError, match=r"mine: holds files and is no copy of s3://"):
        sync.download(Store(uri), mine)
    assert tree(mine) == {"thesis.pdf": b"years"}
    sync.download(Store(uri), tmp_path / "copy")
    put(server, f"{uri}-other/b", b"2")
    with pytest.raises(StorageError, match=r"copy: holds files and is no copy of s3://.*-other"):
        sync.download(Store(f"{uri}-other"), tmp_path / "copy")
    assert tree(tmp_path / "copy") == {"a": b"1"}


def test_the_markers_are_what_data_sets_models_checkpoints_shards_and_delivered_maps_are_read_by() -> None:
    assert set(sync.MARKERS) == {INDEX, CONFIG, DESCRIPTION, SHARD, ITEM}


def test_a_marker_goes_first_and_comes_last_in_the_folders_that_it_speaks_for(
    server: S3Server, uri: str, tmp_path: Path
) -> None:
    here = write(tmp_path / "here", {"index.csv": b"i", "scenes/a": b"1", "scenes/b": b"2", "model/config.json": b"{}"})
    sync.upload(here, Store(uri), everything)
    write(here, {"scenes/a": b"3"})
    (here / "scenes" / "b").unlink()
    store = Store(uri)
    seen = requests_of(store)
    sync.upload(here, store, everything)
    short = [(operation, key.removeprefix(f"{store.prefix}/")) for operation, key in seen]
    assert [call for call in short if call[0] not in ("HeadObject", "ListObjectsV2")] == [
        ("DeleteObjects", "?delete"),  # the marker
        ("DeleteObjects", "?delete"),  # the other one
        ("PutObject", "scenes/a"),
        ("PutObject", "index.csv"),
    ]
    assert remote_tree(server, uri) == tree(here)


def test_temporary_files_of_steps_are_not_data(server: S3Server, uri: str, tmp_path: Path) -> None:
    rubbish = {".history.csv.partial": b"1", ".model.replaced/config.json": b"2", "a/.set.sync/lock": b""}
    sync.upload(write(tmp_path / "here", {".gitignore": b"3", **rubbish}), Store(uri))
    assert remote_tree(server, uri) == {".gitignore": b"3"}
    put(server, f"{uri}/.b.partial", b"4")
    put(server, f"{uri}/folder/", b"")
    assert tree(sync.download(Store(uri), tmp_path / "there")) == {".gitignore": b"3"}


def test_linked_files_are_read_through_their_links(server: S3Server, uri: str, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"file": b"1", "folder/file": b"2"})
    (tmp_path / "here").mkdir()
    for name in ("file", "folder"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "elsewhere" / name)
    sync.upload(tmp_path / "here", Store(uri))
    assert remote_tree(server, uri) == {"file": b"1", "folder/file": b"2"}


def test_a_key_that_would_leave_the_folder_is_refused(server: S3Server, uri: str, tmp_path: Path) -> None:
    store = Store(uri)
    store.list_objects()
    store.client.meta.events.register(
        "after-call.s3.ListObjectsV2",
        lambda parsed, **_: parsed.update(Contents=[{"Key": f"{store.prefix}/../out", "Size": 1, "ETag": '"a"'}]),
    )
    with pytest.raises(StorageError, match=r"/\.\./out: cannot be the name of a file"):
        sync.download(store, tmp_path / "there")


@pytest.fixture(scope="module")
def module_server(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """As `server`, for tests that run many times."""
    with pytest.MonkeyPatch.context() as patch:
        use_server(s3, tmp_path_factory.mktemp("cache"), patch)
        yield s3


NAMES = st.sampled_from(["index.csv", "a", "b/c", "b/config.json", "b/d/e"])
CHANGES = st.lists(st.tuples(st.sampled_from(["here", "there", "location"]), NAMES, st.binary(max_size=2) | st.none()))


@settings(max_examples=10)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_whatever_happens_between_two_syncs_all_three_are_equal_after_them(
    module_server: S3Server, tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str, bytes | None]]]
) -> None:
    root = tmp_path_factory.mktemp("rounds")
    here, there = write(root / "here", {"first": b"1"}), root / "there"
    store, client = Store(f"s3://data/{root.parent.name}/{root.name}"), module_server.client()
    for changes in [[], *rounds]:
        for side, name, content in changes:
            key = f"{store.prefix}/{name}"
            if side == "location" and content is None:
                client.delete_object(Bucket=store.bucket, Key=key)
            elif side == "location":
                client.put_object(Bucket=store.bucket, Key=key, Body=content)
            elif content is None:
                (root / side / name).unlink(missing_ok=True)
            else:
                write(root / side, {name: content})
        sync.upload(here, store, everything)
        sync.download(store, there)
        found = {
            name: client.get_object(Bucket=store.bucket, Key=one.key)["Body"].read()
            for name, one in store.list_objects().items()
        }
        assert tree(here) == tree(there) == found
