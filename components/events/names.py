"""What models of events are called in the registry, and the tags by which their versions are told apart."""

import re

from base.errors import InputError

EVENTS = "dual-hrnet-events"  # the registered model
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST = 60  # characters of an event's name
# Tags of a version. BASE: where its network was; BEFORE, AFTER: the mean F1 of the grades, of the map and by
# cross-validation of what was learned; MEASURE, with MAP and JUDGEMENTS: what these two were measured on.
EVENT, BASE, NETWORK, MAP, JUDGEMENTS = "event", "base", "network", "map", "judgements"
BEFORE, AFTER, MEASURE = "mean_f1_before", "mean_f1_after", "measure"


class EventError(InputError):
    """An event, or a version of its model, that cannot be used."""


def check_name(event: str) -> None:
    """Raises EventError where it is no name of an event."""
    if not NAME.fullmatch(event) or len(event) > LONGEST:
        raise EventError(
            f"--event: found {event!r:.70}, expected a name of small letters and digits, parted by single hyphens, of "
            f"at most {LONGEST} characters, such as palu-2018. Correct it."
        )


def alias_of(event: str) -> str:
    """The alias that stands for the event."""
    return f"event-{event}"
