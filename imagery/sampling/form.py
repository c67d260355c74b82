"""A draw as plain data, the judge.json of a map's page: what the page needs to show buildings in their order."""

import textwrap
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import InputError, printable
from imagery.sampling.draw import Draw

VERSION = 1


class DrawError(InputError):
    """A draw that cannot be used; names file, finding, expectation and remedy."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    map: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    sizes: list[Annotated[int, Field(ge=1)]]
    order: list[Annotated[int, Field(ge=0)]]
    strata: list[Annotated[int, Field(ge=0)]]


def to_plain(draw: Draw) -> dict[str, object]:
    """What stands in judge.json: version; map, its hash; seed; sizes, buildings in each stratum, from the highest
    scores down; order, rows of the map's table; strata, that of each of the order.
    """
    return {
        "version": VERSION,
        "map": draw.map_hash,
        "seed": draw.seed,
        "sizes": draw.sizes.tolist(),
        "order": draw.order.tolist(),
        "strata": draw.strata.tolist(),
    }


def from_plain(content: object, source: str) -> Draw:
    """The draw of a judge.json that was read; raises DrawError, which names `source`."""
    if not isinstance(content, Mapping):
        raise _unusable(source, f"found {shown(content)}, expected an object with order and strata")
    try:
        form = _Form.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise _unusable(source, f"{field}: found {shown(first['input'])}: {first['msg'].lower()}") from None
    order, strata = np.array(form.order, np.int64), np.array(form.strata, np.int64)
    if len(strata) != len(order):
        raise _unusable(source, f"strata: found {len(strata)}, expected {len(order)}, one for each of the order")
    if len(np.unique(order)) != len(order):
        raise _unusable(source, f"order: found {len(order) - len(np.unique(order))} rows twice, expected each once")
    if form.sizes != (sizes := np.bincount(strata).tolist()):
        raise _unusable(source, f"sizes: found {shown(form.sizes)}, expected {shown(sizes)}, as strata counts them")
    return Draw(order, strata, form.seed, form.map)


def shown(value: object) -> str:
    """A value of a file in a few words, for an error."""
    return textwrap.shorten(repr(value), 60, placeholder="...")


def _unusable(source: str, finding: str) -> DrawError:
    return DrawError(f"{source}: is no draw of this version ({printable(finding)}). Use the page of the same map.")
