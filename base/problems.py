"""What pydantic finds wrong in a file's content or in parameters, as parts of an error's line."""

from collections.abc import Mapping
from textwrap import shorten
from typing import Any, NamedTuple

from pydantic import ValidationError

from base.errors import printable


class Problem(NamedTuple):
    """place: the field, such as `scene.reading.bands`, empty for the whole; said: what is wrong, in small letters;
    found: the value.
    """

    place: str
    said: str
    found: Any


def first_problem(error: ValidationError, *above: str) -> Problem:
    """The first of what was found wrong. above: the fields in which the checked content lies."""
    first = error.errors()[0]
    return Problem(_place((*above, *first["loc"])), printable(first["msg"]).lower(), first["input"])


def describe(problem: Mapping[str, Any]) -> str:
    """One of `ValidationError.errors()` as a clause: the field, what was found, and what to do or what was expected."""
    name = _place(problem["loc"])
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    message = message[0].lower() + message[1:]
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name}: is not a parameter. Remove it or correct its spelling"
    if problem["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{name}: is missing. Add it"
    return f"{name}: found {shorten(repr(problem['input']), 200, placeholder=' ...')}: {message}"


def _place(fields: tuple[Any, ...]) -> str:
    return ".".join(map(str, fields))
