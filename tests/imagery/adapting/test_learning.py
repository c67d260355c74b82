"""Models of an event as learners of the model-assisted estimate, and what they promise of their probabilities."""

from typing import cast

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from imagery.adapting.evidence import AXES, projection
from imagery.adapting.heads import Head, Inputs, fit_curves, fit_features, only_curves
from imagery.adapting.learning import NO_EXTRA, EventModel, Extra, Teacher
from imagery.estimating.cross_fitting import cross_fit
from imagery.estimating.frame import Frame
from imagery.estimating.recalibration import Curves
from imagery.estimating.totals import ALL, MODEL_ASSISTED, estimate
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS
from tests.imagery.adapting.events import CHANNELS, event

MADE = event(sharp=0.5, telling=0.5, shares=(0.1, 0.5, 0.2, 0.1, 0.1))
SHARES = np.array([0.64, 0.16, 0.16, 0.04])
WEIGHTS = np.random.default_rng(2).uniform(0.5, 1.5, 100)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(MADE.evidence)


@pytest.mark.parametrize("count", [15, 100])
def test_a_learner_gives_a_probability_of_every_judgement_for_every_building(teacher: Teacher, count: int) -> None:
    found = teacher.learner()(np.arange(count), MADE.truth[:count], np.ones(count))
    assert found.shape == (1200, len(JUDGEMENTS))
    np.testing.assert_allclose(found.sum(1), 1)
    assert found.min() > 0
    assert found[:, JUDGEMENTS.index(CANNOT_TELL)].max() < 0.25  # nobody judged so


def test_held_out_predictions_are_of_models_that_did_not_see_the_judgement(teacher: Teacher) -> None:
    """A judgement that is turned around changes the predictions of others, and not its own."""
    sample = MADE.judged(30)
    turned = MADE._replace(truth=np.where(np.arange(1200) == 7, 5 - MADE.truth, MADE.truth)).judged(30)
    one, other = (cross_fit(teacher.learner(), own).held_out for own in (sample, turned))
    assert (one[7] == other[7]).all()
    assert not (one == other).all()


def test_a_model_that_knows_better_narrows_the_model_assisted_estimate(teacher: Teacher) -> None:
    frame = Frame(np.ones(1200, np.int64), np.ones(1200))
    table = estimate(MADE.judged(150), frame, teacher.learner()).table
    row = table[(table["area"] == ALL) & (table["unit"] == "buildings") & (table["category"] == "damaged")]
    assisted, designed = (row[(row["method"] == MODEL_ASSISTED) == own].iloc[0] for own in (True, False))
    truth = np.isin(MADE.truth, (2, 3, 4)).sum()
    assert assisted["error"] < 0.8 * designed["error"]
    assert assisted["low"] <= truth <= assisted["high"]


def test_weights_are_those_of_scikit_learn_where_the_sums_say_nothing(teacher: Teacher) -> None:
    """Whose intercept has no prior: the judgements are frequent, all of them."""
    inputs, grades = teacher.inputs.at(np.arange(100)), MADE.truth[:100].copy()
    grades[:6] = CANNOT_TELL
    flat = Inputs(np.zeros((100, 4)), inputs.scores)
    curves = only_curves(Curves(np.zeros(6), np.zeros(6)))
    head = fit_features(curves, flat, grades, WEIGHTS, 0.1)
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(flat.scores, grades, WEIGHTS)
    np.testing.assert_allclose(head(flat), reference.predict_proba(flat.scores), atol=0.01)
    weights = head.weights - head.weights.mean(0)
    np.testing.assert_allclose(weights, reference.coef_ - reference.coef_.mean(0), atol=0.01)


def test_a_model_that_is_held_back_fully_is_the_recalibrated_one(teacher: Teacher) -> None:
    inputs, grades = teacher.inputs.at(np.arange(100)), MADE.truth[:100]
    curves = fit_curves(inputs, grades, WEIGHTS)
    found = fit_features(curves, inputs, grades, WEIGHTS, 1e-9)
    shares = [(WEIGHTS @ own(inputs)) / 100 for own in (curves, found)]
    np.testing.assert_allclose(found.weights, 0, atol=1e-6)
    np.testing.assert_allclose(shares[0], shares[1], atol=0.02)
    moved = found(teacher.inputs) / curves(teacher.inputs)
    np.testing.assert_allclose(softmax(np.log(moved), axis=1), softmax(found.intercept)[None].repeat(1200, 0), rtol=0.1)


