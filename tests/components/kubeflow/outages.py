"""Servers that go away while a task works, and come back when it has said so."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from base.patience import VARIABLE, News
from tests.components.storage.s3_objects import use_server
from tests.servers.s3_server import S3Server

LONGEST = 60  # seconds until an outage is told, at most
told = threading.Event()  # that a server is away


@pytest.fixture
def s3_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may stop. Locations below ROOT and the DVC remote s3://dvc/xbd are on it."""
    server = S3Server(tmp_path / "own" / "objects")
    server.start()
    use_server(server, tmp_path / "cache", monkeypatch)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv(VARIABLE, "120")
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets `told` when a step says that a server is away."""
    say = News.say

    def listen(news: News, what: str, state: str | None, line: str, file: TextIO | None = None) -> None:
        say(news, what, state, line, file)
        if state == "away":
            told.set()

    monkeypatch.setattr(News, "say", listen)


def back(start: Callable[[], None]) -> threading.Thread:
    """Starts a server when a step has said that it is away; the answer is to be joined."""
    told.clear()

    def later() -> None:
        told.wait(LONGEST)
        start()

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def said(capsys: pytest.CaptureFixture[str], who: str) -> None:
    """An outage of `who` was one line when it began, and one when it ended."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{who}: ")]
    assert len(lines) == 2, lines
    assert lines[0].endswith("Asking again for up to 120 s.")
    assert lines[1] == f"{who}: answers again."
