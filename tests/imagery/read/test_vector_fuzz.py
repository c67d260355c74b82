"""Vector files of any bytes: polygons, or one line that says why not."""

import gzip
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.read.vector_files import VectorError
from imagery.read.vectors import read_footprints
from tests.imagery.read.test_vector_files import geojson_lines, osm, write

SEEDS = ("part.csv", "part.csv.gz", "part.geojsonl", "google.csv", "overture.parquet", "export.zip", "map.osm")
numbers = count()
changes = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4)), max_size=6)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    for name in SEEDS:
        if name == "map.osm":
            osm(folder / name, [{"building": "yes"}, {"landuse": "meadow"}])
        else:
            write(folder / name)
    return folder


def check(path: Path) -> None:
    """Reads a file as buildings; what comes must be fit for the next step."""
    try:
        found = read_footprints(path)
    except VectorError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        return
    assert len(found.frame) > 0
    assert all(shape.is_valid and shape.area > 0 for shape in np.asarray(found.frame.geometry, dtype=object))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=15)
@given(changes=changes, cut=st.integers(0, 2**16))
def test_a_damaged_file_is_read_or_refused(name: str, seeds: Path, changes: list[tuple[int, bytes]], cut: int) -> None:
    content = bytearray((seeds / name).read_bytes())
    for place, value in changes:
        start = place % len(content)
        content[start : start + len(value)] = value
    path = seeds / f"{next(numbers)}-{name}"  # OGR remembers what an archive of a name held
    path.write_bytes(content[: cut % (4 * len(content))])
    check(path)


@settings(max_examples=25)
@given(text=st.text(alphabet='{}[]",:0123456789.eE-\n truefalsnu', max_size=60), packed=st.booleans())
def test_a_text_that_is_nearly_lines_of_geojson_is_read_or_refused(seeds: Path, text: str, packed: bool) -> None:
    content = (geojson_lines().splitlines()[0] + "\n" + text).encode()
    path = seeds / f"{next(numbers)}-text.csv{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    check(path)
