"""The single buildings of predicted imagery, read block by block: each whole and once, whatever the blocks.

What hangs together within a block is a part of a building. Parts that meet at the border of two blocks belong to one
building: their votes are added up and their outlines joined. Memory is that of a block and of the buildings found.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.windows import Window

from imagery.find.pixels import Flags, Numbers, Pixels
from imagery.find.votes import Votes, count_votes
from imagery.predict.blending import NODATA
from imagery.read.grid import blocks
from model.buildings import outlines, separate

DAMAGE_BAND, GRADE_BANDS = 1, [3, 4, 5, 6]  # of classes.tif
SIDE = 1024  # pixels of a side of what is looked at together
Outlines = npt.NDArray[np.object_]
_MISSING = -1  # where an edge of a block has no data


class Buildings(NamedTuple):
    """Buildings in the order of their first pixels, row by row. votes: [N, 2, 4], see `imagery.find.votes.count_votes`.

    outlines: [N] polygons along the borders of their pixels, with holes; x to the right and y down, in pixels.
    partly: [N] whether they end where data ends. parts: for each part in each block, as they are looked at, the number
    of its building.
    """

    votes: Votes
    outlines: Outlines
    partly: Flags
    parts: Numbers


class _Parts(NamedTuple):
    """Of a block. first: index of each part's first pixel, in the raster; ending: numbers of those that lie beside
    pixels without data; edges: numbers of the parts, 0 for none, -1 for no data.
    """

    votes: Votes
    outlines: list[shapely.Geometry]
    first: Numbers
    ending: Numbers
    left: Numbers
    right: Numbers
    top: Numbers
    bottom: Numbers


def find_buildings(classes: Path, side: int = SIDE) -> Buildings:
    """The buildings of classes.tif, which `imagery.predict.inference` writes, looked at in blocks of `side` pixels."""
    votes, outlines, first = [np.zeros((0, 2, 4), np.int64)], list[shapely.Geometry](), [np.zeros(0, np.int64)]
    pairs, ending = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    with rasterio.open(classes) as dataset:
        above = np.zeros(dataset.width, np.int64)
        before = np.zeros(side, np.int64)
        for window in blocks(dataset.width, dataset.height, side):
            columns = slice(window.col_off, window.col_off + window.width)
            parts = _parts(dataset, window, len(outlines))
            beside = before[: window.height] * (window.col_off > 0)
            for one, other in ((beside, parts.left), (above[columns], parts.top)):
                pairs.append(_meeting(one, other))
                ending.append(_positive(one[other == _MISSING], other[one == _MISSING]))
            ending.append(parts.ending)
            above[columns], before[: window.height] = parts.bottom, parts.right
            votes.append(parts.votes)
            first.append(parts.first)
            outlines += parts.outlines
    partly = np.zeros(len(outlines), bool)
    partly[np.concatenate(ending) - 1] = True
    return _join(np.concatenate(votes), outlines, np.concatenate(first), partly, np.concatenate(pairs))


def building_pixels(classes: Path, buildings: Buildings, side: int = SIDE) -> Iterator[Pixels]:
    """The pixels of the buildings that `find_buildings` found, in the same blocks."""
    known = 0
    with rasterio.open(classes) as dataset:
        for window in blocks(dataset.width, dataset.height, side):
            labels = _labels(dataset.read(DAMAGE_BAND, window=window))
            count = int(labels.max(initial=0))
            numbers, owners = np.unique(buildings.parts[known : known + count], return_inverse=True)
            rows, columns = np.nonzero(labels)
            yield Pixels(numbers, owners[labels[rows, columns] - 1], rows + window.row_off, columns + window.col_off)
            known += count


def _labels(damage: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    return separate(((damage > 0) & (damage != NODATA)).astype(np.uint8))


def _parts(dataset: Any, window: Window, known: int) -> _Parts:
    """The parts in a block; their numbers go on from those `known` already, from 1."""
    damage = dataset.read(DAMAGE_BAND, window=window)
    labels, missing = _labels(damage), damage == NODATA
    count = int(labels.max(initial=0))
    edges = [
        np.where(labels[edge] > 0, labels[edge].astype(np.int64) + known, np.where(missing[edge], _MISSING, 0))
        for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[0], np.s_[-1])
    ]
    if count == 0:
        return _Parts(np.zeros((0, 2, 4), np.int64), [], np.zeros(0, np.int64), np.zeros(0, np.int64), *edges)
    votes = count_votes(labels, dataset.read(GRADE_BANDS, window=window), count + 1)[1:]
    inside = np.flatnonzero(labels)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[labels.ravel()[inside]] = inside  # of several pixels the last one stays, which is the first of the label
    rows, columns = np.divmod(first[1:], window.width)
    corner = np.array([window.col_off, window.row_off])
    found = dict(outlines(labels))
    whole: list[shapely.Geometry] = [shapely.transform(found[number], corner.__add__) for number in range(1, count + 1)]
    places = (rows + window.row_off) * dataset.width + columns + window.col_off
    return _Parts(votes, whole, places, _beside(labels, missing) + known, *edges)


def _beside(labels: npt.NDArray[np.int32], missing: Flags) -> Numbers:
    """The labels of pixels that have a side in common with a missing one."""
    found = [
        labels[one][missing[other]]
        for axis in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]))
        for one, other in (axis, axis[::-1])
    ]
    return _positive(*found)


def _positive(*numbers: npt.NDArray[np.integer]) -> Numbers:
    """Those above 0, each once."""
    found = np.unique(np.concatenate(numbers)).astype(np.int64)
    return found[found > 0]


def _meeting(one: Numbers, other: Numbers) -> Numbers:
    """Pairs of numbers that lie side by side, [N, 2]."""
    both = (one > 0) & (other > 0)
    return np.unique(np.stack([one[both], other[both]], axis=1), axis=0)


def _join(
    votes: Votes, outlines: Sequence[shapely.Geometry], first: Numbers, partly: Flags, pairs: Numbers
) -> Buildings:
    """Buildings of their parts. pairs: numbers, from 1, of parts that belong together."""
    _, building = np.unique(_roots(len(outlines), pairs), return_inverse=True)
    count = int(building.max(initial=-1)) + 1
    total, start = np.zeros((count, 2, 4), np.int64), np.full(count, np.iinfo(np.int64).max)
    np.add.at(total, building, votes)
    np.minimum.at(start, building, first)
    ends = np.zeros(count, bool)
    np.logical_or.at(ends, building, partly)
    members: list[list[shapely.Geometry]] = [[] for _ in range(count)]
    for number, outline in zip(building.tolist(), outlines, strict=True):
        members[number].append(outline)
    whole = np.array([part[0] if len(part) == 1 else shapely.union_all(part) for part in members], dtype=object)
    order = start.argsort()
    # From a corner on, and without what lies between two corners: the same polygon whatever its parts were.
    plain = shapely.normalize(shapely.simplify(shapely.normalize(whole), 0))[order]
    return Buildings(total[order], plain, ends[order], order.argsort()[building])


def _roots(count: int, pairs: Numbers) -> Numbers:
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
