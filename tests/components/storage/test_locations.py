"""Locations as steps see them: paths, copies and outputs on a real S3 server, runs that go on, and wrong settings."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from base.errors import InputError
from components.storage.locations import growing_output, join, local_input, local_output
from components.storage.s3 import StorageError, Store
from tests.comparing import tree
from tests.components.storage.s3_objects import put, remote_tree, remove, write
from tests.servers.s3_server import KEY, SECRET, S3Server
from xbd.scenes import is_prepared_file


def test_a_path_is_given_as_it_is(tmp_path: Path) -> None:
    for location in (tmp_path / "a", str(tmp_path / "a"), "a/b", "./s3"):
        with local_input(location) as path, local_output(location) as out:
            assert path == out == Path(location)
    assert list(tmp_path.iterdir()) == []


def test_a_location_of_one_object_is_a_file(server: S3Server, uri: str) -> None:
    put(server, f"{uri}/run.json", b"{}")
    put(server, f"{uri}/run.json.old", b"[]")
    with local_input(f"{uri}/run.json") as path:
        assert (path.name, path.read_bytes()) == ("run.json", b"{}")
    put(server, f"{uri}/run.json", b"{1}")
    with local_input(f"{uri}/run.json") as path:
        assert (path.name, path.read_bytes()) == ("run.json", b"{1}")
        assert len(list(path.parent.iterdir())) == 1


def test_locations_that_contain_each_other_have_copies_of_their_own(server: S3Server, uri: str) -> None:
    for name in ("a", "b/c"):
        put(server, f"{uri}/{name}", name.encode())
    with local_input(uri) as whole, local_input(f"{uri}/b/") as part, local_input(f"{uri}/b") as same:
        assert tree(whole) == {"a": b"a", "b/c": b"b/c"}
        assert tree(part) == {"c": b"b/c"}
        assert part == same


def test_an_output_goes_up_when_the_block_ends_and_not_when_it_fails(server: S3Server, uri: str) -> None:
    with pytest.raises(ZeroDivisionError), local_output(uri) as folder:
        write(folder, {"a": b"1"})
        raise ZeroDivisionError
    assert remote_tree(server, uri) == {}
    with local_output(uri) as folder:
        assert not folder.exists()
        write(folder, {"b": b"2"})
        assert remote_tree(server, uri) == {}
    assert remote_tree(server, uri) == {"b": b"2"}
    assert not folder.exists()


def test_a_replaced_output_leaves_nothing_stale_and_is_not_fetched_again_where_it_was_made(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, f"{uri}/scenes/stale.npy", b"0")
    with local_output(uri, replaces=is_prepared_file) as folder:
        write(folder, {"index.csv": b"1", "scenes/a.npy": b"2"})
    assert remote_tree(server, uri) == {"index.csv": b"1", "scenes/a.npy": b"2"}
    before = (folder / "scenes" / "a.npy").stat().st_mtime_ns
    with local_input(uri) as path:
        assert (path / "scenes" / "a.npy").stat().st_mtime_ns == before
    monkeypatch.setenv("DUAL_HRNET_CACHE", str(tmp_path / "other machine"))
    with local_output(uri, replaces=is_prepared_file) as folder:
        write(folder, {"index.csv": b"3"})
    assert remote_tree(server, uri) == {"index.csv": b"3"}


def test_a_failed_replacement_does_not_stand_in_the_way_of_reading(server: S3Server, uri: str) -> None:
    put(server, f"{uri}/index.csv", b"1")
    with pytest.raises(ZeroDivisionError), local_output(uri, replaces=is_prepared_file) as folder:
        write(folder, {"index.csv": b"2", "scenes/a.npy": b"3"})
        raise ZeroDivisionError
    with local_input(uri) as path:
        assert tree(path) == {"index.csv": b"1"}


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Moves the test to a machine of that name: to a cache of its own."""
    return lambda name: monkeypatch.setenv("DUAL_HRNET_CACHE", str(tmp_path / name))


