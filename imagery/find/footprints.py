"""Known buildings, of OpenStreetMap or another map, graded by the pixels of predicted imagery that they cover."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio.windows import Window

from imagery.find.buildings import DAMAGE_BAND, GRADE_BANDS, SIDE, Corner
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

    def at(self, rows: Numbers) -> "Footprints":
        """Those of some buildings, in this order."""
        kept = {name: own[rows] for name, own in self._asdict().items() if name not in ("attributes", "notes")}
        return self._replace(attributes=self.attributes.iloc[rows], **kept)


def onto_grid(given: Polygons, grid: Grid) -> tuple[Geometries, Geometries, Flags]:
    """The polygons in degrees, the same in pixels of the grid, and which of them reach into its frame.

    Raises VectorError where none does.
    """
    polygons = to_degrees(np.asarray(given.frame.geometry, dtype=object), given.frame.crs)
    middle = (grid.transform @ (grid.width / 2, grid.height / 2))[0]
    pixels = place(from_degrees(polygons, grid.crs, middle), ~grid.transform)
    inside = _reach_into(pixels, Window(0, 0, grid.width, grid.height))
    if not inside.any():
        raise VectorError(
            f"{given.path}: lies outside the imagery, at {_extent(polygons)} degrees (west, south, east, north), the "
            f"imagery at {grid.extent}. Give buildings of the same place."
        )
    return polygons, pixels, inside


def place_footprints(given: Polygons, grid: Grid) -> Footprints:
    """The buildings before any pixel voted. Raises VectorError where none of them lies in the imagery."""
    polygons, pixels, _ = onto_grid(given, grid)
    attributes, count = given.frame.drop(columns="geometry"), len(polygons)
    nothing = np.zeros(count, bool)
    return Footprints(
        polygons, np.zeros((count, 2, 4), np.int64), attributes, given.notes, pixels, nothing, nothing.copy()
    )  # fmt: skip


def grade_footprints(given: Polygons, classes: Path) -> Footprints:
    """Lets the pixels of classes.tif whose centres lie in a building vote, whatever class they have; for a building
    smaller than that, all pixels that it touches. Overlapping buildings do not disturb each other.

    Raises VectorError where none of the buildings lies in the imagery.
    """
    with rasterio.open(classes) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    return grade_part(place_footprints(given, grid), classes, grid)


def grade_part(placed: Footprints, classes: Path, grid: Grid, corner: Corner = (0, 0)) -> Footprints:
    """The same with the classes.tif of a shard: votes, and whether something has no data, of its pixels alone, so that
    they add up over shards; small of those that reach into it.

    placed: see `place_footprints`; grid: of the whole raster; corner: column and row of the shard's first pixel there.
    """
    pixels = placed.placed
    with rasterio.open(classes) as dataset:
        part = Window(*corner, dataset.width, dataset.height)
        asked = _reach_into(pixels, part)
        votes, covering, partly = _vote(dataset, part, pixels, asked, touched=False)
        small = asked & ~covering
        small &= ~_cover_any(Window(0, 0, grid.width, grid.height), pixels, small & reach_beyond(pixels, part))
        more, _, without = _vote(dataset, part, pixels, small, touched=True)
    return placed._replace(votes=votes + more, partly=partly | without, small=small)


def footprint_pixels(classes: Path, footprints: Footprints, corner: Corner = (0, 0)) -> Iterator[Pixels]:
    """The pixels that voted in `grade_footprints`, or in `grade_part` with this corner."""
    seen = footprints.votes[:, 1].any(1)
    with rasterio.open(classes) as dataset:
        part = Window(*corner, dataset.width, dataset.height)
        for touched in (False, True):
            asked = seen & (footprints.small == touched)
            for window, members in _members(part, footprints.placed, asked, touched=touched):
                has_data = dataset.read(DAMAGE_BAND, window=_within(part, window)) != NODATA
                numbers, places = [], []
                for number, (rows, columns), mask in members:
                    numbers.append(number)
                    start = np.array([window.row_off + rows.start, window.col_off + columns.start])
                    places.append(start + np.argwhere(mask & has_data[rows, columns]))
                owners = np.repeat(np.arange(len(places)), [len(own) for own in places])
                yield Pixels(np.array(numbers), owners, *np.concatenate(places).T)


def reach_beyond(polygons: Geometries, part: Window) -> Flags:
    """Whether polygons in pixels of a raster may cover pixels outside of a part of it, [N]."""
    west, north, east, south = shapely.bounds(polygons).T
    right, bottom = part.col_off + part.width, part.row_off + part.height
    return np.asarray((west < part.col_off) | (north < part.row_off) | (east > right) | (south > bottom))


def _reach_into(polygons: Geometries, part: Window) -> Flags:
    west, north, east, south = shapely.bounds(polygons).T
    right, bottom = part.col_off + part.width, part.row_off + part.height
    return np.asarray((west < right) & (north < bottom) & (east > part.col_off) & (south > part.row_off))


def _cover_any(part: Window, polygons: Geometries, asked: Flags) -> Flags:
    """Which of the polygons that are asked for cover the centre of a pixel of a part of a raster, [N]."""
    covering = np.zeros(len(polygons), bool)
    for _, members in _members(part, polygons, asked, touched=False):
        for number, _, mask in members:
            covering[number] |= mask.any()
    return covering


def _vote(
    dataset: Any, part: Window, polygons: Geometries, asked: Flags, *, touched: bool
) -> tuple[Votes, Flags, Flags]:
    """Votes of the pixels whose centres, or with `touched` any part, lie in those of the polygons that are asked for;
    which polygons cover any, seen or not, and which any without data. dataset: of a part of a raster; polygons: in
    pixels of the raster.
    """
    votes = np.zeros((len(polygons), 2, 4), np.int64)
    covering, partly = np.zeros(len(polygons), bool), np.zeros(len(polygons), bool)
    for window, members in _members(part, polygons, asked, touched=touched):
        damage, *grades = dataset.read([DAMAGE_BAND, *GRADE_BANDS], window=_within(part, window))
        probabilities = np.stack(grades)
        for number, (rows, columns), mask in members:
            covering[number] |= mask.any()
            has_data = damage[rows, columns] != NODATA
            partly[number] |= (mask & ~has_data).any()
            labels = (mask & has_data).astype(np.int32)
            votes[number] += count_votes(labels, probabilities[:, rows, columns], 2)[1]
    return votes, covering, partly


def _within(part: Window, window: Window) -> Window:
    """A window of the raster, in the file of a part of it."""
    return Window(window.col_off - part.col_off, window.row_off - part.row_off, window.width, window.height)


def _members(
    part: Window, polygons: Geometries, asked: Flags, *, touched: bool
) -> Iterator[tuple[Window, Iterator[_Member]]]:
    """The blocks of a part of a raster in which some of the polygons that are asked for lie, in pixels of the raster,
    and what each covers there.
    """
    numbers = np.flatnonzero(asked)
    wanted = polygons[numbers]
    bounds = shapely.bounds(wanted)
    shapely.prepare(wanted)
    first = np.floor(np.nan_to_num(bounds[:, :2])).astype(np.int64)
    last = np.ceil(np.nan_to_num(bounds[:, 2:])).astype(np.int64)
    for block in blocks(part.width, part.height, SIDE):
        start = np.array([part.col_off + block.col_off, part.row_off + block.row_off])
        size = np.array([block.width, block.height])
        low, high = np.maximum(first - start, 0), np.minimum(last - start, size)
        members = np.flatnonzero((low < high).all(1))
        if len(members) > 0:
            yield (
                Window(*start.tolist(), block.width, block.height),
                (_member(int(numbers[n]), wanted[n], start, low[n], high[n], touched) for n in members.tolist()),
            )


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
