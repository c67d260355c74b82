"""What people said of the buildings of a map, as classes of a mask: in its page, or in a GeoPackage edited in QGIS."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd

from base.grades import BACKGROUND, LEGEND, SUBTYPES, UNCLASSIFIED
from imagery.assessing.assessment import sit
from imagery.assessing.judged_map import MapError, read_map
from imagery.find.votes import NOT_VISIBLE
from imagery.give.names import GEOJSON
from imagery.give.table import PREFIX, Table, recognize, table_of
from imagery.read.vectors import read_polygons
from imagery.sampling.judged import JudgementError, name_of
from imagery.sampling.judgements_file import name_of_id, read_judgements

EDITED = ".gpkg"  # the ending of a file of buildings that a person edited
# In a column of text, in lower case and with blanks: what a person may write for a class of JUDGEMENTS.
WORDS = {
    **{str(number): number for number in LEGEND},
    **{name_of(number): number for number in LEGEND},
    **{subtype.replace("-", " "): number for subtype, number in SUBTYPES.items()},
}
Classes = npt.NDArray[np.int64]


class Labelled(NamedTuple):
    """frame: a GeoDataFrame of outlines, with a column id; classes: [N], of each 1 to 4, UNCLASSIFIED, or BACKGROUND
    for what is no building; judged: [N], whether a person said so. notes: what a reader must know, a sentence each.
    """

    frame: Any
    classes: Classes
    judged: npt.NDArray[np.bool_]
    notes: tuple[str, ...]

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """[N], of which a person knew what they are."""
        return np.asarray(self.judged & (self.classes != UNCLASSIFIED))

    def counts(self) -> dict[str, int]:
        """How many are of which kind."""
        told, graded = self.told, ~np.isin(self.classes, (BACKGROUND, UNCLASSIFIED))
        return {
            "judged": int(self.judged.sum()),
            "judged_and_graded": int((told & graded).sum()),
            "judged_not_a_building": int((told & ~graded).sum()),
            "judged_cannot_tell": int((self.judged & ~told).sum()),
            "not_judged": int((~self.judged).sum()),
            "graded_by_the_map": int((~self.judged & graded).sum()),
        }


def read_labelled(folder: Path, judgements: Sequence[Path], trust: float | None) -> Labelled:
    """The buildings of the map in `folder`, as people judged them: in files that its page gave, or in one GeoPackage
    that is the map's, or an assessed one's, with edits.

    Who nobody judged is UNCLASSIFIED, or has the map's grade where its confidence is `trust` or more.
    Raises MapError, JudgementError, DrawError, VectorError.
    """
    edited = [path for path in judgements if path.suffix.lower() == EDITED]
    if edited and len(judgements) > 1:
        raise JudgementError(
            f"{edited[0]}: found beside {len(judgements) - 1} other files, expected one GeoPackage alone, or files of "
            "the map's page. Assess the files of the page first: its buildings.gpkg holds what they say."
        )
    labelled, table = _edited(folder, edited[0]) if edited else _judged(folder, judgements)
    if not labelled.told.any():
        raise JudgementError(
            f"{judgements[0]}: found no building that somebody graded, expected some. Judge buildings, in the map's "
            "page or in the column judged of its buildings.gpkg."
        )
    if trust is not None:
        confidence = pd.to_numeric(table.ours("confidence"), errors="coerce").fillna(-1).to_numpy(float)
        grades = pd.to_numeric(table.ours("grade"), errors="coerce").fillna(UNCLASSIFIED).to_numpy(np.int64)
        trusted = ~labelled.judged[: len(grades)] & (confidence >= trust)
        labelled.classes[: len(grades)][trusted] = grades[trusted]
    return labelled


def _judged(folder: Path, files: Sequence[Path]) -> tuple[Labelled, Table]:
    given = read_map(folder)
    sitting = sit({str(path): read_judgements(path, given.draw, given.ids) for path in files})
    classes = np.full(len(given.ids), UNCLASSIFIED)
    judged = np.zeros(len(given.ids), bool)
    for own in sitting.judgements:
        classes[own.row], judged[own.row] = own.grade, True
    notes = [f"{len(sitting.disagreements)} buildings were judged differently by two people"]
    frame = _outlines(given.table.frame, given.ids)
    return Labelled(frame, classes, judged, tuple(notes if sitting.disagreements else ())), given.table


def _edited(folder: Path, path: Path) -> tuple[Labelled, Table]:
    """What the file says: in the column `judged` where it has one, and, but for an assessed map, whose grades are its
    own, by grades that are not the map's. Who is no longer there is no building; who is new was drawn by a person.
    """
    known = recognize(read_polygons(folder / GEOJSON).frame)
    if known is None:
        raise MapError(f"{folder / GEOJSON}: is not of predict, expected the buildings of a map. Correct --map.")
    polygons = read_polygons(path)
    frame, name = polygons.frame, str(known.ids.name)
    missing = [column for column in (name, known.columns["grade"], known.columns["damage"]) if column not in frame]
    if missing:
        raise JudgementError(
            f"{path}: has no column {missing[0]}, expected the buildings.gpkg of this map with edits. Give that file."
        )
    own = table_of(frame, known.columns)
    before = _by_id(known, name)
    said = _column(frame, "judged", known)
    assessed = _column(frame, "base_grade", known) is not None
    ids = [name_of_id(value) for value in frame[name]]
    grades, damages = ([_word(path, value) for value in own.ours(key)] for key in ("grade", "damage"))
    classes, judged = np.full(len(frame), UNCLASSIFIED), np.zeros(len(frame), bool)
    for row, id_ in enumerate(ids):
        told = None if said is None else _word(path, said[row])
        if told is None:
            old, own_grades = before.get(id_, {(None, None)}), (grades[row], damages[row])
            told = _changed(path, id_, old, own_grades, assessed=assessed and id_ in before)
        if told is not None:
            classes[row], judged[row] = told, True
    gone = [row for row, id_ in enumerate(map(name_of_id, known.ids)) if id_ not in set(ids)]
    outlines = pd.concat([_outlines(frame, ids), _outlines(known.frame, known.ids).to_crs(frame.crs).iloc[gone]])
    notes = [*polygons.notes]
    if gone:
        notes.append(f"{path}: {len(gone)} buildings of the map are not in it, and were taken for no buildings")
    if new := sum(id_ not in before for id_ in ids):
        notes.append(f"{path}: {new} buildings are not of the map, and were taken as a person drew them")
    classes = np.append(classes, np.full(len(gone), BACKGROUND))
    return Labelled(outlines, classes, np.append(judged, np.ones(len(gone), bool)), tuple(notes)), own


def _changed(
    path: Path, id_: str, known: set[tuple[int | None, int | None]], own: tuple[int | None, int | None], *,
    assessed: bool,
) -> int | None:  # fmt: skip
    """What a building's grade and damage say that is not the map's; of an assessed map nothing, but both must agree."""
    if own in known and not assessed:
        return None
    old = next(iter(known))
    new = [value for value, before in zip(own, old, strict=True) if value is not None and (assessed or value != before)]
    if len(set(new)) > 1:
        _refuse(
            path, f"the building {id_!r} has grade {name_of(new[0])!r} and damage {name_of(new[1])!r}", "the same",
            "Write what you see into the column judged",
        )  # fmt: skip
    return None if assessed or not new else new[0]


def _by_id(table: Table, name: str) -> Mapping[str, set[tuple[int | None, int | None]]]:
    """The grades and damages of the map, which may have an id more than once."""
    found: dict[str, set[tuple[int | None, int | None]]] = {}
    rows = zip(table.attributes[name], table.ours("grade"), table.ours("damage"), strict=True)
    for id_, grade, damage in rows:
        found.setdefault(name_of_id(id_), set()).add((_number(grade), _number(damage)))
    return found


def _column(frame: Any, name: str, known: Table) -> Any:
    """A column that assess or a person added, None where there is none; assess gives it a prefix where the map has one
    of this name.
    """
    taken = {str(column).lower() for column in known.attributes.columns}
    while name in taken:
        name = PREFIX + name
    return frame[name].tolist() if name in frame else None


def _number(value: Any) -> int | None:
    """The class that a value of a column is, None for none: missing, empty, or not visible."""
    if pd.isna(value) or not str(value).strip() or value == NOT_VISIBLE:
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return WORDS.get(" ".join(text.lower().replace("-", " ").replace("_", " ").split()), -1)


def _word(path: Path, value: Any) -> int | None:
    number = _number(value)
    if number == -1:
        expected = ", ".join(f"{name_of(one)} ({one})" for one in sorted(LEGEND))
        _refuse(path, f"found {str(value)[:60]!r} as what a building is", f"one of {expected}", "Correct it")
    return number


def _outlines(frame: Any, ids: Iterable[Any]) -> Any:
    names = [name_of_id(value) for value in ids]
    return geopandas.GeoDataFrame({"id": names}, geometry=frame.geometry.values, crs=frame.crs)


def _refuse(path: Path, found: str, expected: str, remedy: str) -> NoReturn:
    raise JudgementError(f"{path}: {found}, expected {expected}. {remedy}.")
