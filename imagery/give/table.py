"""Buildings as a table with a row each: what is known of them, beside what was known before."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from imagery.find.ground import Geometries, square_metres
from imagery.find.shapes import Shapes, parts_of
from imagery.find.votes import DAMAGE, NOT_VISIBLE, SHARES, Votes, decide
from imagery.read.grid import WGS84

PREFIX = "damage_"  # of our columns, where the given ones have the same names

BASE = "base_grade"  # the column of the grades before others took their place
OURS = ("grade", "damage", "confidence", "area_m2", *SHARES)  # the last columns of a table, in this order


class Places(NamedTuple):
    """Where polygons lie, in degrees. points: [N, 2] longitude and latitude of a point within each; boxes: [N, 4] west,
    south, east and north.
    """

    points: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """attributes: a DataFrame, N rows; columns: how each of our columns is called in it: grade, damage, confidence,
    area_m2 and the shares, see `imagery.find.votes.decide`; polygons: [N], in degrees; known_places: theirs, else they
    are found when somebody asks.
    """

    attributes: Any
    columns: dict[str, str]
    polygons: Shapes
    known_places: Places | None = None

    def __len__(self) -> int:
        """How many buildings there are."""
        return len(self.attributes)

    def ours(self, name: str) -> Any:
        """One of our columns."""
        return self.attributes[self.columns[name]]

    @property
    def ids(self) -> Any:
        """The column that tells buildings apart: given, or their numbers."""
        named = [name for name in self.attributes.columns if str(name).lower() == "id"]
        return self.attributes["id" if "id" in named else named[0]]

    @property
    def frame(self) -> Any:
        """All of it, as one GeoDataFrame."""
        return self._frame(slice(None))

    def frames(self) -> Iterator[Any]:
        """Its rows, as GeoDataFrames of a part of them each; at least one."""
        return (self._frame(part) for part in parts_of(len(self)))

    @cached_property
    def places(self) -> Places:
        """Where each lies."""
        return self.known_places or joined([places_of(self.polygons[part]) for part in parts_of(len(self))])

    @property
    def points(self) -> npt.NDArray[np.float64]:
        """Longitude and latitude of a point within each, [N, 2]."""
        return self.places.points

    def _frame(self, rows: slice) -> Any:
        return geopandas.GeoDataFrame(self.attributes.iloc[rows], geometry=self.polygons[rows], crs=WGS84)


def places_of(polygons: Geometries) -> Places:
    """polygons: [N], in degrees."""
    return Places(shapely.get_coordinates(shapely.point_on_surface(polygons)), shapely.bounds(polygons).reshape(-1, 4))


def joined(parts: Sequence[Places]) -> Places:
    """Of the polygons of all parts, one after the other."""
    return Places(*(np.concatenate(own) for own in zip(*parts, strict=True)))


def tabulate(
    polygons: Shapes, votes: Votes, given: pd.DataFrame | None = None, areas: npt.NDArray[np.float64] | None = None,
    places: Places | None = None,
) -> Table:  # fmt: skip
    """polygons: [N], in degrees; votes: [N, 2, 4]; given: attributes that are kept as they are, [N]; areas, places: of
    the polygons, where they are known; areas in m², [N].

    Where `given` has no column id, buildings are numbered from 1. A column of ours gets a prefix where `given` has one
    of this name, in whatever letters.
    """
    known = decide(votes)
    if areas is None:
        areas = np.concatenate([square_metres(polygons[part]) for part in parts_of(len(polygons))])
    known.insert(list(known.columns).index("confidence") + 1, "area_m2", areas.round(2))
    attributes = pd.DataFrame(index=known.index) if given is None else given
    taken = attributes.columns
    if "id" not in {str(name).lower() for name in taken}:
        attributes = attributes.copy()
        attributes.insert(0, "id", np.arange(1, len(known) + 1))
    columns = {str(name): free(str(name), taken) for name in known.columns}
    return Table(pd.concat([attributes, known.rename(columns=columns)], axis=1), columns, polygons, places)


def regraded(table: Table, grades: npt.NDArray[np.int64], confidence: npt.NDArray[np.float64]) -> Table:
    """The same buildings with other grades and confidence; base_grade, in front of ours, is what they had.

    grades: [N], 0 where not visible; confidence: [N], NaN there.
    """
    attributes, columns = table.attributes.copy(), table.columns
    grade = pd.array(grades, dtype="Int64")
    grade[grades == 0] = pd.NA
    base = table.ours("grade").astype("Int64")
    attributes[columns["grade"]] = grade
    attributes[columns["damage"]] = np.array([NOT_VISIBLE, *DAMAGE], dtype=object)[grades]
    attributes[columns["confidence"]] = confidence.round(4)
    attributes.insert(attributes.columns.get_loc(columns["grade"]), free(BASE, attributes.columns), base)
    return Table(attributes, columns, table.polygons, table.known_places)


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
    return table_of(frame, dict(zip(OURS, names, strict=True))) if plain == OURS else None


def table_of(frame: Any, columns: dict[str, str]) -> Table:
    """The table of a GeoDataFrame. columns: see `Table`."""
    return Table(frame.drop(columns=frame.geometry.name), columns, np.asarray(frame.geometry, dtype=object))


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name
