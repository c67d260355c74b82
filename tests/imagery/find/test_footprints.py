"""Known buildings, graded by the pixels that they cover, with all that was said of them before."""

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from imagery.find.footprints import footprint_pixels, grade_footprints, grade_part, place_footprints
from imagery.find.votes import decide
from imagery.read.grid import Grid
from imagery.read.vector_files import VectorError
from imagery.read.vectors import Polygons, read_polygons
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.predicted import give_out, write_classes


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """200 x 240 pixels of half a metre: grade 1 in the west, 4 in the east; nothing was found, rows 150 on not seen."""
    damage = np.zeros((200, 240), np.uint8)
    damage[150:] = 255
    grades = np.zeros((4, 200, 240), np.uint8)
    grades[0, :, :120], grades[3, :, :120] = 204, 51
    grades[3, :, 120:] = 255
    return write_classes(tmp_path / "classes.tif", damage, grades=grades)


def square(column: float, row: float, width: float, height: float) -> Any:
    """A polygon of so many pixels, on the ground."""
    return shapely.transform(
        shapely.box(column, row, column + width, row + height),
        lambda points: np.stack([500_000 + points[:, 0] / 2, 4_000_000 - points[:, 1] / 2], axis=1),
    )


def write_file(path: Path, polygons: list[Any], crs: str = UTM, **columns: Any) -> Path:
    geopandas.GeoDataFrame(columns, geometry=polygons, crs=UTM).to_crs(crs).to_file(path)
    return path


HOUSES = [
    square(10, 10, 20, 10),  # in the west
    square(110, 20, 20, 10),  # half and half: 0.4 for grade 1, 0.6 for grade 4
    square(200, 20, 20, 10),  # in the east
    square(60.6, 60.6, 0.3, 0.3),  # no pixel's centre
    square(20, 160, 20, 10),  # where no data is
    square(20, 140, 20, 20),  # half of it seen
    square(500, 20, 20, 10),  # outside
    square(235, 20, 20, 10),  # a quarter of it inside
    square(10, 12, 20, 10),  # over the first
]
EXPECTED = [1, 4, 4, 1, None, 1, None, 4, 1]


@pytest.mark.parametrize(
    ("name", "crs"), [("a.geojson", "EPSG:4326"), ("a.gpkg", "EPSG:3857"), ("a.shp", UTM), ("a.gpkg", "EPSG:3035")]
)
def test_footprints_of_any_format_and_crs_are_graded(name: str, crs: str, classes: Path, tmp_path: Path) -> None:
    path = write_file(tmp_path / name, HOUSES, crs, osm_id=range(101, 110))
    summary = give_out(classes, tmp_path / "out", footprints=path)
    assert (len(summary), summary.total["buildings_not_visible"]) == (9, 2)
    for kind in ("gpkg", "geojson"):
        found = pyogrio.read_dataframe(tmp_path / "out" / f"buildings.{kind}", layer="buildings")
        assert [None if np.isnan(grade) else grade for grade in found["grade"]] == EXPECTED
        assert found["osm_id"].tolist() == list(range(101, 110))
        assert found["damage"].tolist()[3:6] == ["no-damage", "not-visible", "no-damage"]
        np.testing.assert_allclose(found["confidence"], [0.8, 0.6, 1, 0.8, np.nan, 0.8, np.nan, 1, 0.8], atol=0.021)
        np.testing.assert_allclose(found["share_destroyed"][:3], [0, 0.5, 1], atol=0.051)
        assert found["area_m2"].tolist() == pytest.approx([shape.area for shape in HOUSES], rel=0.002, abs=0.01)
        placed = np.asarray(found.to_crs(UTM).geometry)
        assert shapely.hausdorff_distance(placed, np.array(HOUSES)).max() < 0.03


def test_pixels_vote_whose_centres_lie_inside(classes: Path, tmp_path: Path) -> None:
    """In the raster's own CRS, exactly; and a polygon over many blocks of the file counts each pixel once."""
    path = write_file(tmp_path / "a.gpkg", [*HOUSES, square(-50, -50, 900, 900)])
    votes = grade_footprints(read_polygons(path), classes).votes
    assert votes[:, 1].sum(1).tolist() == [200, 200, 200, 1, 0, 200, 0, 50, 200, 150 * 240]
    assert votes[1].tolist() == [[100 * 204, 0, 0, 100 * 51 + 100 * 255], [100, 0, 0, 100]]


