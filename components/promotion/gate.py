"""The gate in front of production: the scores of two versions, row by row, and whether the newer one may pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from base.errors import InputError
from base.grades import KEYS
from base.tables import aligned
from components.params import PromoteParams
from components.tracking.lineage import in_todays_names

SCORES = "gate_scores"  # the tag of a version that holds what `scores_of` returns
TRAINED_ON = "trained_on"  # the tag that says which scenes a version learned from
ABSENT = "absent_grades"  # the tag that says which grades the scenes lack on which a version was scored
OVERALL, GRADE, DISASTER = "score", "damage_f1_", "disaster "
GRADES = tuple(f"{GRADE}{name}" for name in KEYS)
# In the name of a disaster's row whose score is taken over the grades that it has; by the official rule it would be at
# most 0.3. Versions of earlier have such a score, in a row without these words.
WITHOUT = " without "
COLUMNS = ("", "candidate", "current", "difference", "at least", "verdict")


class GateError(InputError):
    """The version may not become production."""


@dataclass(frozen=True)
class Scored:
    """The scores of a version by row, and what they were measured on.

    settings: those of evaluate, as JSON. Each is None where nobody recorded it.
    """

    scores: Mapping[str, float]
    prepared_version: str | None
    settings: str | None

    @property
    def measure(self) -> tuple[str | None, str | None]:
        """Scores compare only where this is equal."""
        return self.prepared_version, self.settings


@dataclass(frozen=True)
class Row:
    """One comparison. limit: the least that the candidate must have; None asks for nothing. words: what is shown of the
    two instead of scores.
    """

    name: str
    candidate: float | None
    production: float | None
    limit: float | None
    words: tuple[str, str] | None = None

    @property
    def passes(self) -> bool:
        """A score that is missing or NaN does not."""
        return self.limit is None or (self.candidate is not None and self.candidate >= self.limit)


def scores_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What the gate compares, from metrics.json: the score over all, the F1 of grades, the scores of disasters, each
    over the grades that the disaster has.
    """
    grades = {key: float(metrics[key]) for key in GRADES if key in metrics}
    rows = {}
    for name, scores in metrics.get("per_disaster", {}).items():
        absent = f"{WITHOUT}{', '.join(scores[ABSENT])}" if scores[ABSENT] else ""
        rows[f"{DISASTER}{name}{absent}"] = float(scores[f"{OVERALL}_present"])
    return {OVERALL: float(metrics[OVERALL]), **grades, **rows}


def scored(number: int | str, tags: Mapping[str, str]) -> Scored:
    """The scores in the tags of a version; raises GateError where there are none.

    A version that was registered before the gate had rows has a tag for each score, and the version of its data.
    """
    tags = in_todays_names(tags)
    try:
        if SCORES in tags:
            scores = {name: float(value) for name, value in json.loads(tags[SCORES]).items()}
        else:
            scores = {key: float(tags[key]) for key in tags if key in (OVERALL, *GRADES)}
        found = scores[OVERALL]
    except (KeyError, ValueError, AttributeError, TypeError):
        raise GateError(f"version {number} has no usable tag score. Register it with its metrics.") from None
    if found != found:  # NaN
        raise GateError(f"version {number} has the score NaN. Evaluate and register it again.")
    return Scored(
        scores, tags.get("scored_prepared_version", tags.get("prepared_version")), tags.get("evaluate_settings")
    )


def compare(candidate: Scored, production: Scored | None, params: PromoteParams) -> list[Row]:
    """The rows of the comparison: the minimum, and where there is a production version each of its scores."""
    rows = [Row("minimum", candidate.scores[OVERALL], None, params.minimum_score)]
    known = {} if production is None else production.scores
    subjects = {_subject(name) for name in candidate.scores}
    for name in {**known, **candidate.scores}:
        if name not in candidate.scores and _subject(name) in subjects:
            continue  # a score by the other rule: the candidate's row has nothing to compare with
        now, before = candidate.scores.get(name), known.get(name)
        rows.append(Row(name, now, before, None if before is None else before - _tolerance(name, params)[1]))
    return rows


def notes(candidate: Mapping[str, str], production: Mapping[str, str] | None) -> list[Row]:
    """What stands below the scores of the two, by their tags: whether they learned from synthetic or from real scenes,
    and which grades the scenes lack on which both were scored.
    """
    absent = candidate.get(ABSENT, "unknown")
    learned = [tags.get(TRAINED_ON, "unknown") if tags is not None else "-" for tags in (candidate, production)]
    return [
        Row("trained on", None, None, None, words=(learned[0], learned[1])),
        Row("absent grades", None, None, None, words=(absent, "-" if production is None else absent)),
    ]


def decide(rows: Sequence[Row], params: PromoteParams) -> str:
    """The reason to promote; raises GateError with the reasons not to."""
    refusals = [_refusal(row, params) for row in rows if not row.passes]
    if refusals:
        raise GateError(f"{'; '.join(refusals)}. Train a better one, or change the limits of the gate.")
    minimum, score = rows[0], next(row for row in rows if row.name == OVERALL)
    reason = f"score {_number(minimum.candidate)} reaches {params.minimum_score}"
    if score.production is None:
        return f"{reason} and there was no production version"
    compared = sum(row.limit is not None for row in rows[1:])
    return f"{reason} and none of {compared} scores is worse than production's by more than its tolerance"


def table(rows: Sequence[Row]) -> str:
    """The comparison as lines of text with aligned columns."""
    lines = [COLUMNS]
    for row in rows:
        if row.words is not None:
            lines.append((row.name, *row.words, "-", "-", "-"))
            continue
        both = row.candidate is not None and row.production is not None
        difference = f"{row.candidate - row.production:+.4f}" if both else "-"  # type: ignore[operator]
        verdict = "-" if row.limit is None else "passes" if row.passes else "refused"
        lines.append(
            (row.name, _number(row.candidate), _number(row.production), difference, _number(row.limit), verdict)
        )
    return aligned(lines)


def _subject(name: str) -> str:
    """What a row is about, by whichever rule its score was taken."""
    return name.partition(WITHOUT)[0]


def _tolerance(name: str, params: PromoteParams) -> tuple[str, float]:
    """The parameter that limits this row, and its value."""
    if name.startswith(GRADE) and params.grade_tolerance is not None:
        return "grade_tolerance", params.grade_tolerance
    if name.startswith(DISASTER) and params.disaster_tolerance is not None:
        return "disaster_tolerance", params.disaster_tolerance
    return "tolerance", params.tolerance


def _refusal(row: Row, params: PromoteParams) -> str:
    if row.name == "minimum":
        return f"score {_number(row.candidate)} is below promote.minimum_score {params.minimum_score}"
    parameter, tolerance = _tolerance(row.name, params)
    return (
        f"{row.name} {_number(row.candidate)} is worse than production's {_number(row.production)} by more than "
        f"promote.{parameter} {tolerance}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
