"""Buildings as a table with a row each: what is known of them, beside what was known before."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd

from imagery.find.ground import Geometries, square_metres
from imagery.find.votes import DAMAGE, NOT_VISIBLE, SHARES, Votes, decide
from imagery.read.grid import WGS84

PREFIX = "damage_"  # of our columns, where the given ones have the same names

BASE = "base_grade"  # the column of the grades before others took their place
OURS = ("grade", "damage", "confidence", "area_m2", *SHARES)  # the last columns of a table, in this order


class Table(NamedTuple):
    """frame: a GeoDataFrame in degrees; columns: how each of our columns is called in it: grade, damage, confidence,
    area_m2 and the shares, see `imagery.find.votes.decide`.
    """

    frame: Any
    columns: dict[str, str]

    def ours(self, name: str) -> Any:
        """One of our columns."""
        return self.frame[self.columns[name]]

    @property
    def ids(self) -> Any:
        """The column that tells buildings apart: given, or their numbers."""
        named = [name for name in self.frame.columns if str(name).lower() == "id"]
        return self.frame["id" if "id" in named else named[0]]


def tabulate(polygons: Geometries, votes: Votes, given: pd.DataFrame | None = None) -> Table:
    """polygons: [N], in degrees; votes: [N, 2, 4]; given: attributes that are kept as they are, [N].

    Where `given` has no column id, buildings are numbered from 1. A column of ours gets a prefix where `given` has one
    of this name, in whatever letters.
    """
    known = decide(votes)
    known.insert(list(known.columns).index("confidence") + 1, "area_m2", square_metres(polygons).round(2))
    attributes = pd.DataFrame(index=known.index) if given is None else given
    taken = attributes.columns
    if "id" not in {str(name).lower() for name in taken}:
        attributes = attributes.copy()
        attributes.insert(0, "id", np.arange(1, len(known) + 1))
    columns = {str(name): free(str(name), taken) for name in known.columns}
    rows = pd.concat([attributes, known.rename(columns=columns)], axis=1)
    return Table(geopandas.GeoDataFrame(rows, geometry=polygons, crs=WGS84), columns)


def regraded(table: Table, grades: npt.NDArray[np.int64], confidence: npt.NDArray[np.float64]) -> Table:
    """The same buildings with other grades and confidence; base_grade, in front of ours, is what they had.

    grades: [N], 0 where not visible; confidence: [N], NaN there.
    """
    frame, columns = table.frame.copy(), table.columns
    grade = pd.array(grades, dtype="Int64")
    grade[grades == 0] = pd.NA
    base = table.ours("grade").astype("Int64")
    frame[columns["grade"]] = grade
    frame[columns["damage"]] = np.array([NOT_VISIBLE, *DAMAGE], dtype=object)[grades]
    frame[columns["confidence"]] = confidence.round(4)
    frame.insert(frame.columns.get_loc(columns["grade"]), free(BASE, frame.columns), base)
    return Table(frame, columns)


def free(name: str, taken: Iterable[object]) -> str:
    """The name, prefixed where it is taken, in whatever letters."""
    lower = {str(other).lower() for other in taken}
    while name.lower() in lower:
        name = PREFIX + name
    return name


def recognize(frame: Any) -> Table | None:
    """The table of a GeoDataFrame that was one, written and read; None where its columns are not."""
    names = [str(name) for name in frame.columns if name != "geometry"][-len(OURS) :]
    plain = tuple(_without_prefix(name) for name in names)
    return Table(frame, dict(zip(OURS, names, strict=True))) if plain == OURS else None


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name
