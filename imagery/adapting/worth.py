"""What an event's model is worth, by judgements that it did not see, and whether its grades go before the map's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from base.grades import GRADES, LEGEND
from imagery.adapting.evidence import Evidence
from imagery.adapting.learning import FEW, NO_EXTRA, EventModel, Extra, Teacher
from imagery.estimating.cross_fitting import FOLDS, Learner, folds
from imagery.estimating.interval import Floats
from imagery.sampling.judged import Prefix

STOPS = (10, 25, 50, 100, 200, 400, 800)  # numbers of judgements that are learned from, to see what more of them buy
MEASURED = f"mean F1 of the grades judged {FOLDS} times or more, {FOLDS} folds"  # what `Score.macro_f1` of `adapt` is
_ROUNDING = 1e-9
_STAYS = "The map keeps its grades"
_NUMBERS = np.array([grade.number for grade in GRADES])
Grades = npt.NDArray[np.int64]


class Score(NamedTuple):
    """Of grades against judgements, weighted as the sample stands for all. f1: of each grade that counts, by number;
    right: the share of right grades; sure: the mean confidence, which is equal to it where confidence is calibrated.
    NaN where nothing could be told or was asked.
    """

    f1: dict[int, float]
    right: float
    sure: float

    @property
    def macro_f1(self) -> float:
        """The mean over the grades that count, NaN below two of them."""
        return float(np.mean([*self.f1.values()])) if len(self.f1) > 1 else float("nan")


class Stop(NamedTuple):
    """judged: how many judgements were learned from; score: on others."""

    judged: int
    score: Score


@dataclass(frozen=True, eq=False)
class Adapted:
    """model: what was learned from all judgements; learn: how, for estimates. keeps: whether the map's grades stay, as
    the model's are no better; said: that, and why, a sentence. grades, confidence: the model's, of all of the order,
    [N]; held_out: [n], the judged buildings' by models that did not see their judgement. before, after: what the map's
    grades and those are worth. stops: the same of models that learned from the first judgements of the sitting alone.
    """

    model: EventModel
    learn: Learner
    keeps: bool
    said: str
    grades: Grades
    confidence: Floats
    held_out: Grades
    before: Score
    after: Score
    stops: tuple[Stop, ...]


def adapt(
    prefix: Prefix, evidence: Evidence, extra: Extra = NO_EXTRA, *, mapped: tuple[Grades, Floats] | None = None,
    stops: Sequence[int] = STOPS,
) -> Adapted:  # fmt: skip
    """Learns from all judgements, and holds the result against the map. evidence: in the order of the prefix's draw.
    mapped: the map's grades and confidence, each [N] in this order; without it the most probable grades. stops: how
    many of the first judgements to learn from besides.

    The model's grades go before the map's where, cross-validated, their mean F1 over the grades that were judged at
    least FOLDS times is higher. Raises AssertionError below FOLDS judgements or `Draw.fewest` of them.
    """
    count = len(prefix)
    assert count >= max(FOLDS, prefix.draw.fewest), count
    teacher = Teacher(evidence, extra)
    weights = 1 / prefix.draw.inclusion(count)[:count]
    model = teacher.learn(np.arange(count), prefix.grades, weights / weights.mean())
    grades, confidence = model.grade_of(teacher.inputs)
    base, base_sure = mapped or grade_of(evidence.probabilities)
    before = score(prefix.grades, base[:count], base_sure[:count], weights)
    held_out, sure = _held_out(prefix, teacher.learn, teacher, weights, count)
    after = score(prefix.grades, held_out, sure, weights)
    keeps, said = _decide(model, count, before, after, grades)
    most = count - count // FOLDS
    between = (stop for stop in stops if prefix.draw.fewest <= stop < most)
    bought = (Stop(stop, _worth_of(prefix, teacher, weights, stop)) for stop in between)
    return Adapted(
        model, teacher.learner(), keeps, said, grades, confidence, held_out, before, after,
        (Stop(0, before), *bought, Stop(most, after)),
    )  # fmt: skip


def grade_of(probabilities: Floats) -> tuple[Grades, Floats]:
    """The map's: the most probable grade, of equal ones the lower, and its probability, each [N]; given all, [N, 4]."""
    return _NUMBERS[probabilities.argmax(1)], probabilities.max(1)


def score(judged: Grades, grades: Grades, sure: Floats, weights: Floats) -> Score:
    """judged: [n] of JUDGEMENTS, of which those with a grade are looked at; grades, sure: [n], to hold against them."""
    told = np.isin(judged, _NUMBERS)
    judged, grades, sure, weights = judged[told], grades[told], sure[told], weights[told]
    f1 = {}
    for number in (number for number in _NUMBERS.tolist() if (judged == number).sum() >= FOLDS):
        both = weights[(judged == number) & (grades == number)].sum()
        f1[number] = float(2 * both / (weights[judged == number].sum() + weights[grades == number].sum()))
    total = weights.sum() or np.nan
    return Score(f1, float(weights @ (judged == grades) / total), float(weights @ sure / total))


def _decide(model: EventModel, count: int, before: Score, after: Score, grades: Grades) -> tuple[bool, str]:
    if len(before.f1) < 2:
        judged = " and ".join(f"only {LEGEND[number][0]}" for number in before.f1) or "no grade"
        return True, f"{_STAYS}: {judged} was judged {FOLDS} times or more, which measures no model. Judge more."
    measured = (
        f"cross-validated F1 of {len(before.f1)} grades on the mean: {before.macro_f1:.3f} before, "
        f"{after.macro_f1:.3f} after"
    )
    if not after.macro_f1 > before.macro_f1 + _ROUNDING:
        return True, f"{_STAYS}: what was learned is no better; {measured}."
    if len(np.unique(grades)) < 2:
        return True, f"{_STAYS}: what was learned gives the same one to all buildings; {measured}."
    if model.onto is None:
        why = f"fewer than {FEW} are judged" if count < FEW else "the map has no features of the network"
        return False, f"The grades' probabilities are recalibrated, no more, as {why}; {measured}."
    return False, f"A model of this event gives the grades; {measured}."


def _worth_of(prefix: Prefix, teacher: Teacher, weights: Floats, most: int) -> Score:
    """Of models of the first judgements; how sure they are is not asked."""
    grades, sure = _held_out(prefix, teacher.learn_to_grade, teacher, weights, most)
    return score(prefix.grades, grades, np.full(len(sure), np.nan), weights)


def _held_out(
    prefix: Prefix, learn: Callable[[npt.NDArray[np.int64], Grades, Floats], EventModel], teacher: Teacher,
    weights: Floats, most: int,
) -> tuple[Grades, Floats]:  # fmt: skip
    """Grade and confidence of each judged building, [n], by a model of the first judgements of the other folds, `most`
    of them.
    """
    fold = folds(prefix)
    grades, sure = np.empty(len(prefix), np.int64), np.empty(len(prefix))
    for number in range(FOLDS):
        out, seen = np.flatnonzero(fold == number), np.flatnonzero(fold != number)[:most]
        model = learn(seen, prefix.grades[seen], weights[seen] / weights[seen].mean())
        grades[out], sure[out] = model.grade_of(teacher.inputs.at(out))
    return grades, sure
