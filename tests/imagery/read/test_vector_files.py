"""Vector files as they are published: read rightly, or refused with the remedy."""

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from shapely.geometry import mapping

from imagery.read.vector_files import VectorError
from imagery.read.vectors import read_footprints, read_polygons, write_geopackage

HOUSES = [shapely.box(37.08 + at, 37.34, 37.08 + at + 0.0001, 37.3401) for at in (0, 0.001, 0.002)]
NAMES = ["Bâtiment 1", "Bâtiment 2", "Bâtiment 3"]


def frame(**columns: Any) -> Any:
    return geopandas.GeoDataFrame(columns or {"name": NAMES}, geometry=HOUSES, crs="EPSG:4326")


def geojson_lines() -> str:
    """As Microsoft publishes footprints."""
    lines = [
        {"type": "Feature", "properties": {"height": -1.0, "confidence": 0.5}, "geometry": mapping(house)}
        for house in HOUSES
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def wkt_table(path: Path, column: str = "geometry", scale: float = 1) -> Path:
    """As Google publishes open buildings."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["latitude", "confidence", column, "full_plus_code"])
        for number, house in enumerate(HOUSES):
            shape = shapely.transform(house, lambda points: points * scale)
            writer.writerow([37.34, 0.75 + number / 100, shape.wkt, f"8H000000+{number}"])
    return path


def zipped(path: Path, *folders: str) -> Path:
    """A zip archive with a shapefile in each of these folders, and what macOS packs beside it."""
    frame().to_file(path.parent / "buildings.shp")
    with zipfile.ZipFile(path, "w") as archive:
        for folder in folders:
            for ending in ("shp", "shx", "dbf", "prj", "cpg"):
                archive.write(path.parent / f"buildings.{ending}", f"{folder}buildings.{ending}")
            archive.writestr(f"__MACOSX/{folder}._buildings.shp", b"\0\5\x16\7")
    return path


def write(path: Path) -> Path:
    """The three houses in a file whose name tells how."""
    match path.name:
        case "part.csv.gz" | "part.geojsonl.gz":
            path.write_bytes(gzip.compress(geojson_lines().encode()))
        case "part.csv" | "part.geojsonl":
            path.write_text(geojson_lines(), encoding="utf-8")
        case "google.csv":
            wkt_table(path)
        case "google.csv.gz":
            path.write_bytes(gzip.compress(wkt_table(path.with_name("plain.csv")).read_bytes()))
        case "overture.parquet":
            boxes = [{"xmin": 1.5, "parts": np.array([1, 2])}] * 3
            frame(name=NAMES, bbox=boxes, sources=[[{"dataset": "OSM"}]] * 3).to_parquet(path)
        case "export.zip":
            zipped(path, "export/")
        case "flat.zip":
            zipped(path, "")
    return path


@pytest.mark.parametrize(
    "name",
    ["part.csv.gz", "part.csv", "part.geojsonl", "part.geojsonl.gz", "google.csv", "google.csv.gz", "overture.parquet",
     "export.zip", "flat.zip"],
)  # fmt: skip
def test_footprints_are_read_as_they_are_published(name: str, tmp_path: Path) -> None:
    found = read_footprints(write(tmp_path / name))
    assert found.frame.crs.to_epsg() == 4326
    placed = np.asarray(found.frame.geometry, dtype=object)
    assert shapely.hausdorff_distance(placed, np.array(HOUSES)).max() < 1e-9
    said = found.frame.drop(columns="geometry").to_dict("list")
    if name.startswith("part"):
        assert said == {"height": [-1.0] * 3, "confidence": [0.5] * 3}
    elif name.startswith("google"):
        assert said["confidence"] == [0.75, 0.76, 0.77]
        assert [note.split(": ")[1] for note in found.notes] == [
            "names no coordinate reference system, its coordinates were taken as longitude and latitude"
        ]
    else:
        assert said["name"] == NAMES
    if name == "overture.parquet":
        assert said["bbox"][0] == '{"xmin": 1.5, "parts": [1, 2]}'
        assert said["sources"][0] == '[{"dataset": "OSM"}]'


@pytest.mark.parametrize("name", ["a.shp", "a.geojson"])
def test_text_in_latin_1_is_read_and_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    frame().to_file(path)
    text = path.with_suffix(".dbf") if name == "a.shp" else path
    text.write_bytes(text.read_bytes().replace("Bâtiment ".encode(), "Bâtiment ".encode("latin-1").ljust(10, b" ")))
    if name == "a.shp":
        assert path.with_suffix(".cpg").read_text() == "UTF-8"
    found = read_polygons(path)
    assert all(value.startswith("Bâtiment") for value in found.frame["name"])
    assert found.notes == (f"{path}: its text is not UTF-8, and was read as Latin-1",)


TAGS = [{"building": "yes"}, {"building": "house"}, {"landuse": "residential"}, {"leisure": "park"}, {"building": "no"}]


def osm(path: Path, tags: list[dict[str, str]]) -> Path:
    """Closed ways with these tags."""
    nodes, ways = [], []
    for number, own in enumerate(tags):
        for corner, (x, y) in enumerate([(0, 0), (1e-4, 0), (1e-4, 1e-4), (0, 1e-4)]):
            nodes.append(
                f'<node id="{number * 4 + corner + 1}" version="1" lat="{37.3 + y}" lon="{37 + number / 99 + x}"/>'
            )
        refs = "".join(f'<nd ref="{number * 4 + corner + 1}"/>' for corner in (0, 1, 2, 3, 0))
        said = "".join(f'<tag k="{key}" v="{value}"/>' for key, value in own.items())
        ways.append(f'<way id="{number + 1}" version="1">{refs}{said}</way>')
    path.write_text(f'<?xml version="1.0"?><osm version="0.6">{"".join(nodes + ways)}</osm>', encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["map.osm", "map.geojson"])
def test_of_openstreetmap_only_buildings_are_footprints_and_all_are_areas(name: str, tmp_path: Path) -> None:
    path = osm(tmp_path / "map.osm", TAGS)
    if name == "map.geojson":
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": [
            {"type": "Feature", "properties": own, "geometry": mapping(shapely.box(at, 0, at + 1, 1))}
            for at, own in enumerate(TAGS)
        ]}))  # fmt: skip
        path = tmp_path / name
    found = read_footprints(path)
    assert found.frame["building"].tolist() == ["yes", "house"]
    assert found.notes == (f"{path}: 3 of 5 features have no tag building and were left out",)
    assert len(read_polygons(path).frame) == 5


def test_a_map_without_buildings_is_refused(tmp_path: Path) -> None:
    path = osm(tmp_path / "map.osm", TAGS[2:4])
    with pytest.raises(VectorError, match="none of 2 polygons has the tag building"):
        read_footprints(path)


def test_a_table_of_buildings_with_a_column_building_is_taken_whole(tmp_path: Path) -> None:
    frame(building=["yes", None, "no"]).to_file(tmp_path / "a.gpkg")
    assert len(read_footprints(tmp_path / "a.gpkg").frame) == 3


def test_an_attribute_that_is_called_geometry_is_kept(tmp_path: Path) -> None:
    own = {"geometry": "x", "given_geometry": 7, "name": "a"}
    feature = {"type": "Feature", "properties": own, "geometry": mapping(HOUSES[0])}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (row,) = read_polygons(tmp_path / "a.geojson").frame.drop(columns="geometry").to_dict("records")
    assert row == {"given_given_geometry": "x", "given_geometry": 7, "name": "a"}


def unreadable(path: Path) -> Path:
    """A file that cannot be used, with the fault that its name tells."""
    match path.stem:
        case "no-wkt":
            path.write_text("latitude,longitude\n37.3,37.1\n", encoding="utf-8")
        case "metres":
            wkt_table(path, scale=10_000)
        case "two":
            zipped(path, "old/", "new/")
        case "none":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("notes.txt", "nothing")
        case "cut":
            path.write_bytes(zipped(path, "export/").read_bytes()[:900])
        case "cut.csv":
            path.write_bytes(gzip.compress(geojson_lines().encode() * 99)[:300])
        case "plain":
            path.write_bytes(b"PAR1 and no more")
        case "twice":
            path.write_text("name,geometry,name\na,x,b\n", encoding="utf-8")
        case "damaged":
            content = zipped(path, "export/").read_bytes()
            path.write_bytes(content.replace(b"export/buildings.shp", b"\r\nexport" + b"x" * 12, 1))
        case "nowhere":
            far = [shapely.box(2000, 0, 2001, 1), shapely.box(0, 95, 1, 96), shapely.box(1e300, 0, 2e300, 1)]
            frame().set_geometry(far, crs="EPSG:4326").to_parquet(path)
        case "heights":
            frame().set_crs("EPSG:5773", allow_override=True).to_parquet(path)
        case "table":
            import pandas as pd

            pd.DataFrame({"a": [1]}).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-wkt.csv", r"has no column of polygons as WKT \(found latitude, longitude\), expected one named geometry"),
        ("metres.csv", r"its coordinates are no degrees. Convert it: ogr2ogr -a_srs EPSG:CODE"),
        ("two.zip", r"holds 2 vector files \(old/buildings.shp, new/buildings.shp\), expected one. Unpack it"),
        ("none.zip", r"holds 0 vector files \(none\), expected one"),
        ("cut.zip", r"cannot be read"),
        ("cut.csv.gz", r"cannot be read"),
        ("plain.parquet", r"cannot be read"),
        ("twice.csv", r"has several columns name, expected one of each name. Rename the others"),
        ("damaged.zip", r"cannot be read \(.{,310}\)\. Give a GeoJSON"),
        ("nowhere.parquet", r"none of 3 polygons has a place on the earth by .*\(WGS 84\)\. Correct that"),
        ("heights.parquet", r"EGM96 height.*ogr2ogr"),
        ("table.parquet", r"cannot be read \(.*geo metadata.*ogr2ogr"),
    ],
)
def test_what_cannot_be_read_names_the_remedy(name: str, said: str, tmp_path: Path) -> None:
    path = unreadable(tmp_path / name)
    with pytest.raises(VectorError, match=said) as caught:
        read_footprints(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_polygons_without_a_place_on_the_earth_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    far = shapely.box(0, 90.5, 1, 91)
    frame().set_geometry([HOUSES[0], far, HOUSES[2]], crs="EPSG:4326").to_file(path)
    found = read_polygons(path)
    assert found.frame["name"].tolist() == ["Bâtiment 1", "Bâtiment 3"]
    assert found.notes == (f"{path}: 1 of 3 features have no place on the earth and were left out",)


def test_whole_numbers_beyond_64_bits_with_a_sign_stay_what_they_are(tmp_path: Path) -> None:
    numbers = [2**64 - 1, 2**63, 7]
    path = tmp_path / "a.parquet"
    frame(code=np.array(numbers, np.uint64)).to_parquet(path)
    found = read_polygons(path).frame
    assert found["code"].tolist() == [str(number) for number in numbers]
    write_geopackage([found], tmp_path / "b.gpkg")
    assert geopandas.read_file(tmp_path / "b.gpkg")["code"].tolist() == found["code"].tolist()


def test_polygons_of_a_collection_that_overlap_are_one(tmp_path: Path) -> None:
    whole = shapely.GeometryCollection([HOUSES[0], shapely.box(37.08005, 37.34, 37.0802, 37.3401), shapely.Point(0, 0)])
    frame(name=["a"] * 3).set_geometry([whole] * 3, crs="EPSG:4326").to_parquet(tmp_path / "a.parquet")
    first = read_polygons(tmp_path / "a.parquet").frame.geometry[0]
    assert first.is_valid and first.geom_type == "Polygon"
    assert first.bounds == (37.08, 37.34, 37.0802, 37.3401)
