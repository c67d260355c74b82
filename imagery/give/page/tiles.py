"""What a page of many buildings loads as people look at it: a folder of scripts and images, by place and by zoom.

A page that was opened from a disk may load scripts and images, and nothing else; so the files that hold data are
scripts, which call `loaded` with their name and what they hold.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from base.processes import Crew
from imagery.find.ground import Geometries, rings_of
from imagery.find.pixels import Numbers
from imagery.find.shapes import ROWS, of_wkb, wkb_of
from imagery.give.look import Look
from imagery.give.page.quarters import Quarter, count, quarters, side_around
from imagery.give.table import Table
from imagery.read.grid import Grid

FOLDER = "report"
SIDE = 512  # pixels of a tile of an image
_GROUP = 64  # squares, of a side, whose counts are in a file
_TENTHS = 10  # of a pixel, in which corners are told
_SURE = 1000  # a confidence of 1
_BINS = 101  # of confidence, as the page's slider has them
_QUALITY = 80
_COMPACT = (",", ":")


class Shown(NamedTuple):
    """The buildings of a table that lie in the images. rows: of the table, [K]; points: [K, 2] in pixels; grades: [K],
    0 where not visible; sure: [K] confidence in thousandths, 0 where not visible; areas: [K] in m².
    """

    rows: Numbers
    points: npt.NDArray[np.float64]
    grades: Numbers
    sure: Numbers
    areas: npt.NDArray[np.float64]


class _Group(NamedTuple):
    """The buildings of some quarters, one after the other: the polygons of several at once, as a projection is slow to
    begin. names, counts: of the quarters; polygons: in degrees; the rest as in `Shown`, ids and points as in `Table`.
    """

    folder: Path
    names: Sequence[str]
    counts: Sequence[int]
    onto: Callable[[Geometries], Geometries]
    rows: Numbers
    ids: Sequence[Any]
    grades: Numbers
    sure: Numbers
    areas: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]
    polygons: Sequence[bytes]


def write_tiles(
    folder: Path,
    look: Look,
    grid: Grid,
    table: Table,
    shown: Shown,
    onto: Callable[[Geometries], Geometries],
    kinds: int,
    crew: Crew,
) -> dict[str, Any]:
    """Writes the files; returns what the page must know of them, fit for JSON. onto: from degrees to pixels of the
    grid; kinds: of grades; crew: shares the work.

    images: of each, factor, columns and rows of tiles, the coarsest first. counts: of each look, the side of a square
    and of a file, in pixels, the coarsest first. quarters: of each, its name, the box of its buildings in pixels and
    how many these are. sums: buildings and m² by grade and confidence.
    """
    side = side_around(grid.width, grid.height)
    return {
        "images": _write_images(folder, look, grid),
        "counts": list(_write_counts(folder, shown, kinds, side)),
        "quarters": [
            own for part in crew.map(_write_quarters, _quarters(folder, table, shown, onto, side)) for own in part
        ],
        "sums": _sums(shown, kinds),
    }


def write_script(path: Path, content: Any) -> None:
    """Writes a script that gives the page what the file holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.relative_to(next(own for own in path.parents if own.name == FOLDER)).with_suffix("").as_posix()
    path.write_text(f"loaded({json.dumps(name)},{json.dumps(content, separators=_COMPACT)})\n", encoding="utf-8")


def _sums(shown: Shown, kinds: int) -> dict[str, Any]:
    places = shown.grades * _BINS + shown.sure // (_SURE // (_BINS - 1))
    buildings = np.bincount(places, minlength=kinds * _BINS).reshape(kinds, -1)
    areas = np.bincount(places, shown.areas, kinds * _BINS).reshape(kinds, -1)
    return {"buildings": buildings.tolist(), "areas": areas.round(2).tolist()}


