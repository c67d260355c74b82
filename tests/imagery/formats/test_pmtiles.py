"""Buildings as vector tiles: all of them, with their attributes, in whole units of the tiles' grid."""

import datetime
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from imagery.formats.stac import MadeBy
from imagery.formats.vector_tiles import write_pmtiles
from imagery.formats.writing import Formats
from imagery.give.names import is_requested
from imagery.give.writing import OutputError, write_errors
from tests.imagery.predicted import black, give_out
from tests.limits import files_up_to

FORMATS = Formats(["pmtiles"], black, MadeBy("a folder"))
NAME = "buildings.pmtiles"
METRE = 1 / 111_320  # degrees on the equator
UNIT = 40_075_016.686 / 2**15 / 4096  # metres of Web Mercator


def read(path: Path, zoom: int = 15) -> Any:
    """The buildings of a zoom level in Web Mercator, the parts in several tiles joined, by id."""
    frame = pyogrio.read_dataframe(path, ZOOM_LEVEL=zoom).drop(columns="mvt_id")
    assert frame.crs == "EPSG:3857"
    return frame.dissolve("id").sort_index()


def test_each_building_of_the_geojson_is_in_all_zoom_levels_with_its_attributes(classes: Path, tmp_path: Path) -> None:
    give_out(classes, tmp_path / "map", further=FORMATS.write)
    expected = geopandas.read_file(tmp_path / "map" / "buildings.geojson").set_index("id").sort_index()
    places = expected.to_crs("EPSG:3857").geometry
    assert len(expected) == 12
    for zoom in (13, 14, 15):
        found, unit = read(tmp_path / "map" / NAME, zoom), UNIT * 2 ** (15 - zoom)
        assert (
            found.drop(columns="geometry")
            .astype(expected.dtypes.drop("geometry"))
            .equals(expected.drop(columns="geometry"))
        )
        apart = shapely.hausdorff_distance(np.asarray(found.geometry), np.asarray(places))
        assert apart.max() <= unit  # half a unit along each axis, and what GDAL simplifies
    header = (tmp_path / "map" / NAME).read_bytes()[:127]
    # Version 3; tiles are vectors; the coarsest and the finest level.
    assert (header[:8], header[99], header[100], header[101]) == (b"PMTiles\x03", 1, 13, 15)
    assert pyogrio.list_layers(tmp_path / "map" / NAME)[:, 0].tolist() == ["buildings"]
    assert is_requested(Path(NAME))


def test_parts_become_one_layer_whatever_their_attributes(tmp_path: Path) -> None:
    """Of a type that only a later part knows, too."""
    frame = geopandas.GeoDataFrame(
        {
            "id": ["a", "b", "c"],
            "note": pd.Series([None, None, 'é "so"'], dtype=object),
            "floors": pd.array([None, 2, 2**40], dtype="Int64"),
            "height": [np.nan, 1.5, -2.0],
            "seen": pd.to_datetime(["2026-05-01T08:30:00"] * 3),
            "day": pd.Series([datetime.date(2026, 5, 1), None, None], dtype=object),
            "used": [True, False, True],
        },
        geometry=[shapely.box(10 + x * METRE, 0, 10 + (x + 8) * METRE, 8 * METRE) for x in (0, 20, 40)],
        crs="EPSG:4326",
    )
    write_pmtiles(lambda: (frame.iloc[[row]] for row in range(3)), tmp_path / "parts.pmtiles")
    write_pmtiles(lambda: [frame], tmp_path / "whole.pmtiles")
    assert (tmp_path / "parts.pmtiles").read_bytes() == (tmp_path / "whole.pmtiles").read_bytes()
    rows = json.loads(read(tmp_path / "parts.pmtiles").drop(columns="geometry").to_json(orient="index"))
    seen = "2026-05-01T08:30:00"
    assert rows == {
        "a": {"note": None, "floors": None, "height": None, "seen": seen, "day": "2026-05-01", "used": True},
        "b": {"note": None, "floors": 2, "height": 1.5, "seen": seen, "day": None, "used": False},
        "c": {"note": 'é "so"', "floors": 2**40, "height": -2.0, "seen": seen, "day": None, "used": True},
    }


def test_no_building_of_a_dense_town_is_lost_and_no_warning_told(tmp_path: Path, recwarn: Any) -> None:
    """More than the 500 kB that GDAL gives a tile by default."""
    side = 130
    row, column = np.divmod(np.arange(side * side), side)
    west, south = 0.001 + column * 7 * METRE, 0.001 + row * 7 * METRE
    polygons = shapely.box(west, south, west + 5 * METRE, south + 5 * METRE)
    ids = [f"{number * 7919:032x}" for number in range(side * side)]
    frame = geopandas.GeoDataFrame({"id": ids}, geometry=polygons, crs="EPSG:4326")
    write_pmtiles(lambda: [frame], tmp_path / NAME)
    assert set(pyogrio.read_dataframe(tmp_path / NAME, read_geometry=False)["id"]) == set(ids)
    assert [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)] == []


