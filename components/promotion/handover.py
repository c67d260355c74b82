"""Moves an alias from one version to the next so that of several promotions at once only one counts.

MLflow's registry cannot compare and set. But its tags are written and read in one order for all, so a promotion first
puts a mark of its own on the registered model and then looks for others: of two at once, at least one sees the other.
Whoever sees another takes its mark back and tries again; who is alone has its turn.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from base.errors import InputError

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

CHALLENGER, PRODUCTION = "challenger", "production"
MARK = "moving."  # of the tags of promotions under way, with the time of their beginning
LEASE = 120.0  # seconds after which a mark is one of a process that died
HOLD = LEASE / 3  # seconds for a turn: it ends early enough for clocks that differ by a minute
KEPT = 50  # entries of a history


class HandoverError(InputError):
    """Something else moves the alias, or moved it."""


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

    record: keeps the decision; called when nothing can come between any more but an error of the registry.
    back: whether `to` is what the history has before `expected`, so that the history gets shorter.
    Raises HandoverError where the alias was moved meanwhile, TrackingError.
    """
    from components.tracking import registry

    with _turn(name) as check_time:
        _expect(name, alias, expected)
        known = history(name, alias)
        before = "" if expected is None else str(expected.version)
        if back:
            following = known[: _last(known, before)]
        else:
            following = [*known, *([before] if before and known[-1:] != [before] else []), str(to.version)]
        record()
        check_time()
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


@contextmanager
def _turn(name: str) -> Iterator[Callable[[], None]]:
    """Waits until no other promotion of the model is under way, and lets none begin until the block ends.

    Gives a function that raises HandoverError where the turn took too long to go on.
    """
    from components.tracking import registry

    key = f"{MARK}{secrets.token_hex(8)}"
    deadline = time.monotonic() + 2 * LEASE
    while True:
        began = time.monotonic()
        try:
            registry.tag_model(name, key, str(time.time()))
            marks = {other: float(at) for other, at in registry.model_tags(name).items() if other.startswith(MARK)}
            living = [other for other, at in marks.items() if other != key and time.time() - at < LEASE]
            if not living:
                for dead in marks.keys() - {key}:
                    registry.untag_model(name, dead)
                yield partial(_check, name, began)
                return
        finally:
            registry.untag_model(name, key)
        if time.monotonic() > deadline:
            raise HandoverError(f"model {name}: other promotions are under way all the time. Promote again later.")
        time.sleep(random.uniform(0.05, 0.5))


def _check(name: str, began: float) -> None:
    if time.monotonic() - began > HOLD:
        raise HandoverError(f"model {name}: the registry took more than {HOLD:.0f} s to answer. Promote again.")
