"""Known buildings, of OpenStreetMap or another map, graded by the pixels of predicted imagery that they cover."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio.windows import Window

from imagery.find.buildings import DAMAGE_BAND, GRADE_BANDS, SIDE
from imagery.find.ground import Geometries, from_degrees, place, to_degrees
from imagery.find.pixels import Flags, Numbers, Pixels
from imagery.find.votes import Votes, count_votes
from imagery.predict.blending import NODATA
from imagery.read.grid import Grid, blocks
from imagery.read.vector_files import VectorError
from imagery.read.vectors import Polygons

_Member = tuple[int, tuple[slice, slice], Flags]  # number of a polygon, where it lies in a block, its pixels there


class Footprints(NamedTuple):
    """polygons: [N], in degrees; votes: [N, 2, 4], none where nothing of a building was seen; attributes: a DataFrame
    of what the file says of each; notes: what was left out or mended; placed: [N] polygons in pixels; partly: [N]
    whether some of its pixels have no data; small: [N] whether it covers no pixel's centre, so that all pixels that it
    touches vote.
    """

    polygons: Geometries
    votes: Votes
    attributes: Any
    notes: tuple[str, ...]
    placed: Geometries
    partly: Flags
    small: Flags


def onto_grid(given: Polygons, grid: Grid) -> tuple[Geometries, Geometries, Flags]:
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
        votes, covering, partly = _vote(dataset, pixels, inside, touched=False)
        small = inside & ~covering
        more, _, without = _vote(dataset, pixels, small, touched=True)
    attributes = given.frame.drop(columns="geometry")
    return Footprints(polygons, votes + more, attributes, given.notes, pixels, partly | without, small)


def footprint_pixels(classes: Path, footprints: Footprints) -> Iterator[Pixels]:
    """The pixels that voted in `grade_footprints`."""
    seen = footprints.votes[:, 1].any(1)
    with rasterio.open(classes) as dataset:
        for touched in (False, True):
            asked = seen & (footprints.small == touched)
            for window, members in _members(dataset, footprints.placed, asked, touched=touched):
                has_data = dataset.read(DAMAGE_BAND, window=window) != NODATA
                numbers, places = [], []
                for number, (rows, columns), mask in members:
                    numbers.append(number)
                    corner = np.array([window.row_off + rows.start, window.col_off + columns.start])
                    places.append(corner + np.argwhere(mask & has_data[rows, columns]))
                owners = np.repeat(np.arange(len(places)), [len(own) for own in places])
                yield Pixels(np.array(numbers), owners, *np.concatenate(places).T)


def _vote(dataset: Any, polygons: Geometries, asked: Flags, *, touched: bool) -> tuple[Votes, Flags, Flags]:
    """Votes of the pixels whose centres, or with `touched` any part, lie in those of the polygons that are asked for;
    which polygons cover any, seen or not, and which any without data. polygons: in pixels.
    """
    votes = np.zeros((len(polygons), 2, 4), np.int64)
    covering, partly = np.zeros(len(polygons), bool), np.zeros(len(polygons), bool)
    for window, members in _members(dataset, polygons, asked, touched=touched):
        damage, *grades = dataset.read([DAMAGE_BAND, *GRADE_BANDS], window=window)
        probabilities = np.stack(grades)
        for number, part, mask in members:
            covering[number] |= mask.any()
            has_data = damage[part] != NODATA
            partly[number] |= (mask & ~has_data).any()
            labels = (mask & has_data).astype(np.int32)
            votes[number] += count_votes(labels, probabilities[:, part[0], part[1]], 2)[1]
    return votes, covering, partly


def _members(
    dataset: Any, polygons: Geometries, asked: Flags, *, touched: bool
) -> Iterator[tuple[Window, Iterator[_Member]]]:
    """The blocks of a raster in which some of the polygons that are asked for lie, and what each covers there."""
    bounds = shapely.bounds(polygons)
    shapely.prepare(polygons[asked])
    first = np.floor(np.nan_to_num(bounds[:, :2])).astype(np.int64)
    last = np.ceil(np.nan_to_num(bounds[:, 2:])).astype(np.int64)
    for window in blocks(dataset.width, dataset.height, SIDE):
        start = np.array([window.col_off, window.row_off])
        size = np.array([window.width, window.height])
        low, high = np.maximum(first - start, 0), np.minimum(last - start, size)
        members = np.flatnonzero(asked & (low < high).all(1))
        if len(members) > 0:
            yield window, (_member(n, polygons[n], start, low[n], high[n], touched) for n in members.tolist())


def _member(
    number: int, polygon: shapely.Geometry, start: Numbers, low: Numbers, high: Numbers, touched: bool
) -> _Member:
    """What a polygon covers of a block from `start` (column, row) on, between the corners `low` and `high` there."""
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    return number, np.s_[top:bottom, left:right], _cover(polygon, start + low, high - low, touched)


def _cover(polygon: shapely.Geometry, corner: Numbers, size: Numbers, touched: bool) -> Flags:
    """Which pixels from `corner` (column, row) on are covered, [H, W]; size: W and H."""
    columns, rows = np.meshgrid(corner[0] + np.arange(size[0]), corner[1] + np.arange(size[1]))
    if touched:
        return np.asarray(shapely.intersects(polygon, shapely.box(columns, rows, columns + 1, rows + 1)))
    return np.asarray(shapely.intersects_xy(polygon, columns + 0.5, rows + 0.5))


def _extent(polygons: Geometries) -> str:
    return " ".join(f"{value:.5f}" for value in shapely.total_bounds(polygons))
