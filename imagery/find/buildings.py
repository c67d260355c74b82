"""The single buildings of predicted imagery, read block by block: each whole and once, whatever the blocks.

What hangs together within a block is a part of a building. Parts that meet at the border of two blocks belong to one
building: their votes are added up and their outlines joined. In memory are a block and some numbers of each building.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.windows import Window

from imagery.find.joining import MISSING, Buildings, Edges, Pieces, ending_beside, flags, join_parts, meeting, positive
from imagery.find.pixels import Flags, Numbers, Pixels
from imagery.find.shapes import StoredShapes
from imagery.find.votes import Votes, count_votes
from imagery.predict.blending import NODATA
from imagery.read.grid import blocks
from model.buildings import outlines, separate

DAMAGE_BAND, GRADE_BANDS = 1, [3, 4, 5, 6]  # of classes.tif
SIDE = 1024  # pixels of a side of what is looked at together
Corner = tuple[int, int]


class _Parts(NamedTuple):
    """Of a block. first: index of each part's first pixel, in the raster; ending: numbers of those that lie beside
    pixels without data.
    """

    votes: Votes
    outlines: list[shapely.Geometry]
    first: Numbers
    ending: Numbers
    edges: Edges


def find_buildings(classes: Path, side: int = SIDE) -> Buildings:
    """The buildings of classes.tif, which `imagery.predict.inference` writes, looked at in blocks of `side` pixels.
    Their outlines lie in a file on its disk.
    """
    return find_pieces(classes, side).buildings


def find_pieces(classes: Path, side: int = SIDE, corner: Corner = (0, 0), width: int | None = None) -> Pieces:
    """The buildings of the classes.tif of a shard, whose outlines are in pixels of the whole raster. corner: column and
    row of its first pixel there, multiples of `side`; width: of the whole raster.
    """
    votes, outlines, first = [np.zeros((0, 2, 4), np.int64)], StoredShapes(classes.parent), [np.zeros(0, np.int64)]
    pairs, ending, known = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)], 0
    with rasterio.open(classes) as dataset:
        above = np.zeros(dataset.width, np.int64)
        before = np.zeros(side, np.int64)
        around = Edges(*(np.zeros(length, np.int64) for length in 2 * [dataset.height] + 2 * [dataset.width]))
        for window in blocks(dataset.width, dataset.height, side):
            rows, columns = window.toslices()
            parts = _parts(dataset, window, known, corner, width or dataset.width)
            edges = parts.edges
            beside = before[: window.height] * (window.col_off > 0)
            for one, other in ((beside, edges.left), (above[columns], edges.top)):
                pairs.append(meeting(one, other))
                ending.append(ending_beside(one, other))
            ending.append(parts.ending)
            above[columns], before[: window.height] = edges.bottom, edges.right
            if window.col_off == 0:
                around.left[rows] = edges.left
            if window.row_off == 0:
                around.top[columns] = edges.top
            around.right[rows], around.bottom[columns] = edges.right, edges.bottom  # of the last blocks in the end
            votes.append(parts.votes)
            first.append(parts.first)
            outlines.append(np.array(parts.outlines, dtype=object))
            known += len(parts.first)
    return join_parts(
        np.concatenate(votes), outlines, np.concatenate(first), flags(ending, known), np.concatenate(pairs), around,
        classes.parent,
    )  # fmt: skip


def building_pixels(classes: Path, buildings: Buildings, side: int = SIDE, corner: Corner = (0, 0)) -> Iterator[Pixels]:
    """The pixels of the buildings that `find_buildings` or `find_pieces` found, in the same blocks."""
    known = 0
    with rasterio.open(classes) as dataset:
        for window in blocks(dataset.width, dataset.height, side):
            labels = _labels(dataset.read(DAMAGE_BAND, window=window))
            count = int(labels.max(initial=0))
            numbers, owners = np.unique(buildings.parts[known : known + count], return_inverse=True)
            rows, columns = np.nonzero(labels)
            down, across = window.row_off + corner[1], window.col_off + corner[0]
            yield Pixels(numbers, owners[labels[rows, columns] - 1], rows + down, columns + across)
            known += count


def _labels(damage: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    return separate(((damage > 0) & (damage != NODATA)).astype(np.uint8))


def _parts(dataset: Any, window: Window, known: int, corner: Corner, width: int) -> _Parts:
    """The parts in a block; their numbers go on from those `known` already. corner, width: see `find_pieces`."""
    damage = dataset.read(DAMAGE_BAND, window=window)
    labels, missing = _labels(damage), damage == NODATA
    count = int(labels.max(initial=0))
    edges = Edges(
        *(
            np.where(labels[edge] > 0, labels[edge].astype(np.int64) + known, np.where(missing[edge], MISSING, 0))
            for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[0], np.s_[-1])
        )
    )
    if count == 0:
        return _Parts(np.zeros((0, 2, 4), np.int64), [], np.zeros(0, np.int64), np.zeros(0, np.int64), edges)
    votes = count_votes(labels, dataset.read(GRADE_BANDS, window=window), count + 1)[1:]
    inside = np.flatnonzero(labels)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[labels.ravel()[inside]] = inside  # of several pixels the last one stays, which is the first of the label
    rows, columns = np.divmod(first[1:], window.width)
    start = np.array([window.col_off, window.row_off]) + corner
    found = dict(outlines(labels))
    whole: list[shapely.Geometry] = [shapely.transform(found[number], start.__add__) for number in range(1, count + 1)]
    places = (rows + start[1]) * width + columns + start[0]
    return _Parts(votes, whole, places, _beside(labels, missing) + known, edges)


def _beside(labels: npt.NDArray[np.int32], missing: Flags) -> Numbers:
    """The labels of pixels that have a side in common with a missing one."""
    found = [
        labels[one][missing[other]]
        for axis in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]))
        for one, other in (axis, axis[::-1])
    ]
    return positive(*found)
