"""Buildings that were drawn where they are known to be come back from there, whatever the coordinate system."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from pyproj import Geod, Transformer

from imagery.find.ground import from_degrees, metric_crs, square_metres, to_degrees
from tests.imagery.predicted import draw, give_out, write_classes

GRADES = ("no-damage", "minor-damage", "major-damage", "destroyed")
ELLIPSOID = Geod(ellps="WGS84")


def box(x: float, y: float, width: float, height: float, angle: float = 0) -> Any:
    return shapely.affinity.rotate(shapely.box(x, y, x + width, y + height), angle)


def neighbourhood(left: float, top: float) -> list[tuple[Any, int]]:
    """Known buildings in metres and their grades: straight and turned, with a yard, of an L, small and large."""
    yard = box(60, -65, 40, 30).difference(box(70, -57, 18, 12))
    angled = box(20, -150, 30, 12).union(box(20, -150, 10, 34))
    shapes = [
        *((box(10 + 30 * number, -25, 18, 15, angle=11 * number), 1) for number in range(6)),
        (yard, 2),
        (angled, 3),
        (shapely.affinity.translate(shapely.affinity.rotate(angled, 38), 100, 75), 3),
        (box(110, -150, 60, 45, angle=30), 4),
        (box(20, -100, 18, 15), 4),
    ]
    return [(shapely.affinity.translate(shape, left, top), grade) for shape, grade in shapes]


def projected(polygon: Any, source: str, target: str) -> Any:
    """By points along its sides: a straight line in one CRS is none in another."""
    transformer = Transformer.from_crs(source, target, always_xy=True)
    dense = shapely.segmentize(polygon, 1.0)
    return shapely.transform(dense, lambda points: np.stack(transformer.transform(*points.T), axis=1))


PLACES = [
    ("EPSG:32633", "EPSG:32633", 0.5, 500_000, 4_000_000),
    ("EPSG:32633", "EPSG:4326", 5e-6, 500_000, 4_000_000),  # its authority names latitude first
    ("EPSG:32633", "EPSG:3857", 0.6, 500_000, 4_000_000),
    ("EPSG:32635", "EPSG:3857", 1.0, 450_000, 6_700_000),  # 60 north, where its metres are half a metre
    ("EPSG:32633", "EPSG:3035", 0.5, 500_000, 5_500_000),  # northing first
    ("EPSG:32721", "EPSG:32721", 0.5, 600_000, 6_300_000),  # south of the equator
    ("EPSG:2193", "EPSG:2193", 0.5, 1_750_000, 5_430_000),  # New Zealand, northing first
]


@pytest.mark.parametrize(("metric", "crs", "pixel", "left", "top"), PLACES)
def test_known_buildings_come_back_where_they_are(
    metric: str, crs: str, pixel: float, left: float, top: float, tmp_path: Path
) -> None:
    """Drawn by GDAL's own rasterization. Centroids within a metre, areas within 5 %."""
    truth = neighbourhood(left, top)
    shapes = [(projected(polygon, metric, crs), grade) for polygon, grade in truth]
    west, south, east, north = shapely.total_bounds([polygon for polygon, _ in shapes])
    transform = Affine(pixel, 0, west - 40.3 * pixel, 0, -pixel, north + 40.7 * pixel)
    size = round((north - south) / pixel) + 80, round((east - west) / pixel) + 80
    classes = write_classes(tmp_path / "classes.tif", draw(shapes, size, transform), crs, transform)
    assert len(give_out(classes, tmp_path / "out")) == len(truth)
    for name in ("buildings.gpkg", "buildings.geojson"):
        found = pyogrio.read_dataframe(tmp_path / "out" / name, layer="buildings")
        assert found.crs == "EPSG:4326"
        assert len(found) == len(truth)
        placed = found.to_crs(metric)
        for polygon, grade in truth:
            nearest = placed.distance(polygon.centroid).idxmin()
            assert placed.geometry[nearest].centroid.distance(polygon.centroid) < 1
            area = abs(ELLIPSOID.geometry_area_perimeter(projected(polygon, metric, "EPSG:4326"))[0])
            assert found["area_m2"][nearest] == pytest.approx(area, rel=0.05)
            assert abs(ELLIPSOID.geometry_area_perimeter(found.geometry[nearest])[0]) == pytest.approx(area, rel=0.05)
            assert (found["grade"][nearest], found["damage"][nearest]) == (grade, GRADES[grade - 1])
            assert found["confidence"][nearest] == 0.6
            assert len(shapely.get_parts(found.geometry[nearest])) == 1
    holes = shapely.get_num_interior_rings(shapely.get_parts(np.asarray(found.geometry)))
    assert holes.sum() == 1


