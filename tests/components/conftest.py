"""What tests of the steps share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def data(raw: Path, tmp_path: Path) -> Path:
    """A copy of the tiny raw data set, to be changed."""
    return shutil.copytree(raw, tmp_path / "raw")