def test_judgements_are_as_frequent_as_the_weighted_sample_has_them(teacher: Teacher) -> None:
    inputs, grades = teacher.inputs.at(np.arange(100)), MADE.truth[:100]
    head = fit_features(fit_curves(inputs, grades, WEIGHTS), inputs, grades, WEIGHTS, 0.03)
    shifted = head._replace(intercept=head.intercept + np.arange(6))
    for own in (head, shifted.with_shares_of(inputs, grades, WEIGHTS)):
        for place, judgement in enumerate(JUDGEMENTS):
            share = WEIGHTS @ (grades == judgement) / WEIGHTS.sum()
            assert WEIGHTS @ own(inputs)[:, place] / WEIGHTS.sum() == pytest.approx(share, abs=0.01)


def test_grades_are_of_buildings_whose_grade_can_be_told_and_rare_ones_count_more() -> None:
    bold = np.array(
        [[0.6, 0.2, 0.1, 0.05, 0.05, 0.0], [0.0, 0.24, 0.1, 0.01, 0.15, 0.5], [0, 0.9, 0.05, 0.03, 0.02, 0]]
    )
    honest = np.tile([0.5, 0.05, 0.1, 0.15, 0.2, 0], (3, 1))
    head, other = (cast(Head, lambda inputs, own=own: own) for own in (honest, bold))
    grades, confidence = EventModel(head, other, None, SHARES).grade_of(Inputs(np.zeros((3, 4)), np.zeros((3, 0))))
    assert grades.tolist() == [1, 4, 1]  # the second: 0.48 / 0.8 below 0.3 / 0.2
    assert confidence == pytest.approx([0.1, 0.4, 0.1])


def test_axes_are_the_principal_ones_of_standardized_channels() -> None:
    """By the singular values of the standardized features."""
    features = MADE.evidence.features
    assert features is not None
    onto = projection(features)
    plain = features.astype(np.float64)
    standard = (plain - plain.mean(0)) / plain.std(0)
    values = np.linalg.svd(standard, compute_uv=False)[:AXES]
    scores = onto(features)
    assert scores.shape == (1200, AXES)
    np.testing.assert_allclose(scores.T @ scores, np.diag(values**2 / np.mean(values**2)) * 1199, atol=2)


def test_a_channel_that_is_the_same_everywhere_is_left_out() -> None:
    features = np.zeros((40, 3))
    features[:, 1] = np.arange(40)
    scores = projection(features)(features)
    assert np.isfinite(scores).all()
    assert np.corrcoef(scores[:, 0], np.arange(40))[0, 1] ** 2 == pytest.approx(1)
    assert CHANNELS > AXES  # so that the events of these tests are looked at along fewer axes than they have channels


def test_buildings_that_are_picked_teach_and_do_not_change_how_frequent_a_grade_is() -> None:
    rare = event(sharp=0, telling=0.5, shares=(0, 0.88, 0.02, 0.02, 0.08), seed=3)
    places = 60 + np.flatnonzero(rare.truth[60:] == 4)[:40]
    judged = rare.judged(60)
    inverse = 1 / rare.draw.inclusion(60)[:60]
    alone, found = (
        Teacher(rare.evidence, extra).learn(np.arange(60), judged.grades, inverse / inverse.mean())
        for extra in (NO_EXTRA, Extra(places, rare.truth[places]))
    )
    rest = np.setdiff1d(np.arange(60, 1200), places)
    grades = [model.grade(rare.evidence)[0] for model in (alone, found)]
    hits = [(own[rest] == rare.truth[rest])[rare.truth[rest] == 4].mean() for own in grades]
    assert hits[1] > hits[0]
    expected = found(rare.evidence)[:60]
    weights = (rare.draw.sizes / np.bincount(rare.draw.strata[:60]))[rare.draw.strata[:60]]
    share = weights @ (rare.truth[:60] == 4) / weights.sum()
    assert weights @ expected[:, 4] / weights.sum() == pytest.approx(share, abs=0.01)