@pytest.mark.parametrize("crs", ["EPSG:32701", "EPSG:32660", "EPSG:4326", "EPSG:3832"])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_scene_across_the_antimeridian_has_its_buildings_on_both_sides(crs: str, side: int, tmp_path: Path) -> None:
    """Three buildings, west of it, across it, and east of it; in degrees, the raster goes on beyond 180 or -180."""
    latitude = 52.0 if crs == "EPSG:32660" else -17.0
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(side * 180.0, latitude)
    pixel = 5e-6 if crs == "EPSG:4326" else 0.5
    transform = Affine(pixel, 0, x - 100 * pixel, 0, -pixel, y + 40 * pixel)
    damage = np.zeros((80, 200), np.uint8)
    damage[30:60, 10:50], damage[30:60, 80:130], damage[30:60, 150:190] = 1, 3, 4
    classes = write_classes(tmp_path / "classes.tif", damage, crs, transform)
    summary = give_out(classes, tmp_path / "out", cell=1000)
    assert 1 <= len(summary.parts) <= 2
    features = json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"]
    by_grade = {feature["properties"]["grade"]: feature for feature in features}
    kinds = [by_grade[grade]["geometry"]["type"] for grade in (1, 3, 4)]
    assert kinds == ["Polygon", "MultiPolygon", "Polygon"]  # RFC 7946, section 3.1.9
    shapes: dict[int, Any] = {grade: shapely.geometry.shape(feature["geometry"]) for grade, feature in by_grade.items()}
    assert 179.99 < shapes[1].centroid.x < 180
    assert -180 < shapes[4].centroid.x < -179.99
    assert sorted(round(part.centroid.x) for part in shapes[3].geoms) == [-180, 180]
    corner = [transform @ point for point in ((80, 30), (130, 30), (130, 60), (80, 60))]
    area = abs(ELLIPSOID.geometry_area_perimeter(unfolded(shapely.Polygon(corner), crs))[0])
    assert by_grade[3]["properties"]["area_m2"] == pytest.approx(area, rel=0.001)
    assert sum(abs(ELLIPSOID.geometry_area_perimeter(part)[0]) for part in shapes[3].geoms) == pytest.approx(
        area, rel=0.001
    )
    stored = pyogrio.read_dataframe(tmp_path / "out" / "buildings.gpkg", layer="buildings")
    assert (stored.bounds["maxx"] <= 180).all() and (stored.bounds["minx"] >= -180).all()


def unfolded(polygon: Any, crs: str) -> Any:
    """In degrees from 0 to 360, where nothing is cut at 180."""
    transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    return shapely.transform(
        polygon, lambda points: np.stack([(values := transformer.transform(*points.T))[0] % 360, values[1]], axis=1)
    )


def test_degrees_and_back_are_the_same_place() -> None:
    """Also where the raster counts its longitudes beyond 180."""
    boxes = np.array([shapely.box(179.5, 10, 180.5, 11), shapely.box(181, 10, 182, 11)], dtype=object)
    degrees = to_degrees(boxes, "EPSG:4326")
    assert [polygon.geom_type for polygon in degrees] == ["MultiPolygon", "Polygon"]
    assert degrees[1].equals(shapely.box(-179, 10, -178, 11))
    back = from_degrees(degrees, "EPSG:4326", around=180.0)
    assert shapely.total_bounds(back).tolist() == [179.5, 10, 182, 11]
    assert shapely.area(back).tolist() == [1.0, 1.0]


def test_what_goes_around_the_earth_is_not_cut_to_nothing() -> None:
    """The world, such as an area to sum up by; one that crosses 180 degrees on its way; two islands far apart."""
    whole, shifted = shapely.box(-180, -60, 180, 75), shapely.box(-100, 0, 260, 1)
    islands = shapely.MultiPolygon([shapely.box(west, 0, west + 2, 1) for west in (-170, 20, 179)])
    degrees = to_degrees(np.array([whole, shifted, islands], dtype=object), "EPSG:4326")
    assert degrees[0].equals(whole)
    assert degrees[1].bounds == (-180, 0, 180, 1)
    assert degrees[1].area == 360
    assert degrees[2].bounds == (-180, 0, 180, 1)
    assert degrees[2].area == 6


def test_a_polygon_that_crosses_itself_when_it_is_unwrapped_is_cut_all_the_same() -> None:
    odd = shapely.Polygon([(-170, 0), (170, 1), (-170, 1), (100, 0), (-100, 2), (-170, 3)])
    (degrees,) = to_degrees(np.array([shapely.make_valid(odd)], dtype=object), "EPSG:4326")
    assert degrees.area > 0
    assert np.abs(shapely.get_coordinates(degrees)[:, 0]).max() <= 180


@pytest.mark.parametrize(
    ("longitude", "latitude", "expected"),
    [
        (15.0, 36.0, "EPSG:32633"),
        (-180.0, 10.0, "EPSG:32601"),
        (179.99, -10.0, "EPSG:32760"),
        (180.0, -10.0, "EPSG:32701"),
        (0.0, 85.0, "EPSG:32661"),
        (0.0, -85.0, "EPSG:32761"),
    ],
)
def test_each_place_has_its_zone(longitude: float, latitude: float, expected: str) -> None:
    assert metric_crs(longitude, latitude) == expected


def test_areas_are_those_of_the_ellipsoid_also_of_several_parts_and_with_holes() -> None:
    yard: Any = shapely.box(15, 36, 15.01, 36.01).difference(shapely.box(15.002, 36.002, 15.004, 36.003))
    both = shapely.MultiPolygon([yard, shapely.box(15.02, 36, 15.03, 36.002)])
    polygons = np.array([yard, shapely.box(-60, -3, -59.9, -2.9), both, None], dtype=object)
    expected = [0 if own is None else abs(ELLIPSOID.geometry_area_perimeter(own)[0]) for own in polygons]
    np.testing.assert_allclose(square_metres(polygons), expected, rtol=1e-12)
