"""Parts of buildings, of the blocks of a raster or of its shards, become buildings: each whole and once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.windows import Window

from imagery.find.pixels import Flags, Numbers
from imagery.find.shapes import Shapes, StoredShapes, of_wkb, parts_of, wkb_of
from imagery.find.votes import Votes

MISSING = -1  # where an edge of a block has no data


class Buildings(NamedTuple):
    """Buildings in the order of their first pixels, row by row. votes: [N, 2, 4], see `imagery.find.votes.count_votes`.

    outlines: [N] polygons along the borders of their pixels, with holes; x to the right and y down, in pixels.
    partly: [N] whether they end where data ends. parts: for each part in each block, as they are looked at, the number
    of its building.
    """

    votes: Votes
    outlines: Shapes
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


def nothing_known(width: int, height: int) -> Pieces:
    """Of a shard that is missing: none of its pixels has data."""
    edges = Edges(*(np.full(length, MISSING, np.int64) for length in (height, height, width, width)))
    none = np.zeros(0, np.int64)
    return Pieces(Buildings(np.zeros((0, 2, 4), np.int64), np.zeros(0, object), np.zeros(0, bool), none), none, edges)


def join_shards(shards: Iterable[tuple[Window, Pieces]], folder: Path) -> Buildings:
    """The buildings of a raster, of those of its shards, which cover it, each a window of it; the same whatever these
    are. `parts` of what it returns is about the buildings of the shards, one after the other.

    folder: of a disk with room for their outlines, of which those of one shard are in memory at a time.
    """
    known, outlines = 0, StoredShapes(folder)
    windows, edges = list[Window](), list[Edges]()
    votes, partly, first = [np.zeros((0, 2, 4), np.int64)], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    for window, pieces in shards:
        windows.append(window)
        edges.append(Edges(*(np.where(edge > 0, edge + known, edge) for edge in pieces.edges)))
        own = pieces.buildings
        votes.append(own.votes)
        partly.append(own.partly)
        first.append(pieces.first)
        outlines.append_wkb(wkb_of(own.outlines, slice(None)))
        known += len(pieces.first)
    pairs, ending = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for one, other in _beside_each_other(windows, edges):
        pairs.append(meeting(one, other))
        ending.append(ending_beside(one, other))
    nothing = Edges(*[np.zeros(0, np.int64)] * 4)
    ends = np.concatenate(partly) | flags(ending, known)
    return join_parts(
        np.concatenate(votes), outlines, np.concatenate(first), ends, np.concatenate(pairs), nothing, folder, plain=True
    ).buildings


def join_parts(
    votes: Votes, outlines: Shapes, first: Numbers, partly: Flags, pairs: Numbers, edges: Edges, folder: Path, *,
    plain: bool = False,
) -> Pieces:  # fmt: skip
    """Buildings of their parts. pairs: numbers, from 1, of parts that belong together; edges: of the parts, too;
    folder: of a disk with room for the outlines. plain: whether these are such already as this makes them.
    """
    _, building = np.unique(_roots(len(first), pairs), return_inverse=True)
    count = int(building.max(initial=-1)) + 1
    start = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(start, building, first)
    order = start.argsort()
    parts = order.argsort()[building]
    total, ends = np.zeros((count, 2, 4), np.int64), np.zeros(count, bool)
    np.add.at(total, parts, votes)
    np.logical_or.at(ends, parts, partly)
    names = np.append(parts + 1, [MISSING, 0])  # at [number - 1], also of -1 and 0
    around = Edges(*(names[edge - 1] for edge in edges))
    members = parts.argsort(kind="stable")
    starts, joined = np.searchsorted(parts[members], np.arange(count + 1)), StoredShapes(folder)
    for part in parts_of(count):
        joined.append_wkb(_unite(outlines, members, starts[part.start : part.stop + 1], plain=plain))
    return Pieces(Buildings(total, joined, ends, parts), start[order], around)


def _unite(outlines: Shapes, members: Numbers, starts: Numbers, *, plain: bool) -> list[bytes]:
    """Outlines of buildings, [K]. members: numbers of the outlines of all parts, building by building; starts: where
    those of each begin there, and behind the last one, [K + 1].
    """
    known = wkb_of(outlines, members[starts[:-1]])
    are_several = np.diff(starts) > 1
    odd = np.flatnonzero(are_several | (not plain))
    whole = of_wkb([known[place] for place in odd])
    for place in np.flatnonzero(are_several[odd]).tolist():
        start, stop = starts[odd[place]], starts[odd[place] + 1]
        whole[place] = shapely.union_all(outlines[members[start:stop]])
    # From a corner on, and without what lies between two corners: the same polygon whatever its parts were.
    united = shapely.to_wkb(shapely.normalize(shapely.simplify(shapely.normalize(whole), 0)))
    for place, own in zip(odd.tolist(), united.tolist(), strict=True):
        known[place] = own
    return known


def meeting(one: Numbers, other: Numbers) -> Numbers:
    """Pairs of numbers that lie side by side, [N, 2]."""
    both = (one > 0) & (other > 0)
    return np.unique(np.stack([one[both], other[both]], axis=1), axis=0)


def ending_beside(one: Numbers, other: Numbers) -> Numbers:
    """What of either side lies beside pixels without data of the other."""
    return positive(one[other == MISSING], other[one == MISSING])


def positive(*numbers: npt.NDArray[np.integer]) -> Numbers:
    """Those above 0, each once."""
    found = np.unique(np.concatenate(numbers)).astype(np.int64)
    return found[found > 0]


def flags(numbers: Sequence[Numbers], count: int) -> Flags:
    """Which of `count` are among the numbers, from 1."""
    found = np.zeros(count, bool)
    found[np.concatenate(numbers) - 1] = True
    return found


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