def _write_images(folder: Path, look: Look, grid: Grid) -> list[list[float]]:
    """Both images as the look has them, and smaller and smaller ones."""
    levels: list[list[float]] = []
    for name, uri in (("before", look.pre), ("after", look.post)):
        content = np.frombuffer(b64decode(uri.partition(",")[2]), np.uint8)
        image: Any = cv2.imdecode(content, cv2.IMREAD_COLOR)
        levels = []
        while True:
            high, wide = image.shape[:2]
            factor = grid.width / wide
            columns, rows = -(-wide // SIDE), -(-high // SIDE)
            levels.insert(0, [factor, columns, rows])
            for row, column in np.ndindex(rows, columns):
                path = folder / "images" / f"{name}_{columns}_{column}_{row}.jpg"
                _write_image(path, image[row * SIDE :][:SIDE, column * SIDE :][:, :SIDE])
            if columns == rows == 1:
                break
            image = cv2.resize(image, (-(-wide // 2), -(-high // 2)), interpolation=cv2.INTER_AREA)
    return levels


def _write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    path.write_bytes(content.tobytes())


def _write_counts(folder: Path, shown: Shown, kinds: int, side: int) -> Iterator[list[int]]:
    """For each square in a file its column and row, the middle of its buildings, and how many have which grade."""
    for number, found in enumerate(count(shown.points, shown.grades, kinds, side)):
        of_file = found.cells // _GROUP
        values = np.concatenate([found.cells, found.middles.round().astype(np.int64), found.numbers], axis=1)
        files, members = np.unique(of_file, axis=0, return_inverse=True)
        for place, (column, row) in enumerate(files.tolist()):
            write_script(
                folder / "counts" / f"{number}_{column}_{row}.js", values[members.reshape(-1) == place].tolist()
            )
        yield [found.side, found.side * _GROUP]


def _quarters(
    folder: Path, table: Table, shown: Shown, onto: Callable[[Geometries], Geometries], side: int
) -> Iterator[_Group]:
    points, ids = shown.points.clip(0, side - 1), table.ids
    for quarters_of in _groups(quarters(points, np.arange(len(points)), side)):
        places = np.concatenate([own.rows for own in quarters_of])
        rows = shown.rows[places]
        yield _Group(
            folder, [own.name for own in quarters_of], [len(own.rows) for own in quarters_of], onto, rows,
            ids.iloc[rows].tolist(), shown.grades[places], shown.sure[places], shown.areas[places],
            table.points[rows], wkb_of(table.polygons, rows),
        )  # fmt: skip


def _write_quarters(group: _Group) -> list[list[Any]]:
    """Writes the files of some quarters; returns of each its name, the box of its buildings and how many there are."""
    outlines, found, stop = group.onto(of_wkb(group.polygons)), list[list[Any]](), 0
    for name, buildings in zip(group.names, group.counts, strict=True):
        start, stop = stop, stop + buildings
        write_script(group.folder / "buildings" / f"{name}.js", _content(group, slice(start, stop), outlines))
        box = shapely.total_bounds(outlines[start:stop])
        found.append([name, *(int(value) for value in (*np.floor(box[:2]), *np.ceil(box[2:]))), buildings])
    return found


def _groups(found: Iterator[Quarter]) -> Iterator[list[Quarter]]:
    group, size = list[Quarter](), 0
    for own in found:
        if group and size + len(own.rows) > ROWS:
            yield group
            group, size = [], 0
        group.append(own)
        size += len(own.rows)
    if group:
        yield group


def _content(group: _Group, own: slice, outlines: Geometries) -> dict[str, Sequence[Any]]:
    """Of the buildings of one quarter, the worst last. own: which of the group they are; outlines: in pixels.

    rings: how many each has, and then how many corners each ring; corners: in tenths of a pixel, each by how far it
    lies from the one before.
    """
    places = own.start + np.argsort(group.grades[own], kind="stable")
    rings, owners = rings_of(outlines[places])
    counts = shapely.get_num_coordinates(rings) - 1
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    is_last = np.append(np.diff(of_ring) > 0, True)  # the first one again
    corners = np.rint(points[~is_last] * _TENTHS).astype(np.int64)
    rows = group.rows[places]
    ids = [group.ids[place] for place in places.tolist()]
    return {
        "rows": rows.tolist(),
        "ids": [] if ids == (rows + 1).tolist() else [str(value) for value in ids],
        "grades": group.grades[places].tolist(),
        "sure": group.sure[places].tolist(),
        "areas": group.areas[places].round().astype(np.int64).tolist(),
        "places": group.points[places][:, ::-1].round(6).ravel().tolist(),
        "rings": [*np.bincount(owners, minlength=len(places)).tolist(), *counts.tolist()],
        "corners": np.diff(corners, axis=0, prepend=0).ravel().tolist(),
    }
