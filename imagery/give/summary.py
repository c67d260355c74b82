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
from imagery.find.ground import metric_crs, points_from_degrees, to_degrees
from imagery.find.pixels import Numbers
from imagery.find.shapes import parts_of
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
    places = np.floor(points_from_degrees(table.points, crs, middle[0]) / cell).astype(np.int64)
    squares, members = np.unique(places, axis=0, return_inverse=True)
    named = zip(squares.tolist(), _corners(squares * cell, cell, crs), strict=True)
    names = [dict(zip(_NAMED, (f"{column}_{row}", *corners), strict=True)) for (column, row), corners in named]
    counts = _counts(table, np.arange(len(table)), members.reshape(-1), len(squares))
    parts = tuple(name | own for name, own in zip(names, counts, strict=True))
    return Summary(_total(table), parts, "cells", cell, crs, tuple(notes))


def by_areas(table: Table, areas: Polygons, notes: Sequence[str] = ()) -> Summary:
    """By the polygons of a file, such as districts, each with its attributes.

    A building belongs to each of them that has a point within it, and else to `elsewhere`. They are named by the first
    column of text that tells them apart, one with "name" in its own name before others; without one they are numbered.
    """
    attributes = areas.frame.drop(columns="geometry")
    names, (numbers, rows) = _names(attributes), _inside(table, areas)
    elsewhere = np.setdiff1d(np.arange(len(table)), rows)
    parts = []
    of_areas = _counts(table, rows, numbers, len(names))
    for name, row, counts in zip(names, attributes.to_dict("records"), of_areas, strict=True):
        kept = {str(key): None if pd.isna(value) else value for key, value in row.items()}
        part = {"area": name} | counts
        for key in sorted(kept, key=lambda key: key in part):  # those that keep their names first
            own = key
            while own in part:
                own = f"given_{own}"
            part[own] = kept[key]
        parts.append(part)
    if len(elsewhere):
        (counts,) = _counts(table, elsewhere, np.zeros_like(elsewhere), 1)
        parts.append({"area": ELSEWHERE} | counts)
    return Summary(_total(table), tuple(parts), "areas", None, None, (*notes, *areas.notes))


def within(table: Table, areas: Polygons) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """The names of the areas, and which buildings have a point within each, [areas, N]; see `by_areas`."""
    names, (numbers, rows) = _names(areas.frame.drop(columns="geometry")), _inside(table, areas)
    inside = np.zeros((len(names), len(table)), bool)
    inside[numbers, rows] = True
    return names, inside


def _inside(table: Table, areas: Polygons) -> tuple[Numbers, Numbers]:
    """Numbers of areas and rows of the table, of each pair of a building that has a point within an area, [M] both."""
    polygons = to_degrees(np.asarray(areas.frame.geometry, dtype=object), areas.frame.crs)
    tree, rows, numbers = shapely.STRtree(polygons), list[Numbers](), list[Numbers]()
    for part in parts_of(len(table)):
        place, number = tree.query(shapely.points(table.points[part]), predicate="within")
        rows.append(place + part.start)
        numbers.append(number)
    return np.concatenate(numbers), np.concatenate(rows)


def _total(table: Table) -> dict[str, Any]:
    (counts,) = _counts(table, np.arange(len(table)), np.zeros(len(table), np.int64), 1)
    return counts


def _counts(table: Table, rows: Numbers, parts: Numbers, count: int) -> list[dict[str, Any]]:
    """Of each of `count` parts. rows: of the table, [M]; parts: to which each of these belongs, [M]."""
    names = CLASSES.values()
    damage = table.ours("damage").map({value: place for place, value in enumerate(CLASSES)}).to_numpy(np.int64)[rows]
    areas = np.asarray(table.ours("area_m2"), np.float64)[rows]
    places = parts * len(CLASSES) + damage
    numbers = np.bincount(places, minlength=count * len(CLASSES)).reshape(count, len(CLASSES))
    sums = np.bincount(places, areas, count * len(CLASSES)).reshape(count, len(CLASSES))
    return [
        {
            "buildings": sum(own),
            **{f"buildings_{name}": number for name, number in zip(names, own, strict=True)},
            "area_m2": round(sum(square_metres), 2),
            **{f"area_m2_{name}": round(area, 2) for name, area in zip(names, square_metres, strict=True)},
        }
        for own, square_metres in zip(numbers.tolist(), sums.tolist(), strict=True)
    ]


def _corners(places: npt.NDArray[np.floating], cell: float, crs: str) -> list[list[float]]:
    """West, south, east, north of squares, in degrees; west is larger across the antimeridian. places: left and bottom
    of each, [K, 2].
    """
    corners = (places[:, None] + np.array([[0, 0], [cell, 0], [0, cell], [cell, cell]])).reshape(-1, 2)
    points = shapely.get_coordinates(to_degrees(np.asarray(shapely.points(corners), dtype=object), crs)).reshape(
        -1, 4, 2
    )
    first = points[:, :1, 0]
    points[..., 0] = first + _wrapped(points[..., 0] - first)
    low, high = points.min(1), points.max(1)
    low[:, 0], high[:, 0] = _wrapped(low[:, 0]), _wrapped(high[:, 0])
    return [[round(value, 7) for value in own] for own in np.concatenate([low, high], axis=1).tolist()]


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
