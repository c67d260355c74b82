"""The gate in front of an event's alias: what a version is worth on the judgements of its own sample, none of which was
seen by the model that graded its building.
"""

import math
from collections.abc import Mapping, Sequence

from components.events.names import AFTER, BEFORE, EVENT, JUDGEMENTS, MAP, MEASURE, alias_of
from components.promotion.gate import GateError, Row

_SAMPLE = (MEASURE, MAP, JUDGEMENTS)  # tags; scores compare only where these are equal
_BASE, _CURRENT = "mean F1, map before", "mean F1"


def alias_for(number: int | str, tags: Mapping[str, str], asked: str | None) -> str:
    """The alias that the version may become, that of its event. asked: by the user, None without a wish.

    Raises GateError where it is another one, production above all.
    """
    event = tags.get(EVENT)
    if not event:
        raise GateError(f"version {number} has no tag {EVENT}. Register it by assess --event.")
    if asked not in (None, alias_of(event)):
        raise GateError(
            f"--to: found {asked}, expected {alias_of(event)}, as version {number} is of the event {event} and stands "
            "for no other. Leave it out."
        )
    return alias_of(event)


def compare_events(
    number: int | str, tags: Mapping[str, str], current: tuple[int | str, Mapping[str, str]] | None
) -> list[Row]:
    """The rows of the comparison: with what the map had, and where it is of the same sample with the current version.

    current: number and tags of the version that the alias points to. Raises GateError where tags cannot be used.
    """
    before, after = _score(number, tags, BEFORE), _score(number, tags, AFTER)
    rows = [Row(_BASE, after, before, math.nextafter(before, math.inf))]  # better, not as good as
    if current is None:
        return rows
    if _sample(tags) == _sample(current[1]):
        known = _score(*current, AFTER)
        return [*rows, Row(_CURRENT, after, known, known)]
    samples = [own.get(JUDGEMENTS, "unknown")[:12] for own in (tags, current[1])]
    return [*rows, Row(_CURRENT, after, None, None), Row(JUDGEMENTS, None, None, None, words=(samples[0], samples[1]))]


def decide_event(rows: Sequence[Row]) -> str:
    """The reason to promote; raises GateError with the reasons not to."""
    known = {row.name: row for row in rows}
    base, other = known[_BASE], known.get(_CURRENT)
    said = f"cross-validated F1 of the grades on the mean {base.candidate:.4f}"
    than = f"the {base.production:.4f} that the map had"
    if not base.passes:
        raise GateError(f"{said} is not better than {than}. Judge more, and assess again.")
    if other is None:
        return f"{said} is better than {than}, and there was no version before"
    if other.production is None:
        return f"{said} is better than {than}; the version before was measured on other judgements and does not compare"
    current = f"the {other.production:.4f} of the version before, on the same judgements"
    if not other.passes:
        raise GateError(f"{said} is worse than {current}. Keep that one, or judge more.")
    return f"{said} is better than {than}, and no worse than {current}"


def _sample(tags: Mapping[str, str]) -> list[str | None]:
    return [tags.get(name) for name in _SAMPLE]


def _score(number: int | str, tags: Mapping[str, str], name: str) -> float:
    try:
        found = float(tags[name])
    except (KeyError, ValueError):
        found = math.nan
    if not 0 <= found <= 1:
        raise GateError(f"version {number} has no usable tag {name}. Register it by assess --event.")
    return found
