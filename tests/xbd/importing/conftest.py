"""An archive, and a place for what is imported from it."""

from pathlib import Path

import pytest

from tests.xbd.importing.packed import pack


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the tiny raw data set."""
    return pack(raw, tmp_path_factory.mktemp("archive") / "tiny.tar.gz")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "xbd"
