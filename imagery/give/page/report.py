"""The page of a map, for people who decide where to go: both images, each building, and the totals.

Up to MOST buildings it is one file. Of more it is a file and a folder beside it, of what it loads as people look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from base.grades import LEGEND
from base.processes import ALONE, Crew
from imagery.find.ground import Geometries, from_degrees, place, points_from_degrees
from imagery.find.pixels import Numbers
from imagery.find.votes import DAMAGE, NOT_VISIBLE
from imagery.give.look import Look
from imagery.give.page.judging import ForPage, Judging, drawn_for_page, for_page
from imagery.give.page.tiles import FOLDER, Shown, write_script, write_tiles
from imagery.give.summary import Summary
from imagery.give.table import Table
from imagery.read.grid import Grid
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS, name_of
from model.judge.page import Outlined, path_of, render

REPORT = "report.html"
MOST = 50_000  # buildings of a page that is one file
_TEMPLATE = Path(__file__).parent / "pages" / "map.html"
_PARTS = 100  # rows of the table of parts; the rest is in the summary
_GRADES = {name: grade for grade, name in enumerate(DAMAGE, start=1)} | {NOT_VISIBLE: 0}
_NAMES = {grade: LEGEND[grade][0] if grade else "not visible" for grade in _GRADES.values()}


def write_report(
    folder: Path, classes: Path, look: Look, table: Table, summary: Summary, judging: Judging | None,
    crew: Crew = ALONE,
) -> None:  # fmt: skip
    """Writes the page into the folder; classes: the raster whose grid the images of `look` cover; crew: shares the
    work.
    """
    with rasterio.open(classes) as dataset:
        onto = _Onto(Grid(dataset.crs, dataset.transform, dataset.width, dataset.height))
    ranked = sorted(
        summary.parts,
        key=lambda part: (-part["buildings_destroyed"], -part["buildings_major_damage"], -part["buildings"]),
    )
    are_squares = summary.cell is not None  # areas may have attributes of the same names
    parts = [(part, onto.box(part) if are_squares else None) for part in ranked[:_PARTS]]
    pixels, is_judged = _Pixels(table, onto), judging is not None and len(judging.draw) > 0
    tiles, buildings = None, list[Outlined]()
    judge: ForPage | dict[str, Any] | None = None
    if len(table) > MOST:
        shown = _shown(table, onto)
        tiles = {
            **write_tiles(folder / FOLDER, look, onto.grid, table, shown, onto.pixels, len(_GRADES), crew),
            "names": [_NAMES[grade] for grade in sorted(_NAMES)],
        }
        if judging is not None and is_judged:
            judge = drawn_for_page(judging, table, pixels, onto.around(table.places.boxes), onto.grid)
            write_script(folder / FOLDER / "judge.js", judge)
    else:
        whole = pixels[:]
        buildings = list(_outlined(table, whole, onto.grid))
        if judging is not None and is_judged:
            judge = for_page(judging, table, whole, onto.grid)
    values = {
        "look": look,
        "summary": summary,
        "tiles": tiles,
        "buildings": buildings,
        "rows": [(grade, _NAMES[grade], _key(name)) for name, grade in _GRADES.items()],
        "parts_of_map": parts,
        "left_out": len(ranked) - len(parts),
        "judge": judge,
        "has_squares": is_judged and judging is not None and judging.squares is not None,
        "choices": [("u" if value == CANNOT_TELL else value, value, name_of(value)) for value in JUDGEMENTS],
    }
    (folder / REPORT).write_text(render(_TEMPLATE, values), encoding="utf-8")


def is_ours(path: Path) -> bool:
    """Whether `write_report` wrote this file, relative to its folder."""
    return str(path) == REPORT or path.parts[0] == FOLDER


class _Onto:
    """From degrees to pixels of a raster."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._middle = (grid.transform @ (grid.width / 2, grid.height / 2))[0]

    def pixels(self, geometries: Geometries) -> Geometries:
        """Geometries in degrees; those cut at the antimeridian become whole again."""
        return place(from_degrees(geometries, self.grid.crs, self._middle), ~self.grid.transform)

    def points(self, points: Any) -> Any:
        """The same of points, [N, 2]."""
        inverse = ~self.grid.transform
        projected = points_from_degrees(points, self.grid.crs, self._middle)
        return projected @ np.array([[inverse.a, inverse.d], [inverse.b, inverse.e]]) + (inverse.c, inverse.f)

    def around(self, boxes: Any) -> Any:
        """Boxes around what lies within those of degrees, a little too large, [N, 4]: left, top, right, bottom. What
        the antimeridian cuts may lie anywhere.
        """
        west, south, east, north = boxes.T
        sides = ((west, south), (west, north), (east, south), (east, north))
        corners = np.stack([self.points(np.stack(corner, axis=1)) for corner in sides])
        low, high = corners.min(0), corners.max(0)
        more = 1 + (high - low) / 100  # as straight sides become bent ones
        found = np.concatenate([low - more, high + more], axis=1)
        found[east - west > 180] = -np.inf, -np.inf, np.inf, np.inf
        return found

    def box(self, part: dict[str, Any]) -> str:
        """Left, top, right and bottom of a square of the summary."""
        east = part["east"] + (360 if part["east"] < part["west"] else 0)
        square = np.array([shapely.box(part["west"], part["south"], east, part["north"])], dtype=object)
        return " ".join(f"{value:.0f}" for value in shapely.bounds(self.pixels(square)[0]))


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The polygons of a table in pixels of a raster, made when they are asked for."""

    table: Table
    onto: _Onto

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, which: slice | Numbers, /) -> Geometries:
        return self.onto.pixels(self.table.polygons[which])


def _are_inside(pixels: Geometries, grid: Grid) -> Any:
    left, top, right, bottom = shapely.bounds(pixels).T
    return (left < grid.width) & (top < grid.height) & (right > 0) & (bottom > 0)


def _grades(table: Table) -> Numbers:
    return np.asarray(table.ours("damage").map(_GRADES), np.int64)


def _shown(table: Table, onto: _Onto) -> Shown:
    """The buildings that lie in the images. Those of which the middle does not are looked at themselves."""
    points, size = onto.points(table.points), np.array([onto.grid.width, onto.grid.height])
    inside = ((points >= 0) & (points < size)).all(1)
    beyond = np.flatnonzero(~inside)
    inside[beyond] = _are_inside(onto.pixels(table.polygons[beyond]), onto.grid)
    rows = np.flatnonzero(inside)
    grades = _grades(table)[rows]
    confidence = np.nan_to_num(np.asarray(table.ours("confidence"), np.float64)[rows])
    sure = np.where(grades > 0, np.rint(1000 * confidence), 0).astype(np.int64)
    areas = np.asarray(table.ours("area_m2"), np.float64)[rows]
    return Shown(rows, points[rows].clip(0, size - 1), grades, sure, areas)


def _outlined(table: Table, pixels: Geometries, grid: Grid) -> Iterator[Outlined]:
    """The buildings that lie in the images; the worst are drawn last, over the others."""
    inside, grades = _are_inside(pixels, grid), _grades(table)
    confidence, area = (np.asarray(table.ours(name)) for name in ("confidence", "area_m2"))
    ids = np.asarray(table.attributes["id"]) if "id" in table.attributes else np.arange(1, len(table) + 1)
    for number in sorted(np.flatnonzero(inside), key=lambda number: int(grades[number])):
        grade, sure = int(grades[number]), float(confidence[number])
        longitude, latitude = table.points[number]
        said = f"{LEGEND[grade][0]}, confidence {sure:.2f}" if grade else "not visible"
        title = f"Building {ids[number]}: {said}, {area[number]:,.0f} m², at {latitude:.6f} {longitude:.6f}"
        data = {
            "data-row": number,
            "data-grade": grade,
            "data-sure": f"{sure if grade else 0:.3f}",
            "data-area": f"{area[number]:.2f}",
        }
        yield Outlined(grade, path_of(pixels[number]), title, data)


def _key(damage: str) -> str:
    return damage.replace("-", "_")