def test_what_is_narrower_than_the_grid_or_beyond_web_maps_is_no_error(tmp_path: Path) -> None:
    house = shapely.box(10, 45, 10 + 10 * METRE, 45 + 10 * METRE)
    sliver = shapely.box(10, 45, 10 + 10 * METRE, 45 + 0.01 * METRE)
    polar = shapely.box(10, 86, 10.001, 86.001)
    frame = geopandas.GeoDataFrame({"id": [1, 2, 3]}, geometry=[house, sliver, polar], crs="EPSG:4326")
    write_pmtiles(lambda: [frame], tmp_path / NAME)
    assert read(tmp_path / NAME).index.tolist() == [1]
    write_pmtiles(lambda: [frame.iloc[1:]], tmp_path / "none.pmtiles")
    assert not (tmp_path / "none.pmtiles").exists()


def test_a_map_without_the_format_replaces_one_with_it(classes: Path, tmp_path: Path) -> None:
    give_out(classes, tmp_path / "map", further=FORMATS.write)
    give_out(classes, tmp_path / "map")
    assert not (tmp_path / "map" / NAME).exists()


def test_a_full_disk_is_told_whichever_file_it_meets(tmp_path: Path) -> None:
    """GDAL writes two files on the way, and of one tells nobody that its last bytes had no room."""
    wests = [number * 20 * METRE for number in range(300)]
    polygons = [shapely.box(west, 0.01, west + 8 * METRE, 0.01 + 8 * METRE) for west in wests]
    frame = geopandas.GeoDataFrame({"id": np.arange(300)}, geometry=polygons, crs="EPSG:4326")
    write_pmtiles(lambda: [frame], tmp_path / NAME)
    whole, said = (tmp_path / NAME).read_bytes(), list[str]()
    for room in range(0, 1 << 20, 1 << 13):
        (tmp_path / NAME).unlink(missing_ok=True)
        try:
            with files_up_to(room), write_errors(tmp_path):
                write_pmtiles(lambda: [frame], tmp_path / NAME)
        except OutputError as error:
            said.append(str(error))
        else:
            break
    assert (tmp_path / NAME).read_bytes() == whole
    assert len(said) > 5 and all(line.startswith(f"{tmp_path}: cannot be written (") for line in said)
    assert any("has 0 features instead of 300 or more" in line for line in said)
    assert not any("\n" in line for line in said)


def test_attributes_that_are_called_as_the_outline_is_stay_such(tmp_path: Path) -> None:
    house = shapely.box(10, 45, 10 + 10 * METRE, 45 + 10 * METRE)
    attributes = {"id": [1], "GEOMETRY": ["POINT(3 0)"], "Outline0": [7]}
    frame = geopandas.GeoDataFrame(attributes, geometry=[house], crs="EPSG:4326")
    write_pmtiles(lambda: [frame], tmp_path / NAME)
    found = read(tmp_path / NAME)
    assert (found.loc[1, "GEOMETRY"], found.loc[1, "Outline0"]) == ("POINT(3 0)", 7)
    assert found.geometry.area.sum() == pytest.approx(10 * 10 * 2**0.5, rel=0.1)  # as high as wide at the equator


def test_what_lies_over_the_antimeridian_is_cut_and_what_is_no_building_left_out(tmp_path: Path) -> None:
    boxes = [(179.9999, 10, 180.0001, 10.0001), (10, 10, 10.2, 10.0001), (10, 10, 10.0001, 11), (10, 10, 350, 20)]
    over = shapely.MultiPolygon([shapely.box(179.9999, 5, 180, 5.0001), shapely.box(-180, 5, -179.9999, 5.0001)])
    polygons = [*(shapely.box(*box) for box in boxes), over]
    frame = geopandas.GeoDataFrame({"id": [1, 2, 3, 4, 5]}, geometry=polygons, crs="EPSG:4326")
    write_pmtiles(lambda: [frame], tmp_path / NAME)
    found = read(tmp_path / NAME)
    assert found.index.tolist() == [1, 5]
    edge = 20037508.342789244
    for west, _, east, _ in (part.bounds for whole in found.geometry for part in whole.geoms):
        assert min(abs(abs(west) - edge), abs(abs(east) - edge)) < 1 and east - west == pytest.approx(11.13, rel=0.05)
