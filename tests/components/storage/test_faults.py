"""Locations when something breaks: processes killed, a server away, bytes damaged on the way, a disk that is full."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from base.patience import Patience
from components.storage import sync
from components.storage.locations import growing_output
from components.storage.s3 import FILES_AT_ONCE, StorageError, Store
from tests.commands import assert_one_line, environment, program, run_step
from tests.comparing import tree
from tests.components.storage.s3_objects import everything, put, remote_tree, requests_of, use_server, write
from tests.servers.fault_proxy import Damage, FaultProxy, cut, flip, times
from tests.servers.s3_server import S3Server

COUNT = 90
MANY = {"index.csv": b"scene\n", **{f"scenes/{number:03}.npy": bytes([number]) * 200_000 for number in range(COUNT)}}

# Prints what it does, so that a test can wait for it: a line for every object moved.
PROGRAM = """
import sys
from pathlib import Path
from components.storage import sync
from components.storage.s3 import Store
direction, folder, uri = sys.argv[1:]
store = Store(uri)
store.client.meta.events.register(
    "after-call.s3", lambda model, **_: model.name in ("PutObject", "GetObject") and print(model.name, flush=True)
)
sync.download(store, Path(folder)) if direction == "download" else sync.upload(Path(folder), store, lambda path: True)
"""


pytestmark = pytest.mark.usefixtures("server")


def begin(direction: str, folder: Path, uri: str, after: int) -> "subprocess.Popen[str]":
    """A process that syncs, at the moment when it has moved so many objects."""
    command = [*program(PROGRAM), direction, str(folder), uri]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline(), "the sync ended before it was disturbed"
    return process


def test_a_download_that_was_killed_goes_on_where_it_was(s3: S3Server, uri: str, tmp_path: Path) -> None:
    sync.upload(write(tmp_path / "here", MANY), Store(uri))
    process = begin("download", tmp_path / "there", uri, after=COUNT // 3)
    process.kill()
    process.wait()
    there = tmp_path / "there"
    killed = tree(there)
    assert 0 < len(killed) < COUNT
    assert "index.csv" not in killed
    assert all(MANY[name] == content for name, content in killed.items())
    store = Store(uri)
    seen = requests_of(store)
    sync.download(store, there)
    assert tree(there) == MANY
    fetched = [operation for operation, _ in seen].count("GetObject")
    # A file that was moved but not yet recorded when the process was killed is moved again.
    assert len(MANY) - len(killed) <= fetched <= len(MANY) - len(killed) + FILES_AT_ONCE


def test_an_upload_that_was_killed_shows_no_whole_data_set_and_goes_on_where_it_was(
    s3: S3Server, uri: str, tmp_path: Path
) -> None:
    put(s3, f"{uri}/index.csv", b"old")
    put(s3, f"{uri}/scenes/old.npy", b"old")
    here = write(tmp_path / "here", MANY)
    process = begin("upload", here, uri, after=COUNT // 3)
    process.kill()
    process.wait()
    killed = remote_tree(s3, uri)
    assert COUNT // 3 <= len(killed) < COUNT
    assert "index.csv" not in killed
    store = Store(uri)
    seen = requests_of(store)
    sync.upload(here, store, everything)
    assert remote_tree(s3, uri) == MANY
    stored = [operation for operation, _ in seen].count("PutObject")
    assert len(MANY) - len(killed) <= stored <= len(MANY) - COUNT // 3 + FILES_AT_ONCE


def test_of_two_processes_one_fetches_and_the_other_waits(s3: S3Server, uri: str, tmp_path: Path) -> None:
    sync.upload(write(tmp_path / "here", MANY), Store(uri))
    first = begin("download", tmp_path / "there", uri, after=10)
    first.send_signal(signal.SIGSTOP)
    second = begin("download", tmp_path / "there", uri, after=0)
    assert second.stdout is not None
    assert second.stdout.readline() == f"waiting for another process, which works on {tmp_path / 'there'}\n"
    first.send_signal(signal.SIGCONT)
    assert "GetObject" not in second.communicate(timeout=60)[0]
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert tree(tmp_path / "there") == MANY


def test_the_death_of_the_one_that_fetches_lets_the_other_go_on(s3: S3Server, uri: str, tmp_path: Path) -> None:
    sync.upload(write(tmp_path / "here", MANY), Store(uri))
    first = begin("download", tmp_path / "there", uri, after=10)
    first.send_signal(signal.SIGSTOP)
    second = begin("download", tmp_path / "there", uri, after=1)  # of its lines: it waits
    first.kill()
    first.wait()
    assert "GetObject" in second.communicate(timeout=60)[0]
    assert second.returncode == 0
    assert tree(tmp_path / "there") == MANY


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may stop."""
    server = S3Server(tmp_path / "own" / "objects")
    server.start()
    use_server(server, tmp_path / "cache", monkeypatch)
    yield server
    server.stop()


