"""Where the buildings of a map lie: in squares with few enough of them to be drawn, and counted in others."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.find.pixels import Numbers

MOST = 2000  # buildings of a square, but for those that lie at one place
SMALLEST = 128  # pixels of a side
COUNTED = 64  # squares, of a side of the whole map, in which buildings are counted for the first look at it
FINER = 4  # times as small are the squares of the next look
Points = npt.NDArray[np.float64]


class Quarter(NamedTuple):
    """A square of a map, cut in four again and again. level: how often; column, row: among the squares of its level;
    rows: of the map's table, those that lie in it.
    """

    level: int
    column: int
    row: int
    rows: Numbers

    @property
    def name(self) -> str:
        """For a file."""
        return f"{self.level}_{self.column}_{self.row}"


class Counts(NamedTuple):
    """Buildings in the squares of one look at a map, of those that have any. side: of a square, in pixels; cells:
    column and row of each, [K, 2]; middles: of its buildings, [K, 2]; numbers: of those with each grade, [K, grades].
    """

    side: int
    cells: Numbers
    middles: Points
    numbers: Numbers


def side_around(width: int, height: int) -> int:
    """The side of the square that is cut into quarters: a power of two."""
    return 1 << (max(width, height) - 1).bit_length()


def quarters(points: Points, rows: Numbers, side: int, most: int = MOST) -> Iterator[Quarter]:
    """Squares with at most so many of the rows each; every row is in one. points: [N, 2] x and y of all rows, within
    the square of this side.
    """
    waiting = [Quarter(0, 0, 0, rows)]
    while waiting:
        own = waiting.pop()
        half = side >> own.level >> 1
        if len(own.rows) <= most or half < SMALLEST:
            if len(own.rows):
                yield own
            continue
        x, y = (points[own.rows] // half).astype(np.int64).T
        for row in (2 * own.row, 2 * own.row + 1):
            for column in (2 * own.column, 2 * own.column + 1):
                waiting.append(Quarter(own.level + 1, column, row, own.rows[(x == column) & (y == row)]))


def count(points: Points, grades: Numbers, kinds: int, side: int) -> Iterator[Counts]:
    """The buildings counted, in squares finer and finer. points: [N, 2]; grades: [N], below `kinds`; side: of the
    square around all.
    """
    cell = max(SMALLEST, side // COUNTED)
    while True:
        places = (points // cell).astype(np.int64)
        columns = -(-side // cell)
        found, members = np.unique(places[:, 1] * columns + places[:, 0], return_inverse=True)
        numbers = np.bincount(members * kinds + grades, minlength=len(found) * kinds).reshape(len(found), kinds)
        sums = np.stack([np.bincount(members, own, len(found)) for own in points.T], axis=1)
        cells = np.stack([found % columns, found // columns], axis=1)
        yield Counts(cell, cells, sums / numbers.sum(1, keepdims=True), numbers)
        if cell == SMALLEST:
            return
        cell = max(SMALLEST, cell // FINER)
