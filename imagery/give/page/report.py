"""The page of a map, for people who decide where to go: both images, each building, and the totals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from base.grades import LEGEND
from imagery.find.ground import Geometries, from_degrees, place
from imagery.find.votes import DAMAGE, NOT_VISIBLE
from imagery.give.look import Look
from imagery.give.page.judging import Judging, for_page
from imagery.give.summary import Summary
from imagery.give.table import Table
from imagery.read.grid import Grid
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS, name_of
from model.judge.page import Outlined, path_of, render

REPORT = "report.html"
_TEMPLATE = Path(__file__).parent / "pages" / "map.html"
_PARTS = 100  # rows of the table of parts; the rest is in the summary
_GRADES = {name: grade for grade, name in enumerate(DAMAGE, start=1)} | {NOT_VISIBLE: 0}


def write_report(
    path: Path, classes: Path, look: Look, table: Table, summary: Summary, judging: Judging | None
) -> None:
    """Writes the page; classes: the raster whose grid the images of `look` cover."""
    with rasterio.open(classes) as dataset:
        onto = _Onto(dataset)
    ranked = sorted(
        summary.parts,
        key=lambda part: (-part["buildings_destroyed"], -part["buildings_major_damage"], -part["buildings"]),
    )
    are_squares = summary.cell is not None  # areas may have attributes of the same names
    parts = [(part, onto.box(part) if are_squares else None) for part in ranked[:_PARTS]]
    pixels = onto.pixels(np.asarray(table.frame.geometry, dtype=object))
    values = {
        "look": look,
        "summary": summary,
        "buildings": list(_outlined(table, pixels, onto.grid)),
        "rows": [(grade, LEGEND[grade][0] if grade else "not visible", _key(name)) for name, grade in _GRADES.items()],
        "parts_of_map": parts,
        "left_out": len(ranked) - len(parts),
        "judge": for_page(judging, table, pixels, onto.grid) if judging is not None and len(judging.draw) else None,
        "choices": [("u" if value == CANNOT_TELL else value, value, name_of(value)) for value in JUDGEMENTS],
    }
    path.write_text(render(_TEMPLATE, values), encoding="utf-8")


class _Onto:
    """From degrees to pixels of a raster."""

    def __init__(self, dataset: Any) -> None:
        self.grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        self._middle = (dataset.transform @ (dataset.width / 2, dataset.height / 2))[0]

    def pixels(self, geometries: Geometries) -> Geometries:
        """Geometries in degrees; those cut at the antimeridian become whole again."""
        return place(from_degrees(geometries, self.grid.crs, self._middle), ~self.grid.transform)

    def box(self, part: dict[str, Any]) -> str:
        """Left, top, right and bottom of a square of the summary."""
        east = part["east"] + (360 if part["east"] < part["west"] else 0)
        square = np.array([shapely.box(part["west"], part["south"], east, part["north"])], dtype=object)
        return " ".join(f"{value:.0f}" for value in shapely.bounds(self.pixels(square)[0]))


def _outlined(table: Table, pixels: Geometries, grid: Grid) -> Iterator[Outlined]:
    """The buildings that lie in the images; the worst are drawn last, over the others."""
    polygons = np.asarray(table.frame.geometry, dtype=object)
    left, top, right, bottom = shapely.bounds(pixels).T
    inside = (left < grid.width) & (top < grid.height) & (right > 0) & (bottom > 0)
    damage, confidence, area = (np.asarray(table.ours(name)) for name in ("damage", "confidence", "area_m2"))
    ids = np.asarray(table.frame["id"]) if "id" in table.frame else np.arange(1, len(polygons) + 1)
    grades = np.array([_GRADES[name] for name in damage], np.int64)
    where = shapely.get_coordinates(shapely.point_on_surface(polygons))
    for number in sorted(np.flatnonzero(inside), key=lambda number: int(grades[number])):
        grade, sure = int(grades[number]), float(confidence[number])
        longitude, latitude = where[number]
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
