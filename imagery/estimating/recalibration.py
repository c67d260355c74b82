"""Logistic recalibration of a predicted probability: what judgements teach a model whose order of buildings is right.

Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines". The slope is drawn towards 1 and the intercept,
weakly, towards 0, so that a handful of judgements, or none with a grade, gives finite and cautious numbers.
"""

from typing import NamedTuple

import numpy as np

from imagery.estimating.interval import Floats

_LARGEST = 8.0  # of a logit: a probability is no surer than 0.9997
_SLOPE, _INTERCEPT = 1.0, 0.05  # precision of the priors, where a judgement weighs 1 on the mean
_STEPS, _CLOSE = 60, 1e-8


class Curves(NamedTuple):
    """p = 1 / (1 + exp(-(intercept + slope logit))); each [B]."""

    intercept: Floats
    slope: Floats

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities, [B, M]; logits: [M], or [B, M]."""
        return _sigmoid(self.intercept[:, None] + self.slope[:, None] * logits)


def logit(probability: Floats) -> Floats:
    """The logit of a probability in [0, 1], kept finite."""
    with np.errstate(divide="ignore"):
        value: Floats = np.log(probability) - np.log1p(-probability)
    return np.clip(value, -_LARGEST, _LARGEST)


def recalibrate(logits: Floats, hits: Floats, weights: Floats) -> Curves:
    """The curves of B sets of n judgements, by Newton's method with shortened steps. logits: [B, n]; hits: [B, n] of
    0 and 1; weights: [n].

    scikit-learn has no prior around 1 for the slope, and takes a set at a time.
    """
    weights = weights / weights.mean()
    at = np.stack([np.zeros(len(logits)), np.ones(len(logits))])
    step, length, loss = np.zeros_like(at), np.ones(len(logits)), np.full(len(logits), np.inf)
    for _ in range(_STEPS):
        tried = at + length * step
        line = tried[0][:, None] + tried[1][:, None] * logits
        p = _sigmoid(line)
        here = -(weights * (hits * np.log(p) + (1 - hits) * np.log1p(-p))).sum(1)
        here += _INTERCEPT * tried[0] ** 2 / 2 + _SLOPE * (tried[1] - 1) ** 2 / 2
        better = here <= loss
        at, loss = np.where(better, tried, at), np.where(better, here, loss)
        error, bend = weights * (hits - p), weights * p * (1 - p)
        down = error.sum(1) - _INTERCEPT * tried[0], (error * logits).sum(1) - _SLOPE * (tried[1] - 1)
        a, b, c = bend.sum(1) + _INTERCEPT, (bend * logits).sum(1), (bend * logits**2).sum(1) + _SLOPE
        newton = np.stack([c * down[0] - b * down[1], a * down[1] - b * down[0]]) / (a * c - b**2)
        step = np.where(better, newton, step)
        length = np.where(better, 1.0, length / 2)
        if np.abs(length * step).max() < _CLOSE:
            break
    return Curves(at[0], at[1])


def _sigmoid(value: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(value, -30, 30)))
