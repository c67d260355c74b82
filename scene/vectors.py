"""Buildings as map features: polygons on the ground, a little straightened, written for every map program."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import pyogrio
import shapely
from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS

from model.buildings import GradedBuilding, Outline
from model.metric import GRADES
from scene.grid import WGS84

NAMES = tuple(name.replace("_", "-") for name in GRADES)  # as in xBD
RECTANGULAR = 0.85  # intersection over union with a rectangle from which a building is one
AREA_TOLERANCE = 0.1  # by how much simplifying may change an area before it is given back
_ELLIPSOID = Geod(ellps="WGS84")


class Feature(NamedTuple):
    """A building on the ground. polygon: in degrees, longitude first; area: square metres on the ellipsoid; shares: of
    its pixels, by their own most probable grade.
    """

    grade: int
    confidence: float
    area: float
    shares: tuple[float, ...]
    polygon: Outline


def straighten(outline: Outline) -> Outline:
    """An outline along pixel borders without its steps: a rectangle where it nearly is one, else simplified by a pixel.

    Its area stays, holes stay, nothing vanishes.
    """
    rectangle = outline.minimum_rotated_rectangle
    if isinstance(rectangle, shapely.Polygon) and rectangle.area > 0:
        turned = _with_area(rectangle, outline.area)
        if turned.intersection(outline).area / turned.union(outline).area > RECTANGULAR:
            return turned
    for tolerance in (1.5, 1.0, 0.75, 0.5):
        simple = outline.simplify(tolerance, preserve_topology=True)
        near = abs(simple.area - outline.area) <= AREA_TOLERANCE * outline.area
        if near and simple.is_valid and isinstance(simple, shapely.Polygon | shapely.MultiPolygon):
            return _with_area(simple, outline.area)
    return outline


def _with_area(polygon: Outline, area: float) -> Outline:
    factor = math.sqrt(area / polygon.area)
    return shapely.affinity.scale(polygon, factor, factor, origin=polygon.centroid)


def locate(buildings: Iterable[GradedBuilding], crs: CRS, transform: Affine) -> list[Feature]:
    """The buildings of a raster of this grid, on the ground."""
    found = list(buildings)
    matrix = [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]
    outlines = [shapely.affinity.affine_transform(straighten(building.polygon), matrix) for building in found]
    placed = geopandas.GeoSeries(outlines, crs=crs).to_crs(WGS84)
    return [
        Feature(building.grade, building.confidence, area_of(polygon), building.shares, polygon)
        for building, polygon in zip(found, placed, strict=True)
    ]


def area_of(polygon: Any) -> float:
    """Square metres on the ellipsoid of WGS84, of a polygon in degrees."""
    return float(abs(_ELLIPSOID.geometry_area_perimeter(polygon)[0]))


def frame_of(features: Sequence[Feature]) -> Any:
    """A GeoDataFrame of the features, numbered from 1."""
    columns = {
        "id": range(1, len(features) + 1),
        "damage": [NAMES[feature.grade - 1] for feature in features],
        "grade": [feature.grade for feature in features],
        "confidence": [round(feature.confidence, 3) for feature in features],
        "area_m2": [round(feature.area, 1) for feature in features],
        **{
            f"share_{name}": [round(feature.shares[number], 3) for feature in features]
            for number, name in enumerate(GRADES)
        },
    }
    return geopandas.GeoDataFrame(columns, geometry=[feature.polygon for feature in features], crs=WGS84)


def write_vectors(features: Sequence[Feature], folder: Path) -> None:
    """Writes buildings.gpkg, and buildings.geojson by RFC 7946: rings counter-clockwise, cut at the antimeridian."""
    frame = frame_of(features)
    kind = "MultiPolygon"
    pyogrio.write_dataframe(
        frame, folder / "buildings.gpkg", layer="buildings", driver="GPKG", geometry_type=kind, promote_to_multi=True
    )
    pyogrio.write_dataframe(
        frame, folder / "buildings.geojson", driver="GeoJSON", geometry_type="Unknown", RFC7946=True, ID_FIELD="id"
    )
