"""What tests of the steps share."""

import shutil
from pathlib import Path

import pytest
import torch

from model.dual_hrnet import DualHRNet
from model.inference import Origin, save_model
from tests.tiny import SMALL


@pytest.fixture
def data(raw: Path, tmp_path: Path) -> Path:
    """A copy of the tiny raw data set, to be changed."""
    return shutil.copytree(raw, tmp_path / "raw")


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory whose network sees buildings in noise; tests only read it."""
    folder = tmp_path_factory.mktemp("network") / "model"
    torch.manual_seed(4)  # with which it sees them
    save_model(DualHRNet(**SMALL), folder, Origin("real", ("palu-tsunami",)))
    return folder
