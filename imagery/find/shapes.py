"""Geometries that may be too many for memory: kept in a file, and read a part at a time."""

import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely

from imagery.find.ground import Geometries
from imagery.find.pixels import Flags, Numbers

ROWS = 8192  # buildings that are in memory at once
_GAP = 1 << 16  # bytes, up to which it is faster to read what nobody asked for than to read twice


class Shapes(Protocol):
    """Geometries of which a part is taken by a slice or by numbers, as of an array: [K]."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | Numbers, /) -> Geometries: ...


def parts_of(count: int, rows: int = ROWS) -> Iterator[slice]:
    """Slices of at most `rows` that cover `count`; an empty one where there is nothing."""
    for start in range(0, max(count, 1), rows):
        yield slice(start, min(start + rows, count))


def numbers_of(which: slice | Numbers, count: int) -> Numbers:
    """What a slice takes of `count`, or the numbers themselves."""
    return np.arange(*which.indices(count)) if isinstance(which, slice) else which


class StoredShapes:
    """Geometries in a file without a name, which is gone with this object. In memory are 8 bytes of each."""

    def __init__(self, folder: Path) -> None:
        """folder: of a disk with room."""
        self._file = TemporaryFile(dir=folder)
        weakref.finalize(self, self._file.close)
        self._lengths = [np.zeros(1, np.int64)]
        self._starts: Numbers | None = None

    def append(self, geometries: Geometries) -> None:
        """Adds [K] behind those that are there."""
        self.append_wkb(shapely.to_wkb(geometries).tolist())

    def append_wkb(self, known: Sequence[bytes]) -> None:
        """The same of geometries as bytes."""
        self._file.write(b"".join(known))
        self._file.flush()
        self._lengths.append(np.fromiter(map(len, known), np.int64, len(known)))
        self._starts = None

    @property
    def _offsets(self) -> Numbers:
        """Where each begins in the file, and behind the last one, [N + 1]."""
        if self._starts is None:
            self._starts = np.concatenate(self._lengths).cumsum()
            self._lengths = [np.diff(self._starts, prepend=0)]
        return self._starts

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, which: slice | Numbers, /) -> Geometries:
        return of_wkb(self.wkb(which))

    def wkb(self, which: slice | Numbers) -> list[bytes]:
        """A part of them as bytes."""
        wanted = numbers_of(which, len(self))
        order = np.argsort(wanted, kind="stable")
        starts, ends = self._offsets[wanted[order]], self._offsets[wanted[order] + 1]
        known, cuts = [b""] * len(wanted), np.flatnonzero(starts[1:] - ends[:-1] > _GAP) + 1
        for run in np.split(np.arange(len(wanted)), cuts) if len(wanted) else ():
            content = self._read(int(starts[run[0]]), int(ends[run[-1]]))
            within = np.stack([order[run], starts[run] - starts[run[0]], ends[run] - starts[run[0]]], axis=1)
            for place, start, end in within.tolist():
                known[place] = content[start:end]
        return known

    def _read(self, start: int, stop: int) -> bytes:
        """Leaves the place to write at, and lets several threads read."""
        found = list[bytes]()
        while start < stop:  # one call reads 2 GB at most
            found.append(os.pread(self._file.fileno(), stop - start, start))
            start += len(found[-1])
        return b"".join(found)


def wkb_of(shapes: Shapes, which: slice | Numbers) -> list[bytes]:
    """A part of geometries as bytes, by which they reach another process."""
    if isinstance(shapes, StoredShapes):
        return shapes.wkb(which)
    known: list[bytes] = shapely.to_wkb(shapes[which]).tolist()
    return known


def of_wkb(known: Sequence[bytes]) -> Geometries:
    """Geometries of bytes, [K]."""
    return np.asarray(shapely.from_wkb(np.array(known, object)), dtype=object)


def bounds_of(polygons: Shapes) -> npt.NDArray[np.float64]:
    """West, north, east and south of polygons in pixels, [N, 4]."""
    return np.concatenate([shapely.bounds(polygons[part]).reshape(-1, 4) for part in parts_of(len(polygons))])


def reaches_edge(bounds: npt.NDArray[np.float64], width: int, height: int) -> Flags:
    """Whether polygons in pixels of a raster, of which [N, 4] are the bounds, touch its edge or go beyond it, [N]: more
    of them may lie outside.
    """
    west, north, east, south = bounds.T
    return np.asarray((west <= 0) | (north <= 0) | (east >= width) | (south >= height))
