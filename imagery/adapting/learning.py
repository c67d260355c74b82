"""Learning an event's model from judgements: what it says of probabilities, and how it grades, are learned apart.

How far features may move probabilities is settled by cross-validation among the judgements. What decides is the
logarithmic loss, which asks for honest probabilities: of a few dozen judgements it leaves little more than the four
sums of the grades' probabilities recalibrated. Grades ask for the right order, and on real events a model that is held
back less has the better one, however sure it claims to be: docs/benchmarks.md. So grades are of a bold model, and how
sure they are is said by the honest one. With few judgements, or without features, only the sums are recalibrated.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from base.grades import GRADES
from imagery.adapting.evidence import Evidence, Projection, projection
from imagery.adapting.heads import Head, Inputs, fit_curves, fit_features, inputs_of
from imagery.estimating.cross_fitting import FOLDS, Learner
from imagery.estimating.interval import Floats
from imagery.sampling.judged import JUDGEMENTS

FEW = 25  # judgements below which features are not looked at
STRENGTHS = (0.01, 0.03, 0.1, 0.3)
BOLD = 0.3  # strength of the model that grades: on real events 0.1 and 1.0 are no better
BALANCE = 0.5
_NUMBERS = np.array([grade.number for grade in GRADES])
Grades = npt.NDArray[np.int64]


class EventModel(NamedTuple):
    """head: says probabilities; bold: gives the grades, and is the head where features are not looked at; onto: the
    axes along which they are, None where they are not; shares: [4], of the grades, on the mean over the buildings of
    the map that it was made for, by the bold head, 1 of grades that nobody judged.
    """

    head: Head
    bold: Head
    onto: Projection | None
    shares: Floats

    def __call__(self, evidence: Evidence) -> Floats:
        """Probabilities of JUDGEMENTS, [N, 6], each row of sum 1."""
        return self.head(inputs_of(evidence, self.onto))

    def grade(self, evidence: Evidence) -> tuple[Grades, Floats]:
        """See `grade_of`."""
        return self.grade_of(inputs_of(evidence, self.onto))

    def grade_of(self, inputs: Inputs) -> tuple[Grades, Floats]:
        """Grade, and its probability where it is a building whose grade can be told, each [N].

        A probability counts over the root of the grade's share (BALANCE): else rare grades, which F1 of the grades on
        the mean asks for as much as for frequent ones, would be given to hardly any building. Between 0, the most
        probable grade, and 1 it costs fewest right grades for that; see docs/assess.md.
        """
        best = (_of_grades(self.bold(inputs)) / self.shares**BALANCE).argmax(1)
        return _NUMBERS[best], _of_grades(self.head(inputs))[np.arange(len(best)), best]


class Extra(NamedTuple):
    """Judgements in no sample, such as of buildings that a person picked: learned from, never estimated with. places:
    [m] in the order of the draw; grades: [m] of JUDGEMENTS.
    """

    places: npt.NDArray[np.int64]
    grades: Grades


NO_EXTRA = Extra(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Teacher:
    """Learns models from judgements of the buildings of one draw."""

    def __init__(self, evidence: Evidence, extra: Extra = NO_EXTRA) -> None:
        """evidence: in the order of the draw, [N]."""
        enough = evidence.features is not None and len(evidence.probabilities) >= FEW
        self._onto = projection(evidence.features) if enough and evidence.features is not None else None
        self.inputs = inputs_of(evidence, self._onto)
        self._extra = self.inputs.at(extra.places), extra.grades
        self._known: dict[tuple[bytes, ...], EventModel] = {}

    def learn(self, places: npt.NDArray[np.int64], grades: Grades, weights: Floats) -> EventModel:
        """The model of these judgements. places: [n] in the order of the draw; weights: [n], 1 on the mean.

        What was learned once is not learned again.
        """
        key = places.tobytes(), grades.tobytes(), weights.tobytes()
        if key not in self._known:
            self._known[key] = self._learn(places, grades, weights, honest=True)
        return self._known[key]

    def learn_to_grade(self, places: npt.NDArray[np.int64], grades: Grades, weights: Floats) -> EventModel:
        """The same, whose grades alone can be used: to find out how sure they are takes the most time by far."""
        return self._learn(places, grades, weights, honest=False)

    def learner(self) -> Learner:
        """For `imagery.estimating.cross_fitting`."""
        return lambda places, grades, weights: self.learn(places, grades, weights).head(self.inputs)

    def _learn(self, places: npt.NDArray[np.int64], grades: Grades, weights: Floats, *, honest: bool) -> EventModel:
        sample = self.inputs.at(places)
        curves = fit_curves(sample, grades, weights)
        if len(grades) < FEW or self._onto is None:
            return EventModel(curves, curves, None, self._shares(curves, grades))
        curves = curves._replace(weights=np.zeros((len(JUDGEMENTS), self.inputs.scores.shape[1])))
        bold = self._fit(curves, sample, grades, weights, BOLD, balanced=True)
        head = self._fit(curves, sample, grades, weights, self._choose(sample, grades, weights)) if honest else bold
        return EventModel(head, bold, self._onto, self._shares(bold, grades))

    def _shares(self, head: Head, grades: Grades) -> Floats:
        """On the mean over all buildings; of a grade that nobody judged 1, so that hardly any building gets it."""
        judged = np.isin(_NUMBERS, [*grades, *self._extra[1]])
        return np.where(judged, _of_grades(head(self.inputs)).mean(0), 1.0)

    def _choose(self, sample: Inputs, grades: Grades, weights: Floats) -> float | None:
        """The strength with the least loss over held-out judgements of the sample; None: no more than curves."""
        fold, losses = _folds(grades), dict[float | None, float]()
        for number in range(FOLDS):
            out, seen = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            part, others = (sample.at(seen), grades[seen], weights[seen]), sample.at(out)
            head, told = fit_curves(*part), np.searchsorted(JUDGEMENTS, grades[out])
            for strength in (None, *STRENGTHS):
                head = self._fit(head, *part, strength)
                likely = head(others)[np.arange(len(out)), told]
                losses[strength] = losses.get(strength, 0.0) - float(weights[out] @ np.log(likely))
        return min(losses, key=lambda strength: losses[strength])

    def _fit(
        self, begin: Head, sample: Inputs, grades: Grades, weights: Floats, strength: float | None,
        *, balanced: bool = False,
    ) -> Head:  # fmt: skip
        """begin: curves of the sample alone, as they say how frequent a judgement is, unlike what was picked. balanced:
        each judgement has as much of a say as any other, however frequent it is.
        """
        if strength is None:
            return begin
        more, given = self._extra
        both = Inputs(*(np.concatenate(parts) for parts in zip(sample, more, strict=True)))
        every, says = np.concatenate([grades, given]), np.concatenate([weights, np.ones(len(given))])
        if balanced:
            says = _balanced(every, says)
        head = fit_features(begin, both, every, says, strength)
        return head.with_shares_of(sample, grades, weights) if balanced or len(given) else head


def _of_grades(probabilities: Floats) -> Floats:
    """Where it is a building whose grade can be told, [N, 4], of those of JUDGEMENTS."""
    own: Floats = probabilities[:, _NUMBERS] / probabilities[:, _NUMBERS].sum(1, keepdims=True)
    return own


def _balanced(grades: Grades, weights: Floats) -> Floats:
    """Weights of which each judgement has the same sum, 1 on the mean, [n]."""
    _, which = np.unique(grades, return_inverse=True)
    alike = weights / np.bincount(which, weights)[which]
    balanced: Floats = alike / alike.mean()
    return balanced


def _folds(grades: Grades) -> npt.NDArray[np.int64]:
    """Every fifth of a judgement, so that all folds have all that are frequent, [n]."""
    turn = np.empty(len(grades), np.int64)
    turn[np.argsort(grades, kind="stable")] = np.arange(len(grades))
    return turn % FOLDS
