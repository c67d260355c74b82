"""A store and a place in it for each test of locations."""

from pathlib import Path

import pytest

from tests.components.storage.s3_objects import use_server
from tests.servers.s3_server import S3Server


@pytest.fixture
def server(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server that this process's settings name; the cache is a folder of the test."""
    use_server(s3, tmp_path / "cache", monkeypatch)
    return s3


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A location of the test's own, on which nothing is yet."""
    return f"s3://data/storage/{tmp_path.parent.name}/{tmp_path.name}/set"
