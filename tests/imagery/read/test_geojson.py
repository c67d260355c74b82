"""The GeoJSON of a map: the features that GDAL writes, by RFC 7946, whatever is known of them."""

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely

from imagery.read.vectors import write_geojson

CLOCKWISE = [(0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (4.0, 0.0)]
POLYGONS = (
    shapely.Polygon(CLOCKWISE, [[(1, 1), (2, 1), (2, 2), (1, 2)]]),
    shapely.MultiPolygon([shapely.box(179.9, 1, 180, 2), shapely.box(-180, 1, -179.9, 2)]),
    shapely.box(-1e-9, 12.34567894, 0.123456789, 12.4),
    shapely.box(1e-6, -1e-6, 2e-6, 0),
    shapely.Point(24, 61).buffer(1e-5),
    shapely.box(10, 50, 10 + 3e-8, 50.1),  # in 7 decimals nothing is left of it
    shapely.box(179.9, 3, 180.1, 4),  # over the antimeridian, in two ways
    shapely.Polygon([(179.9, 5), (-179.9, 5), (-179.9, 6), (179.9, 6)]),
)


def frame() -> Any:
    attributes = {
        "id": ["a", "é\u2028", '"b"\n', ',\n{ "type"', "null }", "", "west", "east"],
        "grade": pd.array([1, None, 3, 4, None, 2, 1, 1], dtype="Int64"),
        "seen": pd.array([True, None, False, True, True, None, True, True], dtype="boolean"),
        "big": [2**62] * 8,
        "share": [0.1, np.nan, 1e-300, 1e300, -0.0, 0.3333, 0.5, 1.0],
        "when": pd.to_datetime(["2026-05-01T08:30:00.125Z", "NaT"] * 4),
        "tags": ['{"a": [1, null]}', None, "[1, 2]", '"geometry": null }', "]\n}", "plain", "", " "],
        "none": [None] * 8,
    }
    return geopandas.GeoDataFrame(attributes, geometry=list(POLYGONS), crs="EPSG:4326")


def written(path: Path, *frames: Any) -> dict[str, Any]:
    write_geojson(frames, path)
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_features_are_those_of_gdal(tmp_path: Path) -> None:
    given, path = frame(), tmp_path / "gdal" / "a.geojson"
    path.parent.mkdir()
    options = {"RFC7946": "YES", "ID_FIELD": "own"}
    pyogrio.write_dataframe(given.assign(own=given["id"]), path, "buildings", "GeoJSON", layer_options=options)
    expected = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / "ours").mkdir()
    found = written(tmp_path / "ours" / "a.geojson", given.iloc[:1], given.iloc[1:4], given.iloc[4:])
    assert found == expected
    assert [feature["id"] for feature in found["features"]] == list(given["id"])


def test_rings_go_by_the_right_hand_in_seven_decimals(tmp_path: Path) -> None:
    features = written(tmp_path / "a.geojson", frame().iloc[:5])["features"]
    for feature, polygon in zip(features, POLYGONS, strict=False):
        geometry = feature["geometry"]
        parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        for ring, *holes in parts:
            assert shapely.LinearRing(ring).is_ccw and not any(shapely.LinearRing(hole).is_ccw for hole in holes)
        found = shapely.from_geojson(json.dumps(geometry))
        assert found.is_valid and shapely.hausdorff_distance(found, polygon) <= 0.71e-7
        numbers = np.ravel(shapely.get_coordinates(found))
        assert [float(f"{number:.7f}") for number in numbers] == numbers.tolist()
    text = (tmp_path / "a.geojson").read_text(encoding="utf-8")
    assert "-0.0," not in text.replace('"share": -0.0,', "")


def test_the_file_is_the_same_however_it_is_parted(tmp_path: Path) -> None:
    given = frame()
    (tmp_path / "whole").mkdir()
    written(tmp_path / "whole" / "a.geojson", given)
    (tmp_path / "parts").mkdir()
    written(tmp_path / "parts" / "a.geojson", *(given.iloc[[row]].reset_index(drop=True) for row in range(8)))
    assert (tmp_path / "whole" / "a.geojson").read_bytes() == (tmp_path / "parts" / "a.geojson").read_bytes()
