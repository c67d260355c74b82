"""The page of an assessed map, for those who report numbers: what judgements say of it, and what they made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from base.grades import GRADES
from imagery.assessing.assessment import Assessment, Grades
from imagery.assessing.judged_map import JudgedMap
from imagery.estimating.accuracy import Accuracy
from imagery.estimating.interval import Floats
from imagery.estimating.totals import ALL, CATEGORIES, DAMAGED
from imagery.find.ground import metric_crs, points_from_degrees
from imagery.sampling.judged import name_of
from model.judge.page import line_chart, render

PAGE = "assessment.html"
_TEMPLATE = Path(__file__).parent / "pages" / "assessment.html"
_NAMES = {
    "not_a_building": "not a building",
    **{grade.key: grade.label for grade in GRADES},
    "damaged": "damaged, all grades",
    "not_assessable": "cannot be told",
}
_DRAWN = ("damaged", *(grade.key for grade in GRADES[1:]), "not_a_building", "not_assessable")
_LEFT, _WIDTH, _ROW, _TOP = 170, 700, 46, 12  # units of the picture: the axis begins, its length, a row, above the rows
_SIDE = 560  # units of the longer side of a map
_AREAS = 100  # areas that are listed; the rest is in the table


class Interval(NamedTuple):
    """An estimate, in numbers and, as x, low_x and high_x, in units of the picture."""

    total: float
    low: float
    high: float
    share: float
    x: float
    low_x: float
    high_x: float


class Row(NamedTuple):
    """headline and other: the two estimates, None where there is none; before, after: how many the map has and had, and
    where that lies, None for what no map says.
    """

    name: str
    y: float
    headline: Interval
    other: Interval | None
    before: tuple[int, float] | None
    after: tuple[int, float] | None


def write_page(path: Path, given: JudgedMap, found: Assessment) -> None:
    """Writes the page; it asks no network for anything."""
    table = found.estimates.table
    whole = table[(table["area"] == ALL) & (table["unit"] == "buildings")].dropna(subset=["total"])
    rows, ticks = _picture(whole, given.grades, found) if len(whole) else ([], [])
    values = {
        "found": found,
        "estimates": found.estimates,
        "rows": rows,
        "ticks": ticks,
        "left": _LEFT,
        "width": _WIDTH,
        "height": _TOP + _ROW * len(rows),
        "whole": _totals(table, ALL),
        "areas": [(name, _totals(table, name)) for name in _areas(table)[:_AREAS]],
        "areas_left_out": max(0, len(_areas(table)) - _AREAS),
        "counts": [
            (grade.label, int((given.grades == grade.number).sum()), int((found.grades == grade.number).sum()))
            for grade in GRADES
        ],
        "accuracies": [
            (name, _measures(own), own.confusion.to_dict("index"))
            for name, own in (("The map as it was", found.before), ("What was learned", found.after))
            if own is not None
        ],
        "names": _NAMES,
        "judgement_keys": [key for key, grades in CATEGORIES.items() if len(grades) == 1],
        "curve": _curve(found),
        "maps": _maps(given, found),
    }
    path.write_text(render(_TEMPLATE, values), encoding="utf-8")


def _picture(whole: pd.DataFrame, mapped: Grades, found: Assessment) -> tuple[list[Row], list[tuple[float, float]]]:
    """Rows, and ticks as values and places. No damage is left out: beside it the others would be too small to see."""
    drawn = whole[whole["category"].isin(_DRAWN)]
    counts = {
        name: [int(np.isin(grades, CATEGORIES[name]).sum()) for grades in (mapped, found.grades)]
        for name in _DRAWN
        if set(CATEGORIES[name]) <= set(DAMAGED)
    }
    top = max(float(drawn["high"].max()), *(float(count) for own in counts.values() for count in own), 1.0)
    ticks = [float(value) for value in MaxNLocator(6, integer=True).tick_values(0, top) if value >= 0]
    scale = _WIDTH / ticks[-1]
    rows = []
    for number, name in enumerate(_DRAWN):
        own = drawn[drawn["category"] == name]
        headline, others = own[own["headline"]], own[~own["headline"]]
        if not len(headline):
            continue
        before, after = ((count, count * scale) for count in counts[name]) if name in counts else (None, None)
        rows.append(
            Row(
                _NAMES[name],
                _TOP + _ROW * (number + 0.5),
                _interval(headline, scale),
                _interval(others, scale) if len(others) else None,
                before,
                after,
            )
        )
    return rows, [(value, value * scale) for value in ticks]


def _interval(rows: pd.DataFrame, scale: float) -> Interval:
    total, low, high, share = (float(rows[name].iloc[0]) for name in ("total", "low", "high", "share"))
    return Interval(total, low, high, share, total * scale, low * scale, high * scale)


def _areas(table: pd.DataFrame) -> list[str]:
    return [name for name in table["area"].unique().tolist() if name != ALL]


def _totals(table: pd.DataFrame, area: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The headline's rows of an area, by category and unit."""
    own = table[(table["area"] == area) & table["headline"]]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in own.to_dict("records"):
        found.setdefault(str(row["category"]), {})[str(row["unit"])] = {str(key): value for key, value in row.items()}
    return found


def _measures(found: Accuracy) -> list[dict[str, Any]]:
    """Those that could be measured."""
    rows = found.table.dropna(subset=["share"]).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _curve(found: Assessment) -> str | None:
    """A picture of the accuracy by how many of the first judgements were learned from."""
    stops = found.adapted.stops if found.adapted else ()
    at = [float(stop.judged) for stop in stops]
    lines = {
        "F1 of the grades on the mean": [stop.score.macro_f1 for stop in stops],
        "share of right grades": [stop.score.right for stop in stops],
    }
    known = {name: (at, values) for name, values in lines.items() if values and np.isfinite(values).all()}
    return line_chart(known, "judgements learned from (0: the map as it was)", "on others") if known else None


def _maps(given: JudgedMap, found: Assessment) -> dict[str, Any]:
    """Both maps as dots, and the judged buildings, in units of a drawing of _SIDE."""
    longitude, latitude = given.table.points[0].tolist()
    places = points_from_degrees(given.table.points, metric_crs(longitude, latitude), longitude)
    low, high = places.min(0), places.max(0)
    scale = _SIDE / max(float((high - low).max()), 1.0)
    at = (places - low) * scale
    at[:, 1] = (high - low)[1] * scale - at[:, 1]
    return {
        "width": float((high - low)[0] * scale),
        "height": float((high - low)[1] * scale),
        "dots": float(np.clip(120 / np.sqrt(len(at)), 1.5, 8)),
        "before": list(_dots(at, given.grades)),
        "after": list(_dots(at, found.grades)),
        "judged": list(_judged(at, given, found)),
    }


def _dots(at: Floats, grades: Grades) -> Iterator[tuple[int, str]]:
    """A path of dots for each grade, the worst last, over the others. at: [N, 2]."""
    for grade in GRADES:
        own = at[grades == grade.number]
        if len(own):
            yield grade.number, "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own.tolist())


def _judged(at: Floats, given: JudgedMap, found: Assessment) -> Iterator[tuple[float, float, bool, str]]:
    """x, y, whether the map had it otherwise, and what to say of each judged building."""
    for row in np.flatnonzero(found.judged >= 0).tolist():
        judgement, mapped = int(found.judged[row]), int(given.grades[row])
        said = name_of(mapped) if mapped else "not visible"
        x, y = at[row].tolist()
        yield x, y, judgement != mapped, f"judged: {name_of(judgement)}; the map had: {said}"
