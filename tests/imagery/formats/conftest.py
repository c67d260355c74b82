"""A map that is written in several formats."""

from pathlib import Path

import numpy as np
import pytest

from tests.imagery.predicted import write_classes


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve buildings, of all grades."""
    damage = np.zeros((300, 400), np.uint8)
    for number, (row, column) in enumerate(np.ndindex(3, 4)):
        damage[20 + 90 * row : 60 + 90 * row, 20 + 95 * column : 50 + 95 * column] = 1 + number % 4
    return write_classes(tmp_path_factory.mktemp("classes") / "classes.tif", damage)
