"""Start weights by path or hub id: the real hub client against a small server here, no server, and its cache."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from components.storage.hub import PretrainedError, find_pretrained
from tests.commands import assert_one_line, environment

CONTENT = b"weights" * 1000
COMMIT = "0123456789" * 4
URL = "https://huggingface.co/owner/name/resolve/main/model.safetensors"
FIND = """
import sys
from components.cli import errors_in_one_line
from components.storage.hub import find_pretrained
with errors_in_one_line():
    print(find_pretrained(sys.argv[1]))
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for owner/name at main, v1 and its commit; its errors for everything else."""

    def do_HEAD(self) -> None:
        match = re.fullmatch(r"/owner/(\w+)/resolve/(\w+)/model\.safetensors", self.path)
        error = "RepoNotFound" if match is None or match[1] == "missing" else None
        if match and match[1] == "empty":
            error = "EntryNotFound"
        elif match and match[2] not in ("main", "v1", COMMIT):
            error = "RevisionNotFound"
        elif match and match[1] == "broken":
            error = "Broken"
        self.send_response({None: 200, "Broken": 500}.get(error, 404))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0" if error else str(len(CONTENT)))
        self.send_header("X-Error-Code" if error else "ETag", error or '"e1"')
        self.end_headers()
        if error is None and self.command == "GET":
            self.wfile.write(CONTENT)

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def find(source: str, hub: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the client reads where the hub and the cache are when it is imported."""
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache / "hub")}
    variables = environment(**settings, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    command = [sys.executable, "-c", FIND, source]
    return subprocess.run(command, cwd=cache, env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("source", ["owner/name", "owner/name@v1", f"owner/name@{COMMIT}"])
def test_a_hub_id_is_fetched_once_and_then_needs_no_network(source: str, hub: str, tmp_path: Path) -> None:
    first = find(source, hub, tmp_path)
    assert first.returncode == 0, first.stderr
    path = Path(first.stdout.strip())
    assert path.name == "model.safetensors"
    assert path.read_bytes() == CONTENT
    again = find(source, "http://127.0.0.1:9", tmp_path)
    assert again.stdout == first.stdout, again.stderr


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("owner/missing", "no such repository"),
        ("owner/empty", "has no model.safetensors"),
        ("owner/name@v2", "has no revision v2"),
        ("owner/broken", "cannot be reached"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(source: str, finding: str, hub: str, tmp_path: Path) -> None:
    result = find(source, hub, tmp_path)
    name, _, revision = source.partition("@")
    url = f"https://huggingface.co/{name}/resolve/{revision or 'main'}/model.safetensors"
    assert_one_line(result, f"PretrainedError: {source}: ", finding, url, "set train.pretrained to the path")


def test_without_a_network_there_is_one_line_within_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    result = find("owner/name", "http://127.0.0.1:9", tmp_path)  # the discard port: nobody listens
    assert time.monotonic() - started < 8
    assert_one_line(result, "owner/name: the hub cannot be reached", URL, "set train.pretrained to the path")


def test_a_host_without_a_name_is_one_line_within_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    result = find("owner/name", "https://hub.invalid", tmp_path)
    assert time.monotonic() - started < 15
    assert_one_line(result, "owner/name: the hub cannot be reached", URL)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a", "owner/name"])
def test_an_existing_file_is_taken_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find_pretrained(str(path)) == path
    assert find_pretrained(name) == Path(name)


@pytest.mark.parametrize(
    "source", ["a.pth", "b/a.pt", "owner/name.bin", "c/model.safetensors", "./a/b", "../a", "/x/y", "."]
)
def test_a_path_that_is_no_file_is_not_looked_for_on_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PretrainedError, match="expected a weight file") as caught:
        find_pretrained(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "train.pretrained" in str(caught.value)


@pytest.mark.parametrize("source", ["", "name", "a/b/c", "a/b@", "a b/c", "owner/name@a b", "-a/b--c", "a/b\nc"])
def test_what_is_neither_a_path_nor_a_hub_id_is_one_line(source: str) -> None:
    with pytest.raises(PretrainedError, match="neither a file nor a hub id") as caught:
        find_pretrained(source)
    assert repr(source) in str(caught.value)
    assert "\n" not in str(caught.value)
