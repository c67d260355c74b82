"""Known buildings, of OpenStreetMap or another map, graded by the pixels of predicted imagery that they cover."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from imagery.find.buildings import DAMAGE_BAND, GRADE_BANDS, SIDE
from imagery.find.ground import Geometries, from_degrees, place, to_degrees
from imagery.find.votes import Votes, count_votes
from imagery.predict.blending import NODATA
from imagery.read.grid import Grid, blocks
from imagery.read.vector_files import VectorError
from imagery.read.vectors import Polygons

_Flags = npt.NDArray[np.bool_]


class Footprints(NamedTuple):
    """polygons: [N], in degrees; votes: [N, 2, 4], none where nothing of a building was seen; attributes: a DataFrame
    of what the file says of each; notes: what was left out or mended.
    """

    polygons: Geometries
    votes: Votes
    attributes: Any
    notes: tuple[str, ...]


def onto_grid(given: Polygons, grid: Grid) -> tuple[Geometries, Geometries, _Flags]:
    """The polygons in degrees, the same in pixels of the grid, and which of them reach into its frame.

    Raises VectorError where none does.
    """
    polygons = to_degrees(np.asarray(given.frame.geometry, dtype=object), given.frame.crs)
    middle = (grid.transform @ (grid.width / 2, grid.height / 2))[0]
    pixels = place(from_degrees(polygons, grid.crs, middle), ~grid.transform)
    west, north, east, south = shapely.bounds(pixels).T
    inside = (west < grid.width) & (north < grid.height) & (east > 0) & (south > 0)
    if not inside.any():
        raise VectorError(
            f"{given.path}: lies outside the imagery, at {_extent(polygons)} degrees (west, south, east, north), the "
            f"imagery at {grid.extent}. Give buildings of the same place."
        )
    return polygons, pixels, inside


def grade_footprints(given: Polygons, classes: Path) -> Footprints:
    """Lets the pixels of classes.tif whose centres lie in a building vote, whatever class they have; for a building
    smaller than that, all pixels that it touches. Overlapping buildings do not disturb each other.

    Raises VectorError where none of the buildings lies in the imagery.
    """
    with rasterio.open(classes) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        polygons, pixels, inside = onto_grid(given, grid)
        votes, covering = _vote(dataset, pixels, inside, touched=False)
        votes += _vote(dataset, pixels, inside & ~covering, touched=True)[0]
    return Footprints(polygons, votes, given.frame.drop(columns="geometry"), given.notes)


def _vote(dataset: Any, polygons: Geometries, asked: _Flags, *, touched: bool) -> tuple[Votes, _Flags]:
    """Votes of the pixels whose centres, or with `touched` any part, lie in those of the polygons that are asked for;
    and which polygons cover any, seen or not. polygons: in pixels.
    """
    votes, covering = np.zeros((len(polygons), 2, 4), np.int64), np.zeros(len(polygons), bool)
    bounds = shapely.bounds(polygons)
    shapely.prepare(polygons[asked])
    first = np.floor(np.nan_to_num(bounds[:, :2])).astype(np.int64)
    last = np.ceil(np.nan_to_num(bounds[:, 2:])).astype(np.int64)
    for window in blocks(dataset.width, dataset.height, SIDE):
        start = np.array([window.col_off, window.row_off])
        size = np.array([window.width, window.height])
        low, high = np.maximum(first - start, 0), np.minimum(last - start, size)
        members = np.flatnonzero(asked & (low < high).all(1))
        if len(members) == 0:
            continue
        damage, *grades = dataset.read([DAMAGE_BAND, *GRADE_BANDS], window=window)
        probabilities = np.stack(grades)
        for number in members:
            (left, top), (right, bottom) = low[number], high[number]
            part = np.s_[top:bottom, left:right]
            mask = _cover(polygons[number], start + low[number], damage[part].shape, touched)
            covering[number] |= mask.any()
            labels = (mask & (damage[part] != NODATA)).astype(np.int32)
            votes[number] += count_votes(labels, probabilities[:, part[0], part[1]], 2)[1]
    return votes, covering


def _cover(polygon: shapely.Geometry, corner: npt.NDArray[np.int64], shape: tuple[int, ...], touched: bool) -> _Flags:
    """Which pixels of [H, W] from `corner` (column, row) on are covered."""
    columns, rows = np.meshgrid(corner[0] + np.arange(shape[1]), corner[1] + np.arange(shape[0]))
    if touched:
        return np.asarray(shapely.intersects(polygon, shapely.box(columns, rows, columns + 1, rows + 1)))
    return np.asarray(shapely.intersects_xy(polygon, columns + 0.5, rows + 0.5))


def _extent(polygons: Geometries) -> str:
    return " ".join(f"{value:.5f}" for value in shapely.total_bounds(polygons))
