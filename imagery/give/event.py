"""A map's buildings graded by the model of an event, which assess made, instead of by the votes of their pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from base.problems import first_problem
from imagery.adapting.evidence import evidence_of
from imagery.adapting.learning import EventModel
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import EventModelError, load_event_model, save_event_model
from imagery.find.votes import CERTAIN, Votes
from imagery.give.table import Table, regraded

ROWS = 8192  # buildings that are graded at a time: their features may be too many for memory
Part = Callable[[int, int], npt.NDArray[np.floating]]  # features of the buildings from one to before another


class _Map(BaseModel):
    network: str


class _Worth(BaseModel):
    judged: int


class _About(BaseModel):
    model_config = ConfigDict(strict=True)

    map: _Map
    worth: _Worth
    base: str | None = None
    event: str | None = None


class Event(NamedTuple):
    """model: what was learned. name: of the event, None where nobody gave it one; judged: from how many judgements it
    was learned; network: what tells the one below it from others, see `imagery.predict.inference.identity_of`; base:
    where that was, None where nobody recorded it; version: the registered one, None of a folder.
    """

    model: EventModel
    name: str | None
    judged: int
    network: str
    base: str | None
    version: str | None

    @property
    def reads_features(self) -> bool:
        """Whether it grades by the network's features, and not by the grades' probabilities alone."""
        return self.model.onto is not None

    def __str__(self) -> str:
        """For the report, a line."""
        whose = "an event" if self.name is None else f"the event {self.name}"
        which = "not registered" if self.version is None else self.version
        return f"buildings graded by the model of {whose}, learned from {self.judged} judgements ({which})"

    @property
    def facts(self) -> dict[str, Any]:
        """Fit for JSON."""
        known = {"name": self.name, "version": self.version, "judged": self.judged, "base": self.base}
        return {"said": str(self), **known}


def read_event(folder: Path, version: str | None) -> Event:
    """The event's model of a folder. version: the registered one that it is of. Raises EventModelError."""
    model, content = load_event_model(folder)
    try:
        about = _About.model_validate(content)
    except ValidationError as error:
        place, said, _ = first_problem(error, "about")
        raise EventModelError(f"{folder / MODEL_FILES[0]}: {place}: {said}. Run assess again.") from None
    return Event(model, about.event, about.worth.judged, about.map.network, about.base, version)


def write_event(event: Event, folder: Path) -> None:
    """Writes what `read_event` reads into a folder; which version it is of is not in it."""
    of, worth = _Map(network=event.network), _Worth(judged=event.judged)
    about = _About(map=of, worth=worth, base=event.base, event=event.name)
    save_event_model(event.model, folder, about.model_dump())


def grade_by_event(table: Table, event: Event, votes: Votes, features: Part | None) -> Table:
    """The table with the event's grades. votes: [N, 2, 4], see `imagery.find.votes.count_votes`; features: of the
    table's rows, None where the event's model reads none.
    """
    grades, confidence = np.zeros(len(votes), np.int64), np.full(len(votes), np.nan)
    for start in range(0, len(votes), ROWS):
        part = slice(start, min(start + ROWS, len(votes)))
        evidence = evidence_of(votes[part, 0] / CERTAIN, features(part.start, part.stop) if features else None)
        grades[part], confidence[part] = event.model.grade(evidence)
    unseen = ~votes[:, 1].any(1)
    grades[unseen], confidence[unseen] = 0, np.nan
    return regraded(table, grades, confidence)
