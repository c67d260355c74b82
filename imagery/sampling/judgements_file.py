"""The files of a judged map: judge.json, its draw, and judgements.geojson, which people take from its page.

Of a judgement's properties these are read: id and row, of the building in the map's table; judgement; rank and stratum,
null where it was picked freely; judge; map. A square in which people looked for buildings that the map missed has
instead: square, its number; rank; missed, null where nothing can be seen; damaged, of these; judge; map. Others, such
as seconds and inclusion, and the polygons are for people.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from base.errors import printable
from imagery.sampling.draw import Draw
from imagery.sampling.form import from_plain, shown, squares_from_plain
from imagery.sampling.judged import JUDGEMENTS, Judgement, JudgementError
from imagery.sampling.squares import Counted, Squares

JUDGE, JUDGEMENTS_FILE = "judge.json", "judgements.geojson"


def _whole(value: object) -> object:
    """Map programs may give numbers back as 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Number = Annotated[int, BeforeValidator(_whole), Field(ge=0)]


class _Properties(BaseModel):
    model_config = ConfigDict(strict=True)

    map: str
    id: int | float | str | None
    row: _Number
    judgement: _Number
    rank: _Number | None
    stratum: _Number | None
    judge: str | None = None


class _Square(BaseModel):
    model_config = ConfigDict(strict=True)

    map: str
    square: _Number
    rank: _Number
    missed: _Number | None
    damaged: _Number
    judge: str | None = None


def _kind(properties: object) -> str:
    return "square" if isinstance(properties, Mapping) and properties.get("square") is not None else "building"


class _Feature(BaseModel):
    properties: Annotated[
        Annotated[_Properties, Tag("building")] | Annotated[_Square, Tag("square")], Discriminator(_kind)
    ]


class _File(BaseModel):
    type: Literal["FeatureCollection"]
    features: list[_Feature]


def read_draw(path: Path) -> Draw:
    """The draw of a map's judge.json; raises DrawError, and OSError where there is no such file."""
    return from_plain(_json(path), str(path))


def read_squares(path: Path) -> Squares | None:
    """The squares of a map's judge.json, None where it has none; raises as `read_draw` does."""
    return squares_from_plain(_json(path), str(path))


def read_judgements(path: Path, draw: Draw, ids: Sequence[object]) -> list[Judgement]:
    """The judgements of a judgements.geojson, in its order, one for each building.

    draw: of the map that was judged; ids: of the buildings of its table, [N], as features.parquet has them.
    Raises JudgementError where the file is none, is of another map or draw, names a building that is not there or one
    twice, or holds a judgement that is none; OSError where there is no such file.
    """
    found: dict[int, Judgement] = {}
    for place, own in _read(path, draw):
        if isinstance(own, _Square):
            continue
        if own.row >= len(ids) or name_of_id(own.id) != name_of_id(ids[own.row]):
            known = (
                f"the building {shown(name_of_id(ids[own.row]))}" if own.row < len(ids) else f"one of {len(ids)} rows"
            )
            finding = f"{place}: found the building {shown(name_of_id(own.id))} in row {own.row}, expected {known}"
            _refuse(path, finding, "Take out what the map does not hold")
        if own.judgement not in JUDGEMENTS:
            wanted = ", ".join(map(str, JUDGEMENTS))
            _refuse(path, f"{place}: found the judgement {own.judgement}, expected one of {wanted}", "Judge it again")
        if own.row in found:
            _refuse(path, f"{place}: found row {own.row} twice, expected each once", "Merge two files in the page")
        _check_place(path, place, own, draw)
        found[own.row] = Judgement(own.judgement, own.row, own.rank, own.stratum, own.judge or "")
    return [*found.values()]


def read_counts(path: Path, draw: Draw, squares: Squares | None) -> list[Counted]:
    """What a judgements.geojson says of squares, in its order, one for each.

    squares: of the map that was judged, None where it has none. Raises JudgementError as `read_judgements` does.
    """
    found: dict[int, Counted] = {}
    for place, own in _read(path, draw):
        if not isinstance(own, _Square):
            continue
        order: list[int] = [] if squares is None else squares.draw.order.tolist()
        if own.rank >= len(order) or order[own.rank] != own.square:
            wanted = order[own.rank] if own.rank < len(order) else f"a rank below {len(order)}"
            finding = f"{place}: found the square {own.square} at rank {own.rank}, expected {wanted}"
            _refuse(path, finding, "It is of another order: use judgements made in this map's page")
        if own.damaged > (own.missed or 0):
            finding = (
                f"{place}: found {own.damaged} damaged of {own.missed} missed buildings, expected no more than these"
            )
            _refuse(path, finding, "Count the square again")
        if own.rank in found:
            _refuse(path, f"{place}: found the square {own.square} twice, expected each once", "Take one of them out")
        found[own.rank] = Counted(own.rank, own.missed, own.damaged, own.judge or "")
    return [*found.values()]


def _read(path: Path, draw: Draw) -> Iterator[tuple[str, _Properties | _Square]]:
    """What the features of a file say, each by what an error calls it."""
    content = _json(path)
    try:
        features = _File.model_validate(content).features
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("building", "square")) or "the whole"
        _refuse(
            path, f"{place}: found {shown(first['input'])}: {first['msg'].lower()}", "Download it from the page anew"
        )
    if not features:
        _refuse(path, "found no judgement, expected some", "Judge buildings in the map's page")
    for number, feature in enumerate(features):
        own, place = feature.properties, f"feature {number}"
        if own.map != draw.map_hash:
            finding = f"{place}: found judgements of the map {own.map[:12]!r}, expected {draw.map_hash[:12]!r}"
            _refuse(path, finding, "Give the map whose page they were made in")
        yield place, own


def name_of_id(value: Any) -> str:
    """An id in words that are the same whatever it went through: JSON knows no 3.0, and Parquet no missing number."""
    missing = pd.isna(value)
    return "" if missing else str(_whole(value))


def _check_place(path: Path, place: str, own: _Properties, draw: Draw) -> None:
    if own.rank is None and own.stratum is None:
        return
    wanted = f"0 to {len(draw) - 1}"
    if own.rank is not None and own.rank < len(draw):
        expected = int(draw.order[own.rank]), int(draw.strata[own.rank])
        if (own.row, own.stratum) == expected:
            return
        wanted = "row {}, stratum {}".format(*expected)
    finding = f"{place}: found row {own.row}, stratum {own.stratum} at rank {own.rank}, expected {wanted}"
    _refuse(path, finding, "It is of another order: use judgements made in this map's page")


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        _refuse(path, f"is no JSON ({printable(str(error))})", "Take it anew from the map or its page")


def _refuse(path: Path, finding: str, remedy: str) -> NoReturn:
    raise JudgementError(f"{path}: {finding}. {remedy}.")
