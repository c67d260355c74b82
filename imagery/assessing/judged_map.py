"""What predict left in the folder of a map for a later step to grade its buildings anew, read and checked."""

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from base.access import unreadable
from base.errors import InputError, printable
from base.grades import KEYS
from base.problems import first_problem
from imagery.adapting.evidence import Evidence, evidence_of
from imagery.give.names import FEATURES, GEOJSON, METADATA, PROBABILITY, VECTORS, hash_of
from imagery.give.summary import SUMMARY_FILES
from imagery.give.table import OURS, Table, recognize
from imagery.read.vectors import read_polygons
from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import JUDGE, read_draw, read_squares
from imagery.sampling.squares import Squares

_SUMS = [f"{PROBABILITY}{key}" for key in KEYS]
_AGAIN = "Make the map again, by predict without --no-features"


class MapError(InputError):
    """The folder of a map that cannot be assessed; names file, finding, expectation and remedy."""


class _Map(BaseModel):
    sha256: str


class _Facts(BaseModel):
    """Of METADATA, what is needed here."""

    model: str
    location: str | None = None
    map: _Map


class _Distance(BaseModel):
    distance: float
    usual: float


class Domain(BaseModel):
    """How like its training data a network found the imagery. said: a sentence; features, colours: how far the imagery
    lies from it, and what is usual, None where that is not known.
    """

    said: str
    features: _Distance | None = None
    colours: _Distance | None = None


class _Scene(BaseModel):
    domain: Domain | None = None  # maps of earlier versions have none


class _Summary(BaseModel):
    """Of summary.json, what is needed here."""

    scene: _Scene


class JudgedMap(NamedTuple):
    """table: the buildings, N rows; ids: [N], as the page has them; grades: [N] of 1 to 4, 0 where a building is not
    visible; evidence: [N] rows, of which those not visible hold zeros; draw: in which order people judge; squares:
    where they look for what the map missed, None where it has none; network: what tells the one that made the map from
    others; location: where that was, None where an earlier version did not say; sha256: of the buildings' file; domain:
    None where an earlier version made the map.
    """

    table: Table
    ids: list[Any]
    grades: npt.NDArray[np.int64]
    evidence: Evidence
    draw: Draw
    squares: Squares | None
    network: str
    location: str | None
    sha256: str
    domain: Domain | None


def read_map(folder: Path) -> JudgedMap:
    """Reads the folder. Raises MapError, DrawError, VectorError."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise MapError(f"{folder}: {found}, expected the folder of a map that predict made. Correct --map.")
    rows, facts = _read_features(folder / FEATURES)
    sha256 = _hash(folder / GEOJSON)
    if sha256 != facts.map.sha256:
        _refuse(folder / GEOJSON, "was changed", f"the file that {FEATURES} was made with", _AGAIN)
    draw, squares = _read_draw(folder / JUDGE)
    table = _read_table(folder / GEOJSON)
    if len(table) != len(rows):
        _refuse(folder / FEATURES, f"has {len(rows)} rows", f"{len(table)}, as {GEOJSON} has polygons", _AGAIN)
    sums = np.stack([rows[name].to_numpy() for name in _SUMS], axis=1)
    seen = sums.sum(1) > 0
    if draw.map_hash != sha256 or not np.array_equal(np.sort(draw.order), np.flatnonzero(seen)):
        _refuse(folder / JUDGE, "is of another map", f"the order of the buildings of {GEOJSON}", _AGAIN)
    evidence = evidence_of(sums, _features(rows))
    if evidence.features is not None and not np.isfinite(evidence.features).all():
        _refuse(folder / FEATURES, "holds features that are no numbers", "finite ones of each visible building", _AGAIN)
    grades = table.ours("grade").fillna(0).to_numpy(np.int64)
    ids = rows["id"].to_pylist()
    domain = _read_domain(folder / SUMMARY_FILES[1])
    return JudgedMap(table, ids, grades, evidence, draw, squares, facts.model, facts.location, sha256, domain)


def _read_features(path: Path) -> tuple[Any, _Facts]:
    """The rows as an Arrow table, and what its metadata say."""
    try:
        rows = pq.read_table(path)
        facts = _Facts.model_validate_json((pq.read_metadata(path).metadata or {})[METADATA])
        kinds = {name: rows.schema.field(name).type for name in ("id", *_SUMS)}
        if not all(pa.types.is_floating(kinds[name]) for name in _SUMS):
            raise KeyError(*_SUMS)
    except FileNotFoundError:
        _refuse(path, "is missing", "what predict keeps of each building", _AGAIN)
    except (KeyError, ValidationError):
        _refuse(path, "is not of predict", f"its columns and, as metadata, {METADATA.decode()}", _AGAIN)
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse(path, f"cannot be read ({printable(str(error))[:200]})", "a Parquet file of predict", _AGAIN)
    return rows, facts


def _features(rows: Any) -> npt.NDArray[np.float16] | None:
    """Of each building, [N, C], NaN where it is not visible."""
    if VECTORS not in rows.column_names:
        return None
    values = rows[VECTORS].combine_chunks()
    return np.asarray(values.flatten().to_numpy(zero_copy_only=False), np.float16).reshape(len(rows), -1)


def _read_draw(path: Path) -> tuple[Draw, Squares | None]:
    try:
        return read_draw(path), read_squares(path)
    except OSError:
        _refuse(path, "is missing", "the order in which the page shows the buildings", _AGAIN)


def _read_domain(path: Path) -> Domain | None:
    try:
        return _Summary.model_validate_json(path.read_bytes()).scene.domain
    except FileNotFoundError:
        _refuse(path, "is missing", "what predict says of the map", _AGAIN)
    except ValidationError as error:
        place, said, _ = first_problem(error)
        _refuse(path, f"{place or 'the file'}: {said}", "what predict says of the map", _AGAIN)
    except OSError as error:
        raise MapError(f"{path}: {unreadable(path, error, f'. {_AGAIN}.')}") from error


def _read_table(path: Path) -> Table:
    frame = read_polygons(path).frame
    table = recognize(frame)
    if table is None:
        last = [str(name) for name in frame.columns if name != "geometry"][-len(OURS) :]
        _refuse(path, f"ends with the columns {', '.join(last)}", ", ".join(OURS), _AGAIN)
    return table


def _hash(path: Path) -> str:
    try:
        return hash_of(path)
    except FileNotFoundError:
        _refuse(path, "is missing", "the buildings of the map", _AGAIN)
    except OSError as error:
        raise MapError(f"{path}: {unreadable(path, error, f'. {_AGAIN}.')}") from error


def _refuse(path: Path, found: str, expected: str, remedy: str) -> NoReturn:
    raise MapError(f"{path}: {found}, expected {expected}. {remedy}.")
