"""Moves an alias from one version to the next: compare, set, read back.

A promotion that came between the decision and the move is refused, and so is one whose move another one overtook before
it was read back. MLflow's registry cannot compare and set, so two promotions within the same instant are not kept
apart: both may find what they expect, and the alias is where the later one set it. The history may then lack that
version; rollback says so, and a version is promoted by its number.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from base.errors import InputError

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

CHALLENGER, PRODUCTION = "challenger", "production"
KEPT = 50  # entries of a history


class HandoverError(InputError):
    """Something else moved the alias."""


def hand_over(
    name: str,
    alias: str,
    expected: "ModelVersion | None",
    to: "ModelVersion",
    record: Callable[[], object],
    *,
    back: bool = False,
) -> None:
    """Moves the alias to the version, if it still points where it did when the decision was made.

    record: keeps the decision, before anything moves.
    back: whether `to` is what the history has before `expected`, so that the history gets shorter.
    Raises HandoverError where the alias was moved meanwhile, TrackingError.
    """
    from components.tracking import registry

    _expect(name, alias, expected)
    record()
    known = history(name, alias)
    before = "" if expected is None else str(expected.version)
    if back:
        following = known[: _last(known, before)]
    else:
        following = [*known, *([before] if before and known[-1:] != [before] else []), str(to.version)]
    _expect(name, alias, expected)  # once more: the record took a while
    # A process that dies between the two leaves a history from which both ways lead back to what was production.
    steps = [partial(_write_history, name, alias, following), partial(registry.set_alias, to, alias)]
    for step in reversed(steps) if back else steps:
        step()
    _expect(name, alias, to)


def history(name: str, alias: str) -> list[str]:
    """Version numbers that the alias pointed to, oldest first; raises TrackingError."""
    from components.tracking import registry

    return registry.model_tags(name).get(f"history.{alias}", "").split()


def previous(name: str, alias: str, current: "ModelVersion") -> int:
    """The version that the alias pointed to before; raises HandoverError where nobody recorded one."""
    known = history(name, alias)
    place = _last(known, str(current.version))
    if place < 1:
        raise HandoverError(
            f"model {name}: no version before version {current.version} is recorded for {alias}. Promote one by "
            "--version."
        )
    return int(known[place - 1])


def _last(known: list[str], number: str) -> int:
    """Index of the last entry of that number; -1 where there is none."""
    return max((place for place, entry in enumerate(known) if entry == number), default=-1)


def _write_history(name: str, alias: str, entries: list[str]) -> None:
    from components.tracking import registry

    registry.tag_model(name, f"history.{alias}", " ".join(entries[-KEPT:]))


def _expect(name: str, alias: str, expected: "ModelVersion | None") -> None:
    from components.tracking import registry

    found = registry.find_version(name, alias=alias)
    numbers = [None if version is None else int(version.version) for version in (found, expected)]
    if numbers[0] != numbers[1]:
        now, then = ("no version" if number is None else f"version {number}" for number in numbers)
        by = "" if found is None else dict(found.tags).get("promotion_by", "")
        raise HandoverError(
            f"model {name}: {alias} is {now}, expected {then}: it was moved at the same time"
            f"{f' by {by}' if by else ''}. That move stands; promote again to compare with it."
        )
