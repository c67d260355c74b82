"""What predict left in the folder of a map for a later step to grade its buildings anew, read and checked."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from base.access import unreadable
from base.errors import InputError, printable
from base.grades import KEYS
from imagery.adapting.evidence import Evidence
from imagery.find.votes import SHARES
from imagery.give.table import PREFIX, Table
from imagery.read.vectors import read_polygons
from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import JUDGE, read_draw

BUILDINGS, FEATURES = "buildings.geojson", "features.parquet"
_OURS = ("grade", "damage", "confidence", "area_m2", *SHARES)  # the last columns of BUILDINGS, in this order
_SUMS = [f"probability_{key}" for key in KEYS]
_METADATA, _VECTORS = b"dual-hrnet", "features"  # see `imagery.give.features`, which needs torch
_AGAIN = "Make the map again, by predict without --no-features"


class MapError(InputError):
    """The folder of a map that cannot be assessed; names file, finding, expectation and remedy."""


class JudgedMap(NamedTuple):
    """table: the buildings, N rows; ids: [N], as the page has them; grades: [N] of 1 to 4, 0 where a building is not
    visible; evidence: [N] rows, of which those not visible hold zeros; draw: in which order people judge; network: what
    tells the one that made the map from others; sha256: of the buildings' file.
    """

    table: Table
    ids: list[Any]
    grades: npt.NDArray[np.int64]
    evidence: Evidence
    draw: Draw
    network: str
    sha256: str


def read_map(folder: Path) -> JudgedMap:
    """Reads the folder. Raises MapError, DrawError, VectorError."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise MapError(f"{folder}: {found}, expected the folder of a map that predict made. Correct --map.")
    rows, facts = _read_features(folder / FEATURES)
    content = _bytes(folder / BUILDINGS)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts["map"]["sha256"]:
        _refuse(folder / BUILDINGS, "was changed", f"the file that {FEATURES} was made with", _AGAIN)
    draw = _read_draw(folder / JUDGE)
    table = _read_table(folder / BUILDINGS)
    if len(table.frame) != len(rows):
        _refuse(folder / FEATURES, f"has {len(rows)} rows", f"{len(table.frame)}, as {BUILDINGS} has polygons", _AGAIN)
    sums = np.stack([rows[name].to_numpy() for name in _SUMS], axis=1)
    seen = sums.sum(1) > 0
    if draw.map_hash != sha256 or not np.array_equal(np.sort(draw.order), np.flatnonzero(seen)):
        _refuse(folder / JUDGE, "is of another map", f"the order of the buildings of {BUILDINGS}", _AGAIN)
    probabilities = np.divide(sums, sums.sum(1, keepdims=True), out=np.zeros(sums.shape), where=seen[:, None])
    features = _features(rows, seen, folder / FEATURES)
    grades = np.where(seen, probabilities.argmax(1) + 1, 0)
    evidence = Evidence(probabilities, features)
    return JudgedMap(table, rows["id"].to_pylist(), grades, evidence, draw, facts["model"], sha256)


def _read_features(path: Path) -> tuple[Any, dict[str, Any]]:
    """The rows as an Arrow table, and what its metadata say."""
    try:
        rows = pq.read_table(path)
        facts = json.loads((rows.schema.metadata or {})[_METADATA])
        missing = {"id", *_SUMS} - set(rows.column_names)
        if missing or not {"model", "map"} <= set(facts):
            raise KeyError(*sorted(missing))
    except FileNotFoundError:
        _refuse(path, "is missing", "what predict keeps of each building", _AGAIN)
    except KeyError:
        _refuse(path, "is not of predict", f"its columns and, as metadata, {_METADATA.decode()}", _AGAIN)
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse(path, f"cannot be read ({printable(str(error))[:200]})", "a Parquet file of predict", _AGAIN)
    return rows, facts


def _features(rows: Any, seen: npt.NDArray[np.bool_], path: Path) -> npt.NDArray[np.float16] | None:
    """Of each building, [N, C], zeros where it is not visible."""
    if _VECTORS not in rows.column_names:
        return None
    values = rows[_VECTORS].combine_chunks()
    found = np.array(values.flatten().to_numpy(zero_copy_only=False), np.float16).reshape(len(rows), -1)
    found[~seen] = 0
    if not np.isfinite(found).all():
        _refuse(path, "holds features that are no numbers", "finite ones of each visible building", _AGAIN)
    return found


def _read_draw(path: Path) -> Draw:
    try:
        return read_draw(path)
    except OSError:
        _refuse(path, "is missing", "the order in which the page shows the buildings", _AGAIN)


def _read_table(path: Path) -> Table:
    frame = read_polygons(path).frame
    names = [str(name) for name in frame.columns if name != "geometry"][-len(_OURS) :]
    plain = tuple(_without_prefix(name) for name in names)
    if plain != _OURS:
        _refuse(path, f"ends with the columns {', '.join(plain)}", ", ".join(_OURS), _AGAIN)
    return Table(frame, dict(zip(_OURS, names, strict=True)))


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        _refuse(path, "is missing", "the buildings of the map", _AGAIN)
    except OSError as error:
        raise MapError(f"{path}: {unreadable(path, error, f'. {_AGAIN}.')}") from error


def _refuse(path: Path, found: str, expected: str, remedy: str) -> NoReturn:
    raise MapError(f"{path}: {found}, expected {expected}. {remedy}.")
