"""How many buildings, and how many square metres of them, have which grade: in all, and by squares or by areas."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from base.grades import KEYS
from imagery.find.ground import from_degrees, metric_crs, to_degrees
from imagery.find.votes import DAMAGE, NOT_VISIBLE
from imagery.give.table import Table
from imagery.read.vectors import Polygons

CLASSES = dict(zip((*DAMAGE, NOT_VISIBLE), (*KEYS, "not_visible"), strict=True))
SUMMARY_FILES = ("summary.csv", "summary.json")
ELSEWHERE = "elsewhere"  # buildings in none of the areas
_NAMED = ("area", "west", "south", "east", "north")


@dataclass(frozen=True)
class Summary:
    """total, parts: buildings and area_m2, and both for each grade and for what was not visible; a part has its name
    as `area` besides, a square its corners in degrees, an area its attributes. by: what the parts are. cell: metres of
    a square's side, None for areas. crs: of the squares. notes: what was left out or mended of the files given.
    scene: what is known of the images, see `imagery.give.look.Look`.
    """

    total: dict[str, Any]
    parts: tuple[dict[str, Any], ...]
    by: str
    cell: float | None
    crs: str | None
    notes: tuple[str, ...]
    scene: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many buildings there are."""
        return int(self.total["buildings"])

    def write(self, folder: Path) -> None:
        """Writes SUMMARY_FILES: a table with a row for each part and then the total, and the same as JSON."""
        rows = pd.DataFrame([*self.parts, {"area": "total", **self.total}])
        rows.to_csv(folder / SUMMARY_FILES[0], index=False, lineterminator="\n")
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str)
        (folder / SUMMARY_FILES[1]).write_text(content + "\n", encoding="utf-8")


def by_cells(table: Table, cell: float, middle: tuple[float, float], notes: Sequence[str] = ()) -> Summary:
    """By squares of `cell` metres in the UTM zone of `middle` (longitude, latitude), those that have a building.

    They are named after column and row from the zone's origin, so that two maps of a zone have the same squares. A
    building belongs to the square of a point within it.
    """
    crs = metric_crs(*middle)
    points = from_degrees(_points(table), crs, middle[0])
    places = np.floor(shapely.get_coordinates(points) / cell).astype(np.int64)
    parts = []
    for column, row in np.unique(places, axis=0).tolist():
        west, south, east, north = _corners(column * cell, row * cell, cell, crs)
        named = dict(zip(_NAMED, (f"{column}_{row}", west, south, east, north), strict=True))
        parts.append(named | _counts(table, (places == (column, row)).all(1)))
    return Summary(_counts(table), tuple(parts), "cells", cell, crs, tuple(notes))


def by_areas(table: Table, areas: Polygons, notes: Sequence[str] = ()) -> Summary:
    """By the polygons of a file, such as districts, each with its attributes.

    A building belongs to each of them that has a point within it, and else to `elsewhere`. They are named by the first
    column of text that tells them apart, one with "name" in its own name before others; without one they are numbered.
    """
    names, inside = within(table, areas)
    attributes = areas.frame.drop(columns="geometry")
    elsewhere = np.asarray(~inside.any(0))
    parts = []
    for name, row, members in zip(names, attributes.to_dict("records"), inside, strict=True):
        counts = _counts(table, members)
        kept = {str(key): None if pd.isna(value) else value for key, value in row.items()}
        part = {"area": name} | counts
        for key in sorted(kept, key=lambda key: key in part):  # those that keep their names first
            own = key
            while own in part:
                own = f"given_{own}"
            part[own] = kept[key]
        parts.append(part)
    if elsewhere.any():
        parts.append({"area": ELSEWHERE} | _counts(table, elsewhere))
    return Summary(_counts(table), tuple(parts), "areas", None, None, (*notes, *areas.notes))


def within(table: Table, areas: Polygons) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """The names of the areas, and which buildings have a point within each, [areas, N]; see `by_areas`."""
    polygons = to_degrees(np.asarray(areas.frame.geometry, dtype=object), areas.frame.crs)
    point, area = shapely.STRtree(polygons).query(_points(table), predicate="within")
    inside = np.zeros((len(polygons), len(table.frame)), bool)
    inside[area, point] = True
    return _names(areas.frame.drop(columns="geometry")), inside


def _points(table: Table) -> npt.NDArray[np.object_]:
    return np.asarray(shapely.point_on_surface(np.asarray(table.frame.geometry, dtype=object)), dtype=object)


def _counts(table: Table, members: npt.NDArray[np.bool_] | None = None) -> dict[str, Any]:
    damage, areas = np.asarray(table.ours("damage")), np.asarray(table.ours("area_m2"), np.float64)
    if members is not None:
        damage, areas = damage[members], areas[members]
    classes = {name: damage == value for value, name in CLASSES.items()}
    return {
        "buildings": len(damage),
        **{f"buildings_{name}": int(own.sum()) for name, own in classes.items()},
        "area_m2": round(float(areas.sum()), 2),
        **{f"area_m2_{name}": round(float(areas[own].sum()), 2) for name, own in classes.items()},
    }


def _corners(left: float, bottom: float, cell: float, crs: str) -> list[float]:
    """West, south, east, north of the square's corners, in degrees; west is larger across the antimeridian."""
    corners = shapely.points([left, left + cell, left, left + cell], [bottom, bottom, bottom + cell, bottom + cell])
    points = shapely.get_coordinates(to_degrees(np.asarray(corners, dtype=object), crs))
    points[:, 0] = points[0, 0] + _wrapped(points[:, 0] - points[0, 0])
    (west, south), (east, north) = points.min(0).tolist(), points.max(0).tolist()
    return [round(float(value), 7) for value in (_wrapped(west), south, _wrapped(east), north)]


def _wrapped(degrees: Any) -> Any:
    return (degrees + 180) % 360 - 180


def _names(attributes: pd.DataFrame) -> list[str]:
    telling = [name for name, column in attributes.items() if _tells_apart(column)]
    named = [name for name in telling if "name" in str(name).lower()]
    if not telling:
        return [str(number) for number in range(1, len(attributes) + 1)]
    return [str(value) for value in attributes[(named or telling)[0]]]


def _tells_apart(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_string_dtype(column) and bool(column.notna().all()) and column.is_unique
