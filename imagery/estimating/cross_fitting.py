"""Predictions for the difference estimator, of models that did not see the judgement which they are held against."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from base.grades import GRADES
from imagery.estimating.interval import Floats
from imagery.estimating.recalibration import logit, recalibrate
from imagery.sampling.judged import JUDGEMENTS, Prefix

FOLDS = 5

# From places in the order [m], their judgements [m] and weights [m], 1 on the mean: the probability of each of
# JUDGEMENTS for all of the order, [N, 6].
Learner = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats], Floats]


class Predictions(NamedTuple):
    """held_out: [n, 6] of the judged, by the model of the other folds; everywhere: [N, 6], the mean of all models."""

    held_out: Floats
    everywhere: Floats


def folds(prefix: Prefix) -> npt.NDArray[np.int64]:
    """The fold of each judgement, [n] from 0: every fifth of a stratum, so that all have all."""
    turn = np.empty(len(prefix), np.int64)
    for stratum in range(len(prefix.draw.sizes)):
        members = np.flatnonzero(prefix.strata == stratum)
        turn[members] = np.arange(len(members))
    return turn % FOLDS


def cross_fit(learn: Learner, prefix: Prefix) -> Predictions:
    """Learns FOLDS times from all judgements but a fold."""
    count, draw = len(prefix), prefix.draw
    weights = 1 / draw.inclusion(count)[:count]
    fold = folds(prefix)
    held_out, everywhere = np.zeros((count, len(JUDGEMENTS))), np.zeros((len(draw), len(JUDGEMENTS)))
    for number in range(FOLDS):
        out = fold == number
        seen = np.flatnonzero(~out)
        predicted = learn(seen, prefix.grades[seen], weights[seen] / weights[seen].mean())
        held_out[out] = predicted[:count][out]
        everywhere += predicted * out.mean()
    return Predictions(held_out, everywhere)


def recalibrating(probabilities: Floats) -> Learner:
    """Learns a curve for each grade over the predicted probability of it, and how many are no building or not to tell.

    probabilities: of the grades 1 to 4, in the order of the draw, [N, 4].
    """
    logits = np.zeros((len(JUDGEMENTS), len(probabilities)))
    logits[1 : 1 + len(GRADES)] = logit(probabilities.T)

    def learn(places: npt.NDArray[np.int64], grades: npt.NDArray[np.int64], weights: Floats) -> Floats:
        hits = (grades == np.array(JUDGEMENTS)[:, None]).astype(np.float64)
        return recalibrate(logits[:, places], hits, weights)(logits).T

    return learn
