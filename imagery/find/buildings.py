"""The single buildings of predicted imagery, read block by block: each whole and once, whatever the blocks.

What hangs together within a block is a part of a building. Parts that meet at the border of two blocks belong to one
building: their votes are added up and their outlines joined. Memory is that of a block and of the buildings found.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.windows import Window

from imagery.find.votes import Votes, count_votes
from imagery.predict.blending import NODATA
from imagery.read.grid import blocks
from model.buildings import outlines, separate

DAMAGE_BAND, GRADE_BANDS = 1, [3, 4, 5, 6]  # of classes.tif
SIDE = 1024  # pixels of a side of what is looked at together
Outlines = npt.NDArray[np.object_]
_Numbers = npt.NDArray[np.int64]


class Buildings(NamedTuple):
    """Buildings in the order of their first pixels, row by row. votes: [N, 2, 4], see `imagery.find.votes.count_votes`.

    outlines: [N] polygons along the borders of their pixels, with holes; x to the right and y down, in pixels.
    """

    votes: Votes
    outlines: Outlines


class _Parts(NamedTuple):
    """Of a block. first: index of each part's first pixel, in the raster; edges: numbers of the parts, 0 for none."""

    votes: Votes
    outlines: list[shapely.Geometry]
    first: _Numbers
    left: _Numbers
    right: _Numbers
    top: _Numbers
    bottom: _Numbers


def find_buildings(classes: Path, side: int = SIDE) -> Buildings:
    """The buildings of classes.tif, which `imagery.predict.inference` writes, looked at in blocks of `side` pixels."""
    votes, outlines, first = [np.zeros((0, 2, 4), np.int64)], list[shapely.Geometry](), [np.zeros(0, np.int64)]
    pairs = [np.zeros((0, 2), np.int64)]
    with rasterio.open(classes) as dataset:
        above = np.zeros(dataset.width, np.int64)
        before = np.zeros(side, np.int64)
        for window in blocks(dataset.width, dataset.height, side):
            columns = slice(window.col_off, window.col_off + window.width)
            parts = _parts(dataset, window, len(outlines))
            if window.col_off > 0:
                pairs.append(_meeting(before[: window.height], parts.left))
            pairs.append(_meeting(above[columns], parts.top))
            above[columns], before[: window.height] = parts.bottom, parts.right
            votes.append(parts.votes)
            first.append(parts.first)
            outlines += parts.outlines
    return _join(np.concatenate(votes), outlines, np.concatenate(first), np.concatenate(pairs))


def _parts(dataset: Any, window: Window, known: int) -> _Parts:
    """The parts in a block; their numbers go on from those `known` already, from 1."""
    damage = dataset.read(DAMAGE_BAND, window=window)
    labels = separate(((damage > 0) & (damage != NODATA)).astype(np.uint8))
    count = int(labels.max(initial=0))
    edges = [
        np.where(edge > 0, edge.astype(np.int64) + known, 0)
        for edge in (labels[:, 0], labels[:, -1], labels[0], labels[-1])
    ]
    if count == 0:
        return _Parts(np.zeros((0, 2, 4), np.int64), [], np.zeros(0, np.int64), *edges)
    votes = count_votes(labels, dataset.read(GRADE_BANDS, window=window), count + 1)[1:]
    inside = np.flatnonzero(labels)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[labels.ravel()[inside]] = inside  # of several pixels the last one stays, which is the first of the label
    rows, columns = np.divmod(first[1:], window.width)
    corner = np.array([window.col_off, window.row_off])
    found = dict(outlines(labels))
    whole: list[shapely.Geometry] = [shapely.transform(found[number], corner.__add__) for number in range(1, count + 1)]
    return _Parts(votes, whole, (rows + window.row_off) * dataset.width + columns + window.col_off, *edges)


def _meeting(one: _Numbers, other: _Numbers) -> _Numbers:
    """Pairs of numbers that lie side by side, [N, 2]."""
    both = (one > 0) & (other > 0)
    return np.unique(np.stack([one[both], other[both]], axis=1), axis=0)


def _join(votes: Votes, outlines: Sequence[shapely.Geometry], first: _Numbers, pairs: _Numbers) -> Buildings:
    """Buildings of their parts. pairs: numbers, from 1, of parts that belong together."""
    _, building = np.unique(_roots(len(outlines), pairs), return_inverse=True)
    count = int(building.max(initial=-1)) + 1
    total, start = np.zeros((count, 2, 4), np.int64), np.full(count, np.iinfo(np.int64).max)
    np.add.at(total, building, votes)
    np.minimum.at(start, building, first)
    members: list[list[shapely.Geometry]] = [[] for _ in range(count)]
    for number, outline in zip(building.tolist(), outlines, strict=True):
        members[number].append(outline)
    whole = np.array([part[0] if len(part) == 1 else shapely.union_all(part) for part in members], dtype=object)
    order = start.argsort()
    # From a corner on, and without what lies between two corners: the same polygon whatever its parts were.
    return Buildings(total[order], shapely.normalize(shapely.simplify(shapely.normalize(whole), 0))[order])


def _roots(count: int, pairs: _Numbers) -> _Numbers:
    """For each part the least number that it hangs together with."""
    parents = list(range(count))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    for one, other in (pairs - 1).tolist():
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(number) for number in range(count)], np.int64)
