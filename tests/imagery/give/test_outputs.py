"""What a predicted scene is given out as: files that other programs read, all of them or none."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from base.errors import InputError
from imagery.give.names import FEATURES
from imagery.give.outputs import FILES
from imagery.give.writing import OutputError
from imagery.read.vector_files import VectorError
from imagery.sampling.judgements_file import JUDGE
from tests.conftest import read_csv, tree
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.predicted import give_out, write_classes


def blobs(height: int, width: int) -> Any:
    rng = np.random.default_rng(5)
    field = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 5)
    damage = np.where(
        field > 0.02, 1 + (cv2.GaussianBlur(np.asarray(rng.normal(size=field.shape)), (0, 0), 12) > 0) * 2, 0
    )
    damage[:40, 300:] = 255
    return damage.astype(np.uint8)


@pytest.fixture(scope="module")
def damage() -> Any:
    return blobs(900, 1100)


@pytest.fixture(scope="module")
def classes(damage: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("scene") / "classes.tif", damage)


@pytest.fixture(scope="module")
def out(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "out"
    give_out(classes, folder, cell=100)
    return folder


def test_rasters_are_cloud_optimized_and_on_the_grid_of_pre(out: Path, damage: Any) -> None:
    for name, expected in (("damage", damage), ("confidence", np.where(damage == 255, 255, 60))):
        with rasterio.open(out / f"{name}.tif") as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert dataset.block_shapes == [(512, 512)]
            assert dataset.overviews(1) == [2, 4]
            assert (dataset.transform, dataset.crs, dataset.nodata) == (ORIGIN, UTM, 255)
            assert (dataset.count, dataset.dtypes) == (1, ("uint8",))
            np.testing.assert_array_equal(dataset.read(1), expected)
            small = dataset.read(1, out_shape=(450, 550))
            assert set(np.unique(small)) <= set(np.unique(expected))
    with rasterio.open(out / "damage.tif") as dataset:
        colours = [dataset.colormap(1)[grade][:3] for grade in range(5)]
        assert colours == [(0, 0, 0), (255, 255, 255), (255, 255, 0), (255, 140, 0), (255, 0, 0)]
    with rasterio.open(out / "confidence.tif") as dataset:
        assert dataset.units == ("percent",)


def test_geojson_is_that_of_the_standard(out: Path) -> None:
    content = json.loads((out / "buildings.geojson").read_text(encoding="utf-8"))
    assert "crs" not in content
    ids, holes = [], 0
    for feature in content["features"]:
        ids.append(feature["id"])
        assert feature["properties"]["id"] == feature["id"]
        assert feature["geometry"]["type"] == "Polygon"
        outer, *inner = map(shapely.LinearRing, feature["geometry"]["coordinates"])
        holes += len(inner)
        assert outer.is_ccw and not any(ring.is_ccw for ring in inner)
        assert shapely.Polygon(outer, inner).is_valid
        for number in shapely.get_coordinates([outer, *inner]).ravel().tolist():
            assert number == round(number, 7)
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) > 100 and holes > 0


def test_both_vector_files_say_the_same_of_each_building(out: Path) -> None:
    one, other = (pyogrio.read_dataframe(out / f"buildings.{kind}", layer="buildings") for kind in ("gpkg", "geojson"))
    columns = ["id", "grade", "damage", "confidence", "area_m2"]
    columns += ["share_no_damage", "share_minor_damage", "share_major_damage", "share_destroyed"]
    assert [*one.columns] == [*other.columns] == [*columns, "geometry"]
    assert one.crs == "EPSG:4326"
    assert one[columns].equals(other[columns].astype(one[columns].dtypes))
    assert shapely.hausdorff_distance(np.asarray(one.geometry), np.asarray(other.geometry)).max() < 1e-7
    shares = one.filter(like="share_")
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=2e-4)
    assert one["confidence"].between(0.13, 0.6).all()


def test_qgis_finds_its_style_beside_and_inside_the_geopackage(out: Path) -> None:
    style = (out / "buildings.qml").read_text(encoding="utf-8")
    with sqlite3.connect(out / "buildings.gpkg") as database:
        stored = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        assert stored == [("buildings", "geom", 1, style)]
        listed = database.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'").fetchall()
        assert listed == [("attributes",)]
    renderer = ElementTree.fromstring(style).find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "damage")
    values = [category.get("value") for category in renderer.iter("category")]
    assert values == ["no-damage", "minor-damage", "major-damage", "destroyed", "not-visible"]
    outlines = set()
    for symbol in renderer.iter("symbol"):
        looks = {prop.get("k"): prop.get("v") for prop in symbol.iter("prop")}
        outlines.add((looks["outline_style"], looks["outline_width"]))
    assert len(outlines) == 5  # told apart without colours


# Row and column of the upper left pixel, and grade, of squares of 20 x 20 pixels: 100 square metres.
SQUARES: Sequence[tuple[int, int, int]] = [(10, 10, 1), (10, 300, 4), (250, 20, 2), (300, 300, 4), (340, 300, 3)]


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    damage = np.zeros((400, 400), np.uint8)
    for top, left, grade in SQUARES:
        damage[top : top + 20, left : left + 20] = grade
    return write_classes(tmp_path / "classes.tif", damage)


def counts(row: dict[str, str]) -> list[int]:
    names = ("buildings", *(f"buildings_{name}" for name in ("no_damage", "minor_damage", "major_damage", "destroyed")))
    return [int(row[name]) for name in names]


def test_the_summary_counts_by_squares(squares: Path, tmp_path: Path) -> None:
    summary = give_out(squares, tmp_path / "out", cell=100)
    *cells, total = read_csv(tmp_path / "out" / "summary.csv")
    assert total["area"] == "total"
    assert counts(total) == [5, 1, 1, 1, 2]
    assert float(total["area_m2"]) == pytest.approx(500, rel=0.002)
    assert float(total["area_m2_destroyed"]) == pytest.approx(200, rel=0.002)
    # The scene begins at x 500,000 and y 4,000,000, and is two squares wide and high.
    assert {cell["area"]: counts(cell) for cell in cells} == {
        "5000_39999": [1, 1, 0, 0, 0],
        "5001_39999": [1, 0, 0, 0, 1],
        "5000_39998": [1, 0, 1, 0, 0],
        "5001_39998": [2, 0, 0, 1, 1],
    }
    for cell in cells:
        assert 14.999 < float(cell["west"]) < float(cell["east"]) < 15.003
        assert 36.14 < float(cell["south"]) < float(cell["north"]) < 36.145
    content = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert content["total"] == summary.total
    assert (content["by"], content["cell"], content["crs"]) == ("cells", 100, "EPSG:32633")
    assert [part["buildings"] for part in content["parts"]] == [int(cell["buildings"]) for cell in cells]
    assert len(summary) == 5


def districts(path: Path, **columns: Any) -> Path:
    """West and middle of the scene; the east is in no district."""
    boxes: list[Any] = [shapely.box(500_000 + x, 3_999_800, 500_000 + x + 100, 4_000_000) for x in (0, 100)]
    boxes[1] = boxes[1].difference(shapely.box(500_100, 3_999_800, 500_200, 3_999_835))
    geopandas.GeoDataFrame(columns, geometry=boxes, crs=UTM).to_crs("EPSG:3857").to_file(path)
    return path


def test_the_summary_counts_by_given_areas(squares: Path, tmp_path: Path) -> None:
    areas = districts(
        tmp_path / "areas.gpkg", country=["X", "X"], code=["X1", "X2"], ADM2_NAME=["Föhn", "Bora"], buildings=[7, None]
    )
    give_out(squares, tmp_path / "out", areas=areas)
    *rows, total = read_csv(tmp_path / "out" / "summary.csv")
    assert [row["area"] for row in rows] == ["Föhn", "Bora", "elsewhere"]
    assert [counts(row) for row in [*rows, total]] == [
        [2, 1, 1, 0, 0],
        [2, 0, 0, 0, 2],
        [1, 0, 0, 1, 0],
        [5, 1, 1, 1, 2],
    ]
    assert [row["code"] for row in rows] == ["X1", "X2", ""]
    assert rows[0]["given_buildings"].startswith("7")
    content = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert (content["by"], content["cell"]) == ("areas", None)
    assert content["parts"][1]["given_buildings"] is None


def test_areas_that_cannot_be_used_leave_nothing_behind(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "areas.geojson").write_text("{}")
    with pytest.raises(VectorError, match=r"areas\.geojson: cannot be read"):
        give_out(squares, tmp_path / "out", areas=tmp_path / "areas.geojson")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["areas.geojson", "classes.tif"]


@pytest.mark.parametrize("cell", [0, -5.0, 1e-300, 1e300, float("nan"), float("inf")])
def test_squares_have_a_side(cell: float, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"--cell: found .*, expected metres of a square's side from 1 to 1000000"):
        give_out(squares, tmp_path / "out", cell=cell)


def test_a_scene_without_buildings_has_all_files(tmp_path: Path) -> None:
    classes = write_classes(tmp_path / "classes.tif", np.zeros((50, 60), np.uint8))
    assert len(give_out(classes, tmp_path / "out")) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES) - {FEATURES, JUDGE}
    assert json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"] == []
    assert len(pyogrio.read_dataframe(tmp_path / "out" / "buildings.gpkg", layer="buildings")) == 0
    assert [row["area"] for row in read_csv(tmp_path / "out" / "summary.csv")] == ["total"]


def test_earlier_results_are_replaced_and_foreign_files_never(squares: Path, out: Path, tmp_path: Path) -> None:
    give_out(squares, tmp_path / "out", cell=100)
    first = tree(tmp_path / "out")
    give_out(squares, tmp_path / "out", cell=50)
    assert tree(tmp_path / "out")["summary.csv"] != first["summary.csv"]
    (tmp_path / "out" / "notes.txt").write_text("mine")
    kept = tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"notes\.txt"):
        give_out(squares, tmp_path / "out")
    assert tree(tmp_path / "out") == kept


BOUNDS: dict[str, list[dict[str, Any]]] = {
    "only west": [{"name": "north", "west": 330050.0}, {"name": "south", "west": 330051.5}],
    "metres": [{"name": "n", "west": 3.3e5, "south": 4.1e6, "east": 3.4e5, "north": 4.2e6}, {"name": "s", "west": 1.0}],
    "text": [{"name": "a", "west": "w", "south": "s", "east": "e", "north": "n"}, {"name": "b", "west": "v"}],
    "our names": [
        {"area": "x", "given_area": "y", "buildings": 7, "given_buildings": "z", "cell": 1, "total": 2, "by": "me"},
        {"area": "v", "given_area": "w", "buildings": 8, "given_buildings": "q", "cell": 3, "total": 4, "by": "you"},
    ],
}


@pytest.mark.parametrize("properties", BOUNDS.values(), ids=BOUNDS)
def test_attributes_of_areas_are_kept_and_never_taken_for_our_own(
    properties: list[dict[str, Any]], classes: Path, tmp_path: Path
) -> None:
    halves = [shapely.box(500_000, 3_999_500, 500_300, 4_000_001), shapely.box(500_300, 3_999_500, 500_600, 4_000_001)]
    columns = {key: [own.get(key) for own in properties] for key in properties[0]}
    path = tmp_path / "areas.gpkg"
    geopandas.GeoDataFrame(columns, geometry=halves, crs=UTM).to_file(path)
    summary = give_out(classes, tmp_path / "out", areas=path)
    assert 'data-box="' not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    written = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["parts"]
    assert sum(part["buildings"] for part in written) == len(summary)
    for own, part in zip(properties, written, strict=False):
        told = [str(value) for key, value in part.items() if not key.startswith(("buildings_", "area_m2"))]
        assert {str(value) for value in own.values()} <= set(told)
        if "given_area" in own:
            assert part["given_area"] == own["given_area"]
            assert part["given_given_area"] == own["area"]
