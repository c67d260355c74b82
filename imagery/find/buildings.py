"""The single buildings of predicted imagery, read block by block: each whole and once, whatever the blocks.

What hangs together within a block is a part of a building. Parts that meet at the border of two blocks belong to one
building: their votes are added up and their outlines joined. Memory is that of a block and of the buildings found.
Imagery in shards is joined by the same rule, from the buildings of each.
"""

from collections import defaultdict
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
Corner = tuple[int, int]
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


class Edges(NamedTuple):
    """Along the edges of a block or a shard: numbers from 1 of what lies there, 0 for nothing, -1 for no data."""

    left: Numbers
    right: Numbers
    top: Numbers
    bottom: Numbers


class Pieces(NamedTuple):
    """The buildings of a shard, and what joins them with those of others. first: [N] of their first pixels, counted row
    by row through the whole raster.
    """

    buildings: Buildings
    first: Numbers
    edges: Edges


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
    """The buildings of classes.tif, which `imagery.predict.inference` writes, looked at in blocks of `side` pixels."""
    return find_pieces(classes, side).buildings


def find_pieces(classes: Path, side: int = SIDE, corner: Corner = (0, 0), width: int | None = None) -> Pieces:
    """The buildings of the classes.tif of a shard, whose outlines are in pixels of the whole raster. corner: column and
    row of its first pixel there, multiples of `side`; width: of the whole raster.
    """
    votes, outlines, first = [np.zeros((0, 2, 4), np.int64)], list[shapely.Geometry](), [np.zeros(0, np.int64)]
    pairs, ending = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    with rasterio.open(classes) as dataset:
        above = np.zeros(dataset.width, np.int64)
        before = np.zeros(side, np.int64)
        around = Edges(*(np.zeros(length, np.int64) for length in 2 * [dataset.height] + 2 * [dataset.width]))
        for window in blocks(dataset.width, dataset.height, side):
            rows, columns = window.toslices()
            parts = _parts(dataset, window, len(outlines), corner, width or dataset.width)
            edges = parts.edges
            beside = before[: window.height] * (window.col_off > 0)
            for one, other in ((beside, edges.left), (above[columns], edges.top)):
                pairs.append(_meeting(one, other))
                ending.append(_ending(one, other))
            ending.append(parts.ending)
            above[columns], before[: window.height] = edges.bottom, edges.right
            if window.col_off == 0:
                around.left[rows] = edges.left
            if window.row_off == 0:
                around.top[columns] = edges.top
            around.right[rows], around.bottom[columns] = edges.right, edges.bottom  # of the last blocks in the end
            votes.append(parts.votes)
            first.append(parts.first)
            outlines += parts.outlines
    return _join(
        np.concatenate(votes), outlines, np.concatenate(first), _flags(ending, len(outlines)), np.concatenate(pairs),
        around,
    )  # fmt: skip


def nothing_known(width: int, height: int) -> Pieces:
    """Of a shard that is missing: none of its pixels has data."""
    edges = Edges(*(np.full(length, _MISSING, np.int64) for length in (height, height, width, width)))
    none = np.zeros(0, np.int64)
    return Pieces(Buildings(np.zeros((0, 2, 4), np.int64), np.zeros(0, object), np.zeros(0, bool), none), none, edges)


def join(shards: Sequence[tuple[Window, Pieces]]) -> Buildings:
    """The buildings of a raster, of those of its shards, which cover it, each a window of it; the same whatever these
    are. `parts` of what it returns is about the buildings of the shards, one after the other.
    """
    known = np.cumsum([0, *(len(pieces.first) for _, pieces in shards)])
    edges = [
        Edges(*(np.where(edge > 0, edge + before, edge) for edge in pieces.edges))
        for (_, pieces), before in zip(shards, known.tolist(), strict=False)
    ]
    pairs, ending = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for one, other in _beside_each_other([window for window, _ in shards], edges):
        pairs.append(_meeting(one, other))
        ending.append(_ending(one, other))
    found = [pieces.buildings for _, pieces in shards]
    votes = np.concatenate([np.zeros((0, 2, 4), np.int64), *(own.votes for own in found)])
    outlines = [outline for own in found for outline in own.outlines]
    partly = np.concatenate([np.zeros(0, bool), *(own.partly for own in found)]) | _flags(ending, int(known[-1]))
    first = np.concatenate([np.zeros(0, np.int64), *(pieces.first for _, pieces in shards)])
    nothing = Edges(*[np.zeros(0, np.int64)] * 4)
    return _join(votes, outlines, first, partly, np.concatenate(pairs), nothing).buildings


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
            np.where(labels[edge] > 0, labels[edge].astype(np.int64) + known, np.where(missing[edge], _MISSING, 0))
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
    return _positive(*found)


def _positive(*numbers: npt.NDArray[np.integer]) -> Numbers:
    """Those above 0, each once."""
    found = np.unique(np.concatenate(numbers)).astype(np.int64)
    return found[found > 0]


def _ending(one: Numbers, other: Numbers) -> Numbers:
    """What of either side lies beside pixels without data of the other."""
    return _positive(one[other == _MISSING], other[one == _MISSING])


def _flags(numbers: Sequence[Numbers], count: int) -> Flags:
    """Which of `count` are among the numbers, from 1."""
    flags = np.zeros(count, bool)
    flags[np.concatenate(numbers) - 1] = True
    return flags


def _beside_each_other(windows: Sequence[Window], edges: Sequence[Edges]) -> Iterator[tuple[Numbers, Numbers]]:
    """The edges of two windows where these have a border in common, as far as they have it."""
    from_left, from_top = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for number, window in enumerate(windows):
        from_left[window.col_off].append(number)
        from_top[window.row_off].append(number)
    for window, own in zip(windows, edges, strict=True):
        for number in from_left[window.col_off + window.width]:
            yield _shared(window.row_off, own.right, windows[number].row_off, edges[number].left)
        for number in from_top[window.row_off + window.height]:
            yield _shared(window.col_off, own.bottom, windows[number].col_off, edges[number].top)


def _shared(start: int, edge: Numbers, other_start: int, other: Numbers) -> tuple[Numbers, Numbers]:
    """What two edges, which begin at these pixels of one line, have in common of it."""
    low, high = max(start, other_start), min(start + len(edge), other_start + len(other))
    return edge[low - start : max(low, high) - start], other[low - other_start : max(low, high) - other_start]


def _meeting(one: Numbers, other: Numbers) -> Numbers:
    """Pairs of numbers that lie side by side, [N, 2]."""
    both = (one > 0) & (other > 0)
    return np.unique(np.stack([one[both], other[both]], axis=1), axis=0)


def _join(
    votes: Votes, outlines: Sequence[shapely.Geometry], first: Numbers, partly: Flags, pairs: Numbers, edges: Edges
) -> Pieces:
    """Buildings of their parts. pairs: numbers, from 1, of parts that belong together; edges: of the parts, too."""
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
    parts = order.argsort()[building]
    names = np.append(parts + 1, [_MISSING, 0])  # at [number - 1], also of -1 and 0
    around = Edges(*(names[edge - 1] for edge in edges))
    return Pieces(Buildings(total[order], plain, ends[order], parts), start[order], around)


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
