"""What a predicted scene is given out as: buildings that lie where they lie on the ground, in files others can read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
import shapely.ops
from affine import Affine
from geotiff import ORIGIN, UTM
from pyproj import Geod, Transformer
from rasterio.features import rasterize
from scipy import ndimage

from model.buildings import GradedBuilding
from scene.buildings import find_buildings
from scene.outputs import FILES, write_outputs
from scene.vectors import NAMES, straighten


def write_classes(path: Path, damage: Any, crs: str = UTM, transform: Affine = ORIGIN) -> Path:
    """classes.tif of this damage map; the probability of a pixel's own grade is 0.6."""
    height, width = damage.shape
    bands = np.full((6, height, width), 34, np.uint8)
    bands[0], bands[1] = damage, 153
    for grade in range(1, 5):
        bands[1 + grade][damage == grade] = 153
    profile = {"driver": "GTiff", "count": 6, "height": height, "width": width, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as out:
        out.write(bands)
    return path


def known(result: GradedBuilding) -> tuple[Any, ...]:
    return result.grade, result.area, round(result.confidence, 6), shapely.normalize(result.polygon).wkt


@pytest.fixture(scope="module")
def blobs() -> Any:
    """Buildings of all sizes, some across many blocks, with holes, some of two grades, and a part without data."""
    rng = np.random.default_rng(5)
    field = ndimage.gaussian_filter(rng.normal(size=(300, 340)), 5)
    damage = np.where(field > 0.06, 1 + (ndimage.gaussian_filter(rng.normal(size=field.shape), 12) > 0) * 2, 0)
    damage[140:150, 20:330] = 2
    damage[:40, 300:] = 255
    return damage.astype(np.uint8)


@pytest.mark.parametrize("block", [32, 100, 256])
def test_buildings_are_the_same_in_blocks_of_any_size(block: int, blobs: Any, tmp_path: Path) -> None:
    path = write_classes(tmp_path / "classes.tif", blobs)
    found = sorted(known(building) for building in find_buildings(path, block))
    assert found == sorted(known(building) for building in find_buildings(path, 1024))
    labels, count = ndimage.label((blobs > 0) & (blobs < 255))
    assert sorted(area for _, area, *_ in found) == sorted(np.bincount(labels.ravel())[1:].tolist())
    assert count == len(found) > 20


def building(x: float, y: float, width: float, height: float, angle: float = 0) -> Any:
    return shapely.affinity.rotate(shapely.box(x, y, x + width, y + height), angle)


def neighbourhood(left: float, top: float) -> list[tuple[int, Any]]:
    """Grade and polygon of known buildings, in metres: straight and turned, with a yard, of an L, small and large."""
    yard = building(60, -60, 40, 30).difference(building(70, -52, 18, 12))
    angled = building(20, -150, 30, 12).union(building(20, -150, 10, 34))
    shapes = [
        *((1, building(10 + 25 * number, -20, 12, 8, angle=7 * number)) for number in range(6)),
        (2, yard),
        (3, angled),
        (4, building(110, -150, 60, 45, angle=30)),
        (4, building(20, -100, 7, 6)),
    ]
    return [(grade, shapely.affinity.translate(shape, left, top)) for grade, shape in shapes]


PLACES = [
    ("EPSG:32633", "EPSG:32633", 0.5, 500_000, 4_000_000),
    ("EPSG:32633", "EPSG:4326", 5e-6, 500_000, 4_000_000),  # its authority names latitude first
    ("EPSG:32633", "EPSG:3857", 0.6, 500_000, 4_000_000),
    ("EPSG:32721", "EPSG:32721", 0.5, 600_000, 6_300_000),  # south of the equator
    ("EPSG:2193", "EPSG:2193", 0.5, 1_750_000, 5_430_000),  # New Zealand, northing first
]


@pytest.mark.parametrize(("metric", "crs", "pixel", "left", "top"), PLACES)
def test_known_buildings_come_back_where_they_are(
    metric: str, crs: str, pixel: float, left: float, top: float, tmp_path: Path
) -> None:
    """Drawn by GDAL's own rasterization; centroids within a metre, areas within 5 %."""
    truth = neighbourhood(left, top)
    to_raster = Transformer.from_crs(metric, crs, always_xy=True)
    shapes = [(shapely.ops.transform(to_raster.transform, polygon), grade) for grade, polygon in truth]
    bounds = to_raster.transform_bounds(left, top - 200, left + 200, top + 10)
    transform = Affine(pixel, 0, bounds[0], 0, -pixel, bounds[3])
    size = round((bounds[3] - bounds[1]) / pixel), round((bounds[2] - bounds[0]) / pixel)
    damage = rasterize(shapes, size, transform=transform, dtype="uint8")
    write_outputs(write_classes(tmp_path / "classes.tif", damage, crs, transform), tmp_path / "out", cell=100)
    for name in ("buildings.gpkg", "buildings.geojson"):
        found = geopandas.read_file(tmp_path / "out" / name)
        assert found.crs == "EPSG:4326"
        assert len(found) == len(truth)
        placed = found.to_crs(metric)
        for grade, polygon in truth:
            nearest = placed.distance(polygon.centroid).idxmin()
            assert placed.geometry[nearest].centroid.distance(polygon.centroid) < 1
            tolerance = 0.05 if polygon.area > 100 else 0.1  # of a small one, a row of pixels is more than 5 %
            assert found["area_m2"][nearest] == pytest.approx(polygon.area, rel=tolerance)
            assert (found["grade"][nearest], found["damage"][nearest]) == (grade, NAMES[grade - 1])
            assert found["confidence"][nearest] == 0.6


def test_a_building_across_the_antimeridian_is_cut_there(tmp_path: Path) -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32701", always_xy=True).transform(180.0, -17.0)
    transform = Affine(0.5, 0, round(x) - 50, 0, -0.5, round(y) + 20)
    damage = np.zeros((100, 200), np.uint8)
    damage[30:60, 60:140] = 3
    write_outputs(write_classes(tmp_path / "classes.tif", damage, "EPSG:32701", transform), tmp_path / "out", cell=50)
    (feature,) = json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"  # RFC 7946, section 3.1.9
    parts = [shapely.Polygon(rings[0]) for rings in feature["geometry"]["coordinates"]]
    assert sorted(round(part.centroid.x) for part in parts) == [-180, 180]
    area = sum(abs(Geod(ellps="WGS84").geometry_area_perimeter(part)[0]) for part in parts)
    assert area == pytest.approx(40 * 15, rel=0.02)
    assert feature["properties"]["area_m2"] == pytest.approx(40 * 15, rel=0.02)


def test_geojson_is_that_of_the_standard(blobs: Any, tmp_path: Path) -> None:
    write_outputs(write_classes(tmp_path / "classes.tif", blobs), tmp_path / "out", cell=50)
    content = json.loads((tmp_path / "out" / "buildings.geojson").read_text())
    assert "crs" not in content
    holes = 0
    for feature in content["features"]:
        rings = feature["geometry"]["coordinates"]
        for polygon in rings if feature["geometry"]["type"] == "MultiPolygon" else [rings]:
            outer, *inner = map(shapely.LinearRing, polygon)
            holes += len(inner)
            assert outer.is_ccw and not any(ring.is_ccw for ring in inner)
            assert shapely.Polygon(polygon[0], polygon[1:]).is_valid
    assert holes > 0
    assert pyogrio.read_info(tmp_path / "out" / "buildings.gpkg")["features"] == len(content["features"])


def test_rasters_are_cloud_optimized_and_on_the_grid_of_pre(blobs: Any, tmp_path: Path) -> None:
    large = np.tile(blobs, (3, 3))
    write_outputs(write_classes(tmp_path / "classes.tif", large), tmp_path / "out", cell=50)
    for name, expected in (("damage", large), ("confidence", np.where(large == 255, 255, 60))):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert dataset.overviews(1)
            assert (dataset.transform, dataset.crs, dataset.nodata) == (ORIGIN, UTM, 255)
            np.testing.assert_array_equal(dataset.read(1), expected)
            if name == "damage":
                colours = dataset.colormap(1)
                assert [colours[grade][:3] for grade in range(1, 5)] == [
                    (255, 255, 255), (255, 255, 0), (255, 140, 0), (255, 0, 0)
                ]  # fmt: skip


def test_the_summary_adds_up(tmp_path: Path) -> None:
    damage = np.zeros((400, 400), np.uint8)
    places: Sequence[tuple[int, int, int]] = [(10, 10, 1), (10, 300, 4), (250, 20, 2), (300, 300, 4), (340, 300, 3)]
    for top, left, grade in places:
        damage[top : top + 20, left : left + 20] = grade  # 100 square metres each
    write_outputs(write_classes(tmp_path / "classes.tif", damage), tmp_path / "out", cell=100)
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    total, squares = table.iloc[0], table.iloc[1:]
    assert total["area"] == "all"
    grades = [int(total[f"buildings_{name.replace('-', '_')}"]) for name in NAMES]
    assert (int(total["buildings"]), grades) == (5, [1, 1, 1, 2])
    assert total["area_m2"] == pytest.approx(500, rel=0.01)
    assert total["area_m2_destroyed"] == pytest.approx(200, rel=0.01)
    assert len(squares) == 4
    for column in table.columns[table.columns.str.startswith(("buildings", "area_m2"))]:
        assert squares[column].sum() == pytest.approx(total[column], abs=0.5)
    content = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert content["total"]["buildings"] == 5
    assert len(content["squares"]) == 4


def test_a_scene_without_buildings_has_all_files(tmp_path: Path) -> None:
    assert (
        write_outputs(write_classes(tmp_path / "classes.tif", np.zeros((50, 60), np.uint8)), tmp_path / "out", cell=50)
        == []
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)
    assert json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"] == []


def test_straight_outlines_keep_area_and_holes() -> None:
    rng = np.random.default_rng(2)
    for number in range(40):
        shape = building(0, 0, rng.uniform(8, 60), rng.uniform(8, 60), rng.uniform(0, 90))
        mask = rasterize([(shapely.affinity.translate(shape, 80, 80), 1)], (160, 160), dtype="uint8")
        (outline,) = [found.polygon for found in _outlines(mask)]
        straight = straighten(outline)
        assert straight.is_valid
        assert straight.area == pytest.approx(outline.area, rel=1e-9)
        assert shapely.get_num_coordinates(straight) <= shapely.get_num_coordinates(outline), number
    yard = shapely.Polygon(shapely.box(0, 0, 40, 40).exterior, [shapely.box(10, 10, 30, 30).exterior])
    assert shapely.get_num_interior_rings(straighten(yard)) == 1
    single = shapely.box(0, 0, 1, 1)
    assert straighten(single).equals(single)


def _outlines(mask: Any) -> list[GradedBuilding]:
    from model.buildings import buildings_of, grade, separate

    return buildings_of(grade(separate(mask), np.full((4, *mask.shape), 0.25)))
