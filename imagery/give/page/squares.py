"""Squares of a map in which people look for buildings that it missed: drawn at random, with pictures of the first."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from imagery.find.buildings import SIDE
from imagery.find.ground import place, to_degrees
from imagery.find.shapes import Shapes
from imagery.give.look import Read, Square, chips
from imagery.predict.blending import NODATA
from imagery.read.grid import Grid, blocks
from imagery.sampling.squares import SIDE as METRES
from imagery.sampling.squares import Squares, draw_squares

Boxes = npt.NDArray[np.float64]  # [N, 4]: left, top, right, bottom
PICTURED = 50  # of the order, of which the page has pictures
AROUND = 1.3  # a picture's side over that of its square


def squares_of(damage: Path, map_hash: str) -> Squares:
    """The squares of damage.tif where both images have data, drawn by a seed that is of the map's hash."""
    with rasterio.open(damage) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        across, along = grid.sides
        columns, rows = (_cells(count, side) for count, side in ((grid.width, across), (grid.height, along)))
        seen = np.zeros((rows[-1] + 1, columns[-1] + 1), bool)
        for window in blocks(grid.width, grid.height, SIDE):
            has_data = dataset.read(1, window=window) != NODATA
            high, wide = window.toslices()
            cells, firsts = zip(
                *(np.unique(own, return_index=True) for own in (rows[high], columns[wide])), strict=True
            )
            by_row = np.logical_or.reduceat(has_data, firsts[0], axis=0)
            seen[np.ix_(*cells)] |= np.logical_or.reduceat(by_row, firsts[1], axis=1)
    return draw_squares(seen, int(map_hash[:8], 16), map_hash)


def _cells(count: int, side: float) -> npt.NDArray[np.int64]:
    """In which square, counted from the edge, the middle of each pixel lies. side: of a pixel, in metres."""
    return ((np.arange(count) + 0.5) * side / METRES).astype(np.int64)


def squares_for_page(squares: Squares, read: Read, outlines: Shapes, around: Boxes, grid: Grid) -> dict[str, Any]:
    """What the page shows of the first squares, fit for JSON. outlines: the buildings of the map, in pixels; around:
    boxes of these, or larger ones, [N, 4].

    pictures: left, top and side in pixels, and both images as data URIs; boxes: corners in pixels; polygons: the same
    in degrees; rows: of the map's table, those that a picture shows.
    """
    boxes = squares.corners(grid.sides, (grid.width, grid.height))[:PICTURED]
    whole = round(AROUND * squares.side / min(grid.sides))
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    shown = [Square(round(x - whole / 2), round(y - whole / 2), whole) for x, y in middles.tolist()]
    images = chips(read, shown, grid.width, grid.height)
    frames = np.array([shapely.box(own.left, own.top, own.left + whole, own.top + whole) for own in shown], object)
    left, top, right, bottom = around.T
    near = np.zeros(len(around), bool)
    for own in shown:
        near |= (left <= own.left + whole) & (right >= own.left) & (top <= own.top + whole) & (bottom >= own.top)
    candidates = np.flatnonzero(near)
    row, number = shapely.STRtree(frames).query(outlines[candidates], predicate="intersects")
    row = candidates[row]
    polygons = to_degrees(place(np.asarray(shapely.box(*boxes.T), dtype=object), grid.transform), grid.crs)
    rounded = shapely.transform(shapely.orient_polygons(polygons), lambda points: points.round(7))
    return {
        "pictures": [[*own, *pair] for own, pair in zip(shown, images, strict=True)],
        "boxes": boxes.round(1).tolist(),
        "polygons": [shapely.geometry.mapping(polygon) for polygon in rounded],
        "rows": [np.sort(row[number == own]).tolist() for own in range(len(shown))],
    }