def test_attributes_and_ids_stay_as_they_are(classes: Path, tmp_path: Path) -> None:
    properties: list[dict[str, Any]] = [
        {"Damage": "old", "levels": 2, "wall": True, "tags": ["a", "b"], "more": {"k": 1}, "fid": 7, "geom": "x"},
        {"Damage": "none", "levels": None, "wall": None, "tags": None, "more": None, "fid": 7, "geom": "y"},
    ]
    features = [
        {"type": "Feature", "id": f"way/{number}", "properties": own, "geometry": None}
        for number, own in enumerate(properties)
    ]
    shapes = geopandas.GeoSeries(HOUSES[:2], crs=UTM).to_crs("EPSG:4326")
    for feature, shape in zip(features, shapes, strict=True):
        feature["geometry"] = shapely.geometry.mapping(shape)
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    give_out(classes, tmp_path / "out", footprints=path)
    written = json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"]
    assert [feature["id"] for feature in written] == ["way/0", "way/1"]
    own, other = (feature["properties"] for feature in written)
    assert (own["id"], other["id"]) == ("way/0", "way/1")
    expected = {"Damage": "old", "levels": 2, "wall": True, "tags": ["a", "b"], "more": {"k": 1}, "fid": 7}
    assert own | expected == own
    assert (other["levels"], other["wall"]) == (None, None)
    assert (own["grade"], own["damage_damage"]) == (1, "no-damage")
    stored = pyogrio.read_dataframe(tmp_path / "out" / "buildings.gpkg", layer="buildings")
    assert stored["id"].tolist() == ["way/0", "way/1"]
    assert stored["fid"].tolist() == [7, 7]
    assert stored["tags"].tolist()[0] == '["a", "b"]'
    assert stored["damage_damage"].tolist() == ["no-damage", "destroyed"]
    assert 'attr="damage_damage"' in (tmp_path / "out" / "buildings.qml").read_text()


def test_columns_that_differ_by_case_alone_are_kept(classes: Path, tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.geojson", HOUSES[:1], "EPSG:4326", Height=[3.5], height=[4.5])
    give_out(classes, tmp_path / "out", footprints=path)
    (stored,) = pyogrio.read_dataframe(tmp_path / "out" / "buildings.gpkg", layer="buildings").to_dict("records")
    assert (stored["Height"], stored["height_2"], stored["id"]) == (3.5, 4.5, 1)


def test_broken_polygons_are_mended_and_other_features_left_out(classes: Path, tmp_path: Path) -> None:
    bow = shapely.transform(
        shapely.Polygon([(10, 10), (30, 30), (30, 10), (10, 30)]),
        lambda points: points * (0.5, -0.5) + (500_000, 4_000_000),
    )
    shapes = [bow, HOUSES[0].centroid, None, shapely.GeometryCollection([HOUSES[2], HOUSES[2].exterior])]
    path = write_file(tmp_path / "a.geojson", shapes, "EPSG:4326", name=["bow", "point", "nothing", "both"])
    summary = give_out(classes, tmp_path / "out", footprints=path)
    assert [note.split(": ")[1] for note in summary.notes] == [
        "2 of 4 features are no polygons and were left out",
        "1 of 4 polygons were invalid and were made valid",
    ]
    found = pyogrio.read_dataframe(tmp_path / "out" / "buildings.geojson")
    assert found["name"].tolist() == ["bow", "both"]
    assert found["area_m2"].tolist() == pytest.approx([50, 50], rel=0.002)
    assert shapely.is_valid(np.asarray(found.geometry)).all()


def test_footprints_beyond_the_antimeridian_meet_their_pixels(tmp_path: Path) -> None:
    """A raster in degrees goes on beyond 180; footprints are cut there."""
    grades = np.zeros((4, 80, 200), np.uint8)
    grades[0, :, :100], grades[3, :, 100:] = 255, 255
    transform = Affine(5e-6, 0, 180 - 100 * 5e-6, 0, -5e-6, -17)
    classes = write_classes(tmp_path / "classes.tif", np.zeros((80, 200)), "EPSG:4326", transform, grades)
    parts = [shapely.box(180 - 2e-4, -17.0003, 180, -17.0001), shapely.box(-180, -17.0003, -180 + 1e-4, -17.0001)]
    shapes = [parts[0], parts[1], shapely.MultiPolygon(parts)]
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "a.geojson")
    votes = grade_footprints(read_polygons(tmp_path / "a.geojson"), classes).votes
    assert votes[:, 1].tolist() == [[1600, 0, 0, 0], [0, 0, 0, 800], [1600, 0, 0, 800]]
    assert decide(votes)["grade"].tolist() == [1, 4, 1]


