"""What an event's model computes: the probability of what a person would judge, of each building.

A curve for each judgement recalibrates the grades' probabilities; features move their logarithms from there, by a
multinomial logistic regression whose weights are pulled to 0. So a model that learns nothing from features is the
recalibrated one, and none is further from it than the judgements ask for. scikit-learn's regression has no such place
to start from; begun from nothing, on made events with 50 judgements, its logarithmic loss was 0.90 where the network
ranks well, that of recalibrating alone 0.78, and of this 0.76.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax

from base.grades import GRADES
from imagery.adapting.evidence import Evidence, Projection
from imagery.estimating.interval import Floats
from imagery.estimating.recalibration import Curves, logit, recalibrate
from imagery.sampling.judged import JUDGEMENTS

_INTERCEPT = 0.05  # precision of its prior, as of the curves': what nobody judged so is rare and not impossible
_ENOUGH = {"maxiter": 200, "ftol": 1e-7, "gtol": 1e-4}
_STEPS, _CLOSE = 50, 1e-6


class Inputs(NamedTuple):
    """logits: [N, 4], of the grades' probabilities; scores: [N, D], along the axes of the features, D of 0 without."""

    logits: Floats
    scores: Floats

    def at(self, rows: npt.NDArray[np.int64]) -> "Inputs":
        """Those of some buildings, in this order."""
        return Inputs(self.logits[rows], self.scores[rows])


def inputs_of(evidence: Evidence, onto: Projection | None) -> Inputs:
    """The numbers that are learned from."""
    logits = logit(evidence.probabilities)
    if onto is None or evidence.features is None:
        return Inputs(logits, np.zeros((len(logits), 0)))
    return Inputs(logits, onto(evidence.features))


class Head(NamedTuple):
    """curves: of the six of JUDGEMENTS; weights: [6, D], of the features' scores; intercept: [6]; the last two are 0, D
    too, where the grades' probabilities are recalibrated and no more.
    """

    curves: Curves
    weights: Floats
    intercept: Floats

    def __call__(self, inputs: Inputs) -> Floats:
        """Probabilities of JUDGEMENTS, [N, 6], each row of sum 1."""
        moved = inputs.scores[:, : self.weights.shape[1]] @ self.weights.T
        return np.asarray(softmax(_start(self.curves, inputs) + moved + self.intercept, axis=1))

    def with_shares_of(self, inputs: Inputs, grades: npt.NDArray[np.int64], weights: Floats) -> "Head":
        """The same with the judgements as frequent, on the mean over a weighted sample, as the sample has them, but for
        one more observation that is shared out over all.
        """
        hits = (grades[:, None] == JUDGEMENTS).astype(np.float64)
        shares = weights @ hits + 1 / len(JUDGEMENTS)
        head = self
        for _ in range(_STEPS):
            shift = np.log(shares / shares.sum() / (weights @ head(inputs) / weights.sum()))
            head = head._replace(intercept=head.intercept + shift)
            if np.abs(shift).max() < _CLOSE:
                break
        return head


def fit_curves(inputs: Inputs, grades: npt.NDArray[np.int64], weights: Floats) -> Head:
    """inputs: of the judged, [n]; grades: [n] of JUDGEMENTS; weights: [n]."""
    hits = (grades == np.array(JUDGEMENTS)[:, None]).astype(np.float64)
    return only_curves(recalibrate(_of_judgements(inputs.logits), hits, weights))


def only_curves(curves: Curves) -> Head:
    """What recalibrates and no more."""
    return Head(curves, np.zeros((len(JUDGEMENTS), 0)), np.zeros(len(JUDGEMENTS)))


def fit_features(begin: Head, inputs: Inputs, grades: npt.NDArray[np.int64], weights: Floats, strength: float) -> Head:
    """Adds to what curves say. begin: has these, and may have weights of another strength, from which it is not far.
    inputs: of the judged, [n]; grades: [n] of JUDGEMENTS; weights: [n], 1 on the mean; strength: the variance that the
    weights of the features are thought to have, C of scikit-learn.
    """
    scores, start = inputs.scores, _start(begin.curves, inputs)
    hits = (grades[:, None] == JUDGEMENTS).astype(np.float64)
    shape = (len(JUDGEMENTS), scores.shape[1] + 1)  # the last column is the intercept
    first = np.zeros(shape)
    first[:, : begin.weights.shape[1]], first[:, -1] = begin.weights, begin.intercept
    pull = np.full(shape, 1 / strength)
    pull[:, -1] = _INTERCEPT
    table = np.column_stack([scores, np.ones(len(scores))])

    def loss(flat: Floats) -> tuple[float, Floats]:
        at = flat.reshape(shape)
        logs = start + table @ at.T
        logs -= logs.max(1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        errors = weights[:, None] * (np.exp(logs) - hits)
        value = (pull * at**2).sum() / 2 - weights @ (logs * hits).sum(1)
        return float(value), (errors.T @ table + pull * at).ravel()

    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=_ENOUGH).x.reshape(shape)
    return Head(begin.curves, found[:, :-1], found[:, -1])


def _start(curves: Curves, inputs: Inputs) -> Floats:
    """Logarithms of what the curves say, [N, 6]."""
    return np.log(curves(_of_judgements(inputs.logits)).T)


def _of_judgements(logits: Floats) -> Floats:
    """[6, N]: those of the grades in their places, 0 for what no network predicts."""
    found = np.zeros((len(JUDGEMENTS), len(logits)))
    found[1 : 1 + len(GRADES)] = logits.T
    return found