def run(uri: str, expected: Mapping[str, bytes], files: Mapping[str, bytes], *, fails: bool = False) -> None:
    """A run that resumes: finds `expected`, writes `files`, and then ends or fails."""
    try:
        with growing_output(uri) as (folder, _):
            assert tree(folder) == expected
            write(folder, files)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def test_a_run_goes_on_where_it_was_on_this_machine_and_on_another(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = machine(tmp_path, monkeypatch)
    move("one")
    run(uri, {}, {"last.pt": b"1"}, fails=True)
    run(uri, {"last.pt": b"1"}, {"last.pt": b"2", "run.json": b"a"})
    move("two")
    run(uri, {"last.pt": b"2", "run.json": b"a"}, {"last.pt": b"3", "best": b"b"})
    move("one")
    run(uri, {"last.pt": b"3", "run.json": b"a", "best": b"b"}, {"last.pt": b"4"}, fails=True)
    run(uri, {"last.pt": b"4", "run.json": b"a", "best": b"b"}, {"last.pt": b"5"}, fails=True)
    assert remote_tree(server, uri) == {"last.pt": b"3", "run.json": b"a", "best": b"b"}
    run(uri, {"last.pt": b"5", "run.json": b"a", "best": b"b"}, {"best": b"c", "history.csv": b"h"}, fails=True)
    put(server, f"{uri}/evaluate/metrics.json", b"{}")  # of another step, and no reason to throw the run away
    mixed = {"last.pt": b"5", "run.json": b"a", "best": b"c", "history.csv": b"h", "evaluate/metrics.json": b"{}"}
    run(uri, mixed, {}, fails=True)
    move("two")
    run(uri, {"last.pt": b"3", "run.json": b"a", "best": b"b", "evaluate/metrics.json": b"{}"}, {"last.pt": b"6"})
    move("one")  # whose own best does not belong to the other's last.pt
    run(uri, mixed | {"last.pt": b"6", "best": b"b"}, {})


def test_what_a_run_deletes_goes_at_the_location_too(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = machine(tmp_path, monkeypatch)
    move("one")
    run(uri, {}, {"step_1": b"1", "step_2": b"2"})
    move("two")
    with growing_output(uri) as (folder, _):
        (folder / "step_1").unlink()
    assert remote_tree(server, uri) == {"step_2": b"2"}
    move("one")
    run(uri, {"step_2": b"2"}, {})


def test_a_run_whose_location_was_cleared_starts_anew(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch)("one")
    run(uri, {}, {"last.pt": b"1"})
    remove(server, f"{uri}/last.pt")
    run(uri, {}, {"last.pt": b"2"}, fails=True)
    run(uri, {"last.pt": b"2"}, {})
    assert remote_tree(server, uri) == {"last.pt": b"2"}


def test_errors_of_the_input_name_the_location_and_not_the_copy(server: S3Server, uri: str) -> None:
    put(server, f"{uri}/index.csv", b"1")
    with pytest.raises(InputError) as caught, local_input(uri) as path:
        raise InputError(f"{path / 'index.csv'}: is wrong.")
    assert str(caught.value) == f"{uri}/index.csv: is wrong."


def test_names_below_a_location_are_joined() -> None:
    assert join("s3://data/run/", "model") == "s3://data/run/model"
    assert join("output", "model") == "output/model"
    assert join(Path("output"), "model") == Path("output/model")


@pytest.mark.parametrize(
    "location", ["gs://a/b", "file:///a", "models:/a@b", Path("s3://data/a"), "S3://data/a"], ids=str
)
def test_a_location_of_another_kind_is_refused(location: str | Path) -> None:
    for opening in (local_input, local_output):
        with pytest.raises(StorageError, match=r"is neither a path nor of the form s3://"), opening(location):
            pass


@pytest.mark.parametrize("location", ["s3://", "s3:///a", "s3://a b/c"])
def test_a_location_without_a_bucket_is_refused(location: str) -> None:
    with pytest.raises(StorageError, match=r"does not name a bucket"):
        Store(location)


def test_a_missing_bucket_and_a_missing_prefix_are_named(server: S3Server, uri: str) -> None:
    for opening in (local_input, local_output):
        with pytest.raises(StorageError, match=rf"s3://no-such/a: {server.endpoint} has no bucket no-such\. "):
            with opening("s3://no-such/a"):
                pass
    with (
        pytest.raises(StorageError, match=rf"{uri}: nothing is there, expected .* at {server.endpoint}"),
        local_input(uri),
    ):
        pass


SETTINGS: dict[str, tuple[dict[str, str | None], str]] = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "access is refused .*SignatureDoesNotMatch.* Check the cred"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "who"}, "access is refused .*InvalidAccessKeyId.* Check the credentials"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "there are no credentials for"),
    "half": ({"AWS_SECRET_ACCESS_KEY": None}, "settings for S3 cannot be used .*Partial credentials"),
    "no profile": ({"AWS_PROFILE": "nobody"}, "settings for S3 cannot be used .*profile .nobody. could not"),
    "no server": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached .* Check AWS_END"),
    "no name": ({"AWS_ENDPOINT_URL": "http://no-such.invalid"}, "http://no-such.invalid cannot be reached"),
    "no URL": ({"AWS_ENDPOINT_URL": "localhost"}, "settings for S3 cannot be used .*Invalid endpoint"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings_are_one_line_that_names_location_and_remedy(
    name: str, server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, expected = SETTINGS[name]
    for variable, value in changes.items():
        if value is None:
            monkeypatch.delenv(variable)
        else:
            monkeypatch.setenv(variable, value)
    monkeypatch.setattr("components.storage.s3.ATTEMPTS", 1)
    with pytest.raises(StorageError, match=rf"^{uri}: .*{expected}") as caught, local_input(uri):
        pass
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_profile_in_files_is_enough(
    server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, f"{uri}/a", b"1")
    for variable in server.environment:
        monkeypatch.delenv(variable)
    (tmp_path / "config").write_text(f"[profile team]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    (tmp_path / "credentials").write_text(f"[team]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    with local_input(uri) as path:
        assert tree(path) == {"a": b"1"}
