import numpy as np
import pytest
from scipy.optimize import minimize

from imagery.estimating.recalibration import logit, recalibrate


def test_curves_are_those_of_the_largest_posterior_which_a_general_optimizer_finds() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(-2, 2, (3, 60))
    hits = (generator.random((3, 60)) < 1 / (1 + np.exp(-(1 + 0.5 * logits)))).astype(float)
    hits[2] = 0
    weights = generator.random(60) + 0.5
    curves = recalibrate(logits, hits, weights)
    for own, seen, intercept, slope in zip(logits, hits, *curves, strict=True):

        def loss(at: np.ndarray, own: np.ndarray = own, seen: np.ndarray = seen) -> float:
            line = at[0] + at[1] * own
            each = weights / weights.mean() * (np.logaddexp(0, line) - seen * line)
            return float(each.sum() + 0.05 / 2 * at[0] ** 2 + (at[1] - 1) ** 2 / 2)

        best = minimize(loss, np.array([0.0, 1.0]), tol=1e-12)
        assert [intercept, slope] == pytest.approx(best.x, abs=1e-4)


def test_without_any_hit_a_probability_falls_and_stays_finite() -> None:
    logits = np.full((1, 50), -1.0)
    curves = recalibrate(logits, np.zeros((1, 50)), np.ones(50))
    assert 0 < float(curves(np.array([-1.0]))[0, 0]) < 0.02


def test_certain_predictions_have_finite_logits() -> None:
    assert logit(np.array([0.0, 0.5, 1.0])).tolist() == [-8.0, 0.0, 8.0]
