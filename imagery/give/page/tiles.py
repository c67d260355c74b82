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

from imagery.find.ground import Geometries, rings_of
from imagery.find.pixels import Numbers
from imagery.find.shapes import ROWS
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


def write_tiles(
    folder: Path,
    look: Look,
    grid: Grid,
    table: Table,
    shown: Shown,
    onto: Callable[[Geometries], Geometries],
    kinds: int,
) -> dict[str, Any]:
    """Writes the files; returns what the page must know of them, fit for JSON. onto: from degrees to pixels of the
    grid; kinds: of grades.

    images: of each, factor, columns and rows of tiles, the coarsest first. counts: of each look, the side of a square
    and of a file, in pixels, the coarsest first. quarters: of each, its name, the box of its buildings in pixels and
    how many these are. sums: buildings and m² by grade and confidence.
    """
    side = side_around(grid.width, grid.height)
    return {
        "images": _write_images(folder, look, grid),
        "counts": list(_write_counts(folder, shown, kinds, side)),
        "quarters": list(_write_quarters(folder, table, shown, onto, side)),
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


def _write_quarters(
    folder: Path, table: Table, shown: Shown, onto: Callable[[Geometries], Geometries], side: int
) -> Iterator[list[Any]]:
    points = shown.points.clip(0, side - 1)
    for group in _groups(quarters(points, np.arange(len(points)), side)):
        # The polygons of several quarters at once: a projection is slow to begin.
        rows = np.concatenate([own.rows for own in group])
        outlines = onto(table.polygons[shown.rows[rows]])
        ends = np.cumsum([len(own.rows) for own in group])
        for own, polygons in zip(group, np.split(outlines, ends[:-1]), strict=True):
            write_script(folder / "buildings" / f"{own.name}.js", _content(table, shown, own.rows, polygons))
            box = shapely.total_bounds(polygons)
            yield [own.name, *(int(value) for value in (*np.floor(box[:2]), *np.ceil(box[2:]))), len(own.rows)]


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


def _content(table: Table, shown: Shown, places: Numbers, polygons: Geometries) -> dict[str, Sequence[Any]]:
    """Of the buildings at these places of `shown`, the worst last. polygons: in pixels, [K].

    rings: how many each has, and then how many corners each ring; corners: in tenths of a pixel, each by how far it
    lies from the one before.
    """
    order = np.argsort(shown.grades[places], kind="stable")
    places, polygons = places[order], polygons[order]
    rings, owners = rings_of(polygons)
    counts = shapely.get_num_coordinates(rings) - 1
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    is_last = np.append(np.diff(of_ring) > 0, True)  # the first one again
    corners = np.rint(points[~is_last] * _TENTHS).astype(np.int64)
    rows = shown.rows[places]
    ids = table.ids.iloc[rows].tolist()
    return {
        "rows": rows.tolist(),
        "ids": [] if ids == (rows + 1).tolist() else [str(value) for value in ids],
        "grades": shown.grades[places].tolist(),
        "sure": shown.sure[places].tolist(),
        "areas": shown.areas[places].round().astype(np.int64).tolist(),
        "places": table.points[rows][:, ::-1].round(6).ravel().tolist(),
        "rings": [*np.bincount(owners, minlength=len(places)).tolist(), *counts.tolist()],
        "corners": np.diff(corners, axis=0, prepend=0).ravel().tolist(),
    }