def broken(path: Path, kind: str) -> Path:
    """A file of footprints with this fault."""
    path.parent.mkdir()
    if kind == "text":
        path.write_text("id,name\n")
    elif kind == "truncated":
        write_file(path, HOUSES, "EPSG:4326")
        path.write_bytes(path.read_bytes()[:400])
    elif kind == "points":
        write_file(path, [house.centroid for house in HOUSES], "EPSG:4326")
    elif kind == "empty":
        path.write_text('{"type": "FeatureCollection", "features": []}')
    elif kind == "elsewhere":
        write_file(path, [shapely.affinity.translate(house, 5000) for house in HOUSES], "EPSG:4326")
    elif kind == "layers":
        for layer in ("old", "new"):
            geopandas.GeoDataFrame(geometry=HOUSES, crs=UTM).to_file(path, layer=layer)
    elif kind == "no crs":
        write_file(path, HOUSES)
        path.with_suffix(".prj").unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("text", "a.geojson", r"cannot be read .*Give a GeoJSON"),
        ("missing", "a.gpkg", r"cannot be read \(No such file"),
        ("truncated", "a.geojson", r"cannot be read"),
        ("points", "a.geojson", r"holds no polygon"),
        ("empty", "a.geojson", r"holds no polygon in 0 features"),
        ("no crs", "a.shp", r"has no coordinate reference system.*\.prj"),
        ("layers", "a.gpkg", r"has 2 layers of polygons \(old, new\), expected one"),
        ("elsewhere", "a.geojson", r"lies outside the imagery, at 15\.05.* the imagery at 15\.0"),
    ],
)
def test_files_that_cannot_be_used_are_told_in_one_line(
    kind: str, name: str, said: str, classes: Path, tmp_path: Path
) -> None:
    path = broken(tmp_path / "given" / name, kind)
    with pytest.raises(VectorError, match=said) as caught:
        give_out(classes, tmp_path / "out", footprints=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["classes.tif", "given"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_votes_of_parts_of_a_raster_add_up_to_those_of_the_whole(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the parts, also of polygons that lie at their corners and are smaller than a pixel."""
    folder, random = tmp_path_factory.mktemp("parts"), np.random.default_rng(seed)
    width, height = random.integers(20, 60, 2).tolist()
    damage = np.where(random.random((height, width)) < 0.2, 255, 0)
    grades = random.integers(0, 256, (4, height, width))
    cuts = [
        [0, *sorted(random.choice(np.arange(1, side), 2, replace=False).tolist()), side] for side in (width, height)
    ]
    corners = np.stack([random.choice(cut, 30) for cut in cuts], 1) + random.uniform(-1.2, 1.2, (30, 2)).round(1)
    corners = np.concatenate([corners, random.uniform(-3, (width, height), (30, 2))])
    sizes = np.concatenate([random.uniform(0.05, 1.5, (30, 2)).round(1) + 0.1, random.uniform(0.1, 25, (30, 2))])
    boxes = [square(*corner, *size) for corner, size in zip(corners.tolist(), sizes.tolist(), strict=True)]
    polygons = Polygons(folder, geopandas.GeoDataFrame(geometry=boxes, crs=UTM), ())
    whole = grade_footprints(polygons, write_classes(folder / "whole.tif", damage, grades=grades))
    grid = Grid(CRS.from_string(UTM), ORIGIN, width, height)
    votes, partly = np.zeros_like(whole.votes), np.zeros_like(whole.partly)
    for (left, right), (top, bottom) in product(*map(pairwise, cuts)):
        rows, columns = slice(top, bottom), slice(left, right)
        part = write_classes(folder / "part.tif", damage[rows, columns], grades=grades[:, rows, columns])
        graded = grade_part(place_footprints(polygons, grid), part, grid, (left, top))
        votes += graded.votes
        partly |= graded.partly
        for pixels in footprint_pixels(part, graded, (left, top)):
            graded.votes[pixels.buildings, 1, 0] -= np.bincount(pixels.owners, minlength=len(pixels.buildings))
        assert (graded.votes[:, 1].sum(1) == 0).all()  # each pixel that voted is named once
    np.testing.assert_array_equal(votes, whole.votes)
    np.testing.assert_array_equal(partly, whole.partly)
