"""A draw as plain data, the judge.json of a map's page: what the page needs to show buildings in their order."""

import textwrap
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import InputError, printable
from base.problems import first_problem
from imagery.sampling.draw import Draw
from imagery.sampling.squares import Squares

VERSION = 1


class DrawError(InputError):
    """A draw that cannot be used; names file, finding, expectation and remedy."""


class _Squares(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    side: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    columns: Annotated[int, Field(ge=1)]
    order: list[Annotated[int, Field(ge=0)]]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    map: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    sizes: list[Annotated[int, Field(ge=1)]]
    order: list[Annotated[int, Field(ge=0)]]
    strata: list[Annotated[int, Field(ge=0)]]
    squares: _Squares | None = None  # maps of footprints have none, nor had those of earlier versions


def to_plain(draw: Draw, squares: Squares | None = None) -> dict[str, object]:
    """What stands in judge.json: version; map, its hash; seed; sizes, buildings in each stratum, from the highest
    scores down; order, rows of the map's table; strata, that of each of the order; squares, where there are some: side
    in metres, columns, and the order of their numbers.
    """
    drawn = squares and {"side": squares.side, "columns": squares.columns, "order": squares.draw.order.tolist()}
    return {
        "version": VERSION,
        "map": draw.map_hash,
        "seed": draw.seed,
        "sizes": draw.sizes.tolist(),
        "order": draw.order.tolist(),
        "strata": draw.strata.tolist(),
        **({"squares": drawn} if drawn else {}),
    }


def from_plain(content: object, source: str) -> Draw:
    """The draw of a judge.json that was read; raises DrawError, which names `source`."""
    form = _form(content, source)
    order, strata = np.array(form.order, np.int64), np.array(form.strata, np.int64)
    if len(strata) != len(order):
        raise _unusable(source, f"strata: found {len(strata)}, expected {len(order)}, one for each of the order")
    _refuse_twice(source, "order", form.order)
    if form.sizes != (sizes := np.bincount(strata).tolist()):
        raise _unusable(source, f"sizes: found {shown(form.sizes)}, expected {shown(sizes)}, as strata counts them")
    return Draw(order, strata, form.seed, form.map)


def squares_from_plain(content: object, source: str) -> Squares | None:
    """The squares of the same judge.json, None where it has none; raises DrawError."""
    form = _form(content, source)
    if form.squares is None:
        return None
    order = form.squares.order
    _refuse_twice(source, "squares.order", order)
    draw = Draw(np.array(order, np.int64), np.zeros(len(order), np.int64), form.seed, form.map)
    return Squares(form.squares.side, form.squares.columns, draw)


def _form(content: object, source: str) -> _Form:
    if not isinstance(content, Mapping):
        raise _unusable(source, f"found {shown(content)}, expected an object with order and strata")
    try:
        return _Form.model_validate(content)
    except ValidationError as error:
        place, said, found = first_problem(error)
        raise _unusable(source, f"{place}: found {shown(found)}: {said}") from None


def _refuse_twice(source: str, name: str, order: list[int]) -> None:
    if twice := len(order) - len(set(order)):
        raise _unusable(source, f"{name}: found {twice} rows twice, expected each once")


def shown(value: object) -> str:
    """A value of a file in a few words, for an error."""
    return textwrap.shorten(repr(value), 60, placeholder="...")


def _unusable(source: str, finding: str) -> DrawError:
    return DrawError(f"{source}: is no draw of this version ({printable(finding)}). Use the page of the same map.")
