"""From a raster's coordinates to degrees on the ground, areas there, and a grid in metres.

Coordinates are x, y, or longitude, latitude, in this order in every CRS, as map programs and RFC 7946 have them.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from imagery.read.grid import WGS84

Geometries = npt.NDArray[np.object_]

_ELLIPSOID = Geod(ellps="WGS84")


def place(geometries: Geometries, transform: Affine) -> Geometries:
    """Moves geometries by an affine transform: from pixels to a raster's CRS, or back by the inverse."""
    matrix, shift = np.array([[transform.a, transform.d], [transform.b, transform.e]]), (transform.c, transform.f)
    return _transformed(geometries, lambda points: points @ matrix + shift)


def to_degrees(geometries: Geometries, crs: Any) -> Geometries:
    """Longitudes and latitudes of WGS 84; what crosses the antimeridian is cut there, as RFC 7946 asks for."""
    return _cut(_projected(geometries, crs, WGS84))


def from_degrees(geometries: Geometries, crs: Any, around: float) -> Geometries:
    """To a CRS, where it is one of degrees to the longitudes within 180 of `around`."""
    return _transformed(geometries, lambda points: points_from_degrees(points, crs, around))


def points_from_degrees(points: npt.NDArray[np.float64], crs: Any, around: float) -> npt.NDArray[np.float64]:
    """The same of points, [N, 2]."""
    projected = _projected_points(points, WGS84, crs)
    if not CRS.from_user_input(crs).is_geographic:
        return projected
    return projected + np.array([360.0, 0.0]) * np.round((around - projected[:, :1]) / 360)


def square_metres(polygons: Geometries) -> npt.NDArray[np.float64]:
    """Areas on the ellipsoid of WGS 84, of polygons in degrees; 0 where there is none."""
    rings, owners = rings_of(polygons)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    starts = np.searchsorted(of_ring, np.arange(len(rings) + 1)).tolist()
    longitude, latitude = points.T
    # As Geod.geometry_area_perimeter adds them up, which takes five times as long: rings of holes go the other way.
    areas = np.zeros(len(polygons))
    for owner, start, stop in zip(owners.tolist(), starts[:-1], starts[1:], strict=True):
        areas[owner] += _ELLIPSOID.polygon_area_perimeter(longitude[start:stop], latitude[start:stop])[0]
    return np.abs(areas)


def rings_of(polygons: Geometries) -> tuple[Geometries, npt.NDArray[np.int64]]:
    """The rings of polygons and of those with several parts, [R], and the number of the one that each is of, [R]."""
    parts, owners = shapely.get_parts(polygons, return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    return rings, owners[of_part]


def metric_crs(longitude: float, latitude: float) -> str:
    """The UTM zone of a place, or the polar stereographic CRS (UPS) beyond 84 north and 80 south."""
    if not -80 <= latitude <= 84:
        return "EPSG:32661" if latitude > 0 else "EPSG:32761"
    zone = int((longitude + 180) % 360 // 6) + 1
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def _projected(geometries: Geometries, source: Any, target: Any) -> Geometries:
    return _transformed(geometries, lambda points: _projected_points(points, source, target))


def _projected_points(points: npt.NDArray[np.float64], source: Any, target: Any) -> npt.NDArray[np.float64]:
    transformer = Transformer.from_crs(source, target, always_xy=True)
    return np.stack(transformer.transform(*points.T), axis=1)


def _transformed(geometries: Geometries, function: Any) -> Geometries:
    return np.asarray(shapely.transform(geometries, function), dtype=object)


def _cut(geometries: Geometries) -> Geometries:
    """Cuts what crosses the antimeridian: what spans half of the Earth, or goes on beyond 180 degrees."""
    cut = geometries.copy()
    for number in np.flatnonzero(_reaches_over(geometries)):
        parts = np.asarray(shapely.get_parts(geometries[number]), dtype=object)
        over = _reaches_over(parts)
        pieces = [*parts[~over], *(piece for part in parts[over] for piece in _cut_one(part))]
        cut[number] = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return cut


def _reaches_over(geometries: Geometries) -> npt.NDArray[np.bool_]:
    west, _, east, _ = shapely.bounds(geometries).T
    is_round = (west == -180) & (east == 180)  # all around the earth, and cut already
    return np.asarray(((east - west > 180) & ~is_round) | (west < -180) | (east > 180))


def _cut_one(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    start = shapely.get_coordinates(polygon)[0, 0]

    def unwrapped(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([start + (points[:, 0] - start + 180) % 360 - 180, points[:, 1]], axis=1)

    whole = shapely.make_valid(shapely.transform(polygon, unwrapped))
    if whole.area == 0:  # it goes once around, and its ends fell together
        whole = polygon
    parts = []
    for shift in (-360, 0, 360):
        part = shapely.intersection(whole, shapely.box(shift - 180, -90, shift + 180, 90))
        parts += [
            shapely.transform(piece, partial(_moved, west=shift))
            for own in shapely.get_parts(part)
            for piece in shapely.get_parts(own)
            if shapely.get_type_id(piece) == shapely.GeometryType.POLYGON and piece.area > 0
        ]
    return parts


def _moved(points: npt.NDArray[np.float64], west: float) -> npt.NDArray[np.float64]:
    return points - (west, 0)
