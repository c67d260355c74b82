"""A map of so many buildings that processes share the work is the same as one that a single process writes."""

from pathlib import Path

import geopandas
import numpy as np
import pytest

from imagery.find.shapes import ROWS
from imagery.give import outputs
from imagery.give.page import report
from tests.conftest import tree
from tests.imagery.predicted import give_out, write_classes

SIDE, STEP = 100, 8  # buildings of a side, and pixels from one to the next


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(3)
    damage = np.zeros((SIDE * STEP, SIDE * STEP), np.uint8)
    for row, column in np.ndindex(SIDE, SIDE):
        high, wide = generator.integers(3, 8, 2)
        damage[row * STEP :, column * STEP :][:high, :wide] = generator.integers(1, 5)
    damage[::5, ::7] = 0  # some are no rectangles, and some lie side by side
    return write_classes(tmp_path_factory.mktemp("shared") / "classes.tif", damage)


@pytest.mark.parametrize("pixels", [0, outputs.MANY], ids=["rasters first", "rasters when others are started"])
def test_processes_share_the_work_and_write_the_same(
    pixels: int, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST", 100)
    monkeypatch.setattr(outputs, "MANY", pixels)
    alone = give_out(classes, tmp_path / "alone")
    with outputs.crew_of(2) as crew:
        shared = give_out(classes, tmp_path / "shared", crew=crew)
    assert len(shared) == len(alone) > ROWS
    one, other = (tree(tmp_path / name) for name in ("alone", "shared"))
    assert {name for name in one if one[name] != other[name]} <= {"buildings.gpkg"}  # which has the time in it
    assert one.keys() == other.keys()
    first, second = (
        geopandas.read_file(tmp_path / name / "buildings.gpkg", layer="buildings") for name in ("alone", "shared")
    )
    assert first.equals(second)
