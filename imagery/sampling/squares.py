"""The second sample: squares in which a person looks for buildings that the map missed, and counts them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.sampling.draw import Draw, in_turn

SIDE = 75.0  # metres of a square, which one look takes in


@dataclass(frozen=True, eq=False)
class Squares:
    """A map cut into squares from its upper left corner on, those at its right and lower edge cut off by it. side: in
    metres; columns: how many lie beside one another; draw: of those where both images have data, by their numbers, row
    by row from 0.
    """

    side: float
    columns: int
    draw: Draw

    def corners(self, metres: tuple[float, float], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Left, top, right and bottom of the squares in the order of the draw, in pixels of the map, [M, 4].

        metres: width and height of a pixel; size: width and height of the map in pixels.
        """
        row, column = np.divmod(self.draw.order, self.columns)
        first = np.stack([column, row], axis=1)
        corners = np.concatenate([first, first + 1], axis=1) * self.side / np.tile(metres, 2)
        inside: npt.NDArray[np.float64] = np.minimum(corners, np.tile(size, 2))
        return inside


class Counted(NamedTuple):
    """What was counted in a square. rank: its place in the order, from 0; missed: buildings that the map does not show,
    None where nothing can be seen; damaged: of these; judge: initials.
    """

    rank: int
    missed: int | None
    damaged: int
    judge: str = ""


class Counts(NamedTuple):
    """The first squares of an order. missed, damaged: of each, [n], 0 where nothing can be seen; unseen: how many these
    are; beyond: how many were counted after a gap in the order, and so are in no sample.
    """

    missed: npt.NDArray[np.int64]
    damaged: npt.NDArray[np.int64]
    unseen: int
    beyond: int


def draw_squares(seen: npt.NDArray[np.bool_], seed: int, map_hash: str, side: float = SIDE) -> Squares:
    """Draws squares, all alike likely, and each part of the order spread over the map.

    seen: which of them have data, [rows, columns].
    """
    numbers = np.flatnonzero(seen)
    places = np.stack(np.divmod(numbers, seen.shape[1])[::-1], axis=1).astype(np.float64)
    strata = np.zeros(len(numbers), np.int64)
    draw = in_turn(numbers, strata, places, np.random.default_rng(seed), seed, map_hash)
    return Squares(side, seen.shape[1], draw)


def first_counts(counted: Iterable[Counted]) -> Counts:
    """The counts up to the first gap in the order. counted: one for each square."""
    by_rank = {own.rank: own for own in counted}
    first: list[Counted] = []
    while len(first) in by_rank:
        first.append(by_rank[len(first)])
    missed = np.array([own.missed or 0 for own in first], np.int64)
    damaged = np.array([0 if own.missed is None else own.damaged for own in first], np.int64)
    return Counts(missed, damaged, sum(own.missed is None for own in first), len(by_rank) - len(first))


def merge_counts(first: Sequence[Counted], second: Sequence[Counted]) -> tuple[list[Counted], int]:
    """Two people's counts as one, and how many squares they counted differently. A count goes before "nothing can be
    seen", else the first's stands.
    """
    merged, differing = {own.rank: own for own in first}, 0
    for other in second:
        mine = merged.setdefault(other.rank, other)
        differing += (mine.missed, mine.damaged) != (other.missed, other.damaged)
        if mine.missed is None:
            merged[other.rank] = other
    return [*merged.values()], differing