def in_background(work: Callable[[], object]) -> Callable[[], None]:
    """Begins the work; the answer waits for its end and raises what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()

    def finish() -> None:
        thread.join()
        for failure in failures:
            raise failure

    return finish


@pytest.mark.endurance
def test_transfers_outlast_ten_seconds_without_a_server(own_server: S3Server, uri: str, tmp_path: Path) -> None:
    sync.upload(write(tmp_path / "here", MANY), Store(uri))
    down, up = Store(uri), Store(f"{uri}-2")
    fetched, stored = requests_of(down), requests_of(up)
    finishes = [
        in_background(lambda: sync.download(down, tmp_path / "there")),
        in_background(lambda: sync.upload(tmp_path / "here", up)),
    ]
    while len(fetched) < COUNT // 4 or len(stored) < COUNT // 4:
        time.sleep(0.01)
    own_server.stop(signal.SIGKILL)
    assert len(tree(tmp_path / "there")) < COUNT
    time.sleep(10)
    own_server.start()
    for finish in finishes:
        finish()
    assert tree(tmp_path / "there") == remote_tree(own_server, f"{uri}-2") == MANY


def test_a_server_that_stays_away_ends_the_transfer_with_one_line(
    own_server: S3Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.storage.s3.PATIENCE", Patience(away=1))
    monkeypatch.setattr("components.storage.s3.ATTEMPTS", 1)
    put(own_server, f"{uri}/a", b"1")
    store = Store(uri)
    store.client.meta.events.register_first("before-call.s3.GetObject", lambda **_: own_server.stop())
    with pytest.raises(StorageError, match=rf"^{uri}/a: {own_server.endpoint} cannot be reached \(.*\. Check"):
        sync.download(store, tmp_path / "there")
    assert tree(tmp_path / "there") == {}


@pytest.mark.endurance
def test_what_grows_is_stored_by_a_first_request_that_finds_the_server_away(
    own_server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("components.storage.s3.ATTEMPTS", 1)  # boto3's own, which outlast a restart of seconds
    with growing_output(uri) as output:
        write(output.folder, {"step_1": b"1"})
        output.upload()
        write(output.folder, {"step_2": b"2"})
        own_server.stop(signal.SIGKILL)
        finish = in_background(output.upload)
        while "Asking again" not in capfd.readouterr().err:
            time.sleep(0.01)
        own_server.start()
        finish()
        assert remote_tree(own_server, uri) == {"step_1": b"1", "step_2": b"2"}


@pytest.fixture
def through(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Damage], None]]:
    """Lets everything that the server sends to this process go through the damage."""
    proxies = []

    def open_proxy(damage: Damage) -> None:
        proxies.append(FaultProxy(s3.ports["s3"][0], damage))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxies[-1].endpoint)

    yield open_proxy
    for proxy in proxies:
        proxy.close()


SIZES = {"in one piece": 3 * 2**20, "in ranges": 11 * 2**20}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("damage", [flip(2**20), cut(2**20)], ids=["flipped", "cut off"])
def test_what_was_damaged_on_the_way_is_fetched_again(
    size: int, damage: Damage, s3: S3Server, uri: str, tmp_path: Path, through: Callable[[Damage], None]
) -> None:
    files = {"a": os.urandom(size)}
    sync.upload(write(tmp_path / "here", files), Store(uri))
    through(times(2, damage))
    sync.download(Store(uri), tmp_path / "there")
    assert tree(tmp_path / "there") == files


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_always_arrives_damaged_is_refused(
    size: int,
    s3: S3Server,
    uri: str,
    tmp_path: Path,
    through: Callable[[Damage], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("components.storage.s3.PATIENCE", Patience(away=0))
    sync.upload(write(tmp_path / "here", {"a": os.urandom(size)}), Store(uri))
    through(flip(2**20))
    with pytest.raises(StorageError, match=rf"^{uri}/a: arrives damaged \("):
        sync.download(Store(uri), tmp_path / "there")
    assert tree(tmp_path / "there") == {}


def test_an_object_that_is_replaced_while_it_is_read_is_refused(s3: S3Server, uri: str, tmp_path: Path) -> None:
    put(s3, f"{uri}/a", b"old")
    store = Store(uri)
    store.client.meta.events.register("before-call.s3.GetObject", lambda **_: put(s3, f"{uri}/a", b"new"))
    with pytest.raises(StorageError, match=r"/a: the object was replaced or removed while it was read"):
        sync.download(store, tmp_path / "there")
    assert tree(tmp_path / "there") == {}


@pytest.mark.parametrize("endpoint", ["http://user:secret@127.0.0.1:1", "http://127.0.0.1:secret"])
def test_an_endpoint_with_a_password_is_refused_and_not_repeated(
    endpoint: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=rf"^{uri}: the address of the S3 server has a ") as caught:
        Store(uri)
    assert "secret" not in str(caught.value)


LIMITED = """
import resource, sys
from components.storage.locations import local_input
from base.errors import errors_in_one_line
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with errors_in_one_line(), local_input(sys.argv[1]) as path:
    print(path)
"""


def test_a_full_disk_is_one_line_that_names_the_file(s3: S3Server, uri: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    put(s3, f"{uri}/a", b"1" * 100_000)
    command, quota = [*program(LIMITED), uri], environment(DUAL_HRNET_CACHE=str(tmp_path))
    result = subprocess.run(command, env=quota, capture_output=True, text=True)
    assert_one_line(result, str(tmp_path), "/a: File too large")


def test_a_wrong_secret_is_one_line_of_a_step(s3: S3Server, uri: str, tmp_path: Path) -> None:
    arguments = ["--model", f"{uri}/model", "--images", f"{uri}/images", "--out", f"{uri}/out"]
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong", "DUAL_HRNET_CACHE": str(tmp_path)}
    result = run_step("predict", *arguments, cwd=tmp_path, **wrong)
    assert_one_line(result, f"StorageError: {uri}/images: access is refused", "SignatureDoesNotMatch", "credentials")
