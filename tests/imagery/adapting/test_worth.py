"""Adapting to made events where the answer is known."""

import numpy as np
import pytest

from imagery.adapting.learning import FEW
from imagery.adapting.worth import Adapted, adapt, grade_of, score
from tests.imagery.adapting.events import Event, event

BLIND = event(sharp=0, telling=0.5)  # the network's grades are a guess, its features know better


@pytest.fixture(scope="module")
def taught() -> Adapted:
    return adapt(BLIND.judged(120), BLIND.evidence)


def right(made: Event, found: Adapted, count: int) -> float:
    """The share of right grades among buildings that nobody judged."""
    return float((found.grades[count:] == made.truth[count:]).mean())


def test_features_that_tell_the_grades_regrade_the_buildings_that_nobody_judged(taught: Adapted) -> None:
    guess = float((grade_of(BLIND.evidence.probabilities)[0][120:] == BLIND.truth[120:]).mean())
    assert taught.model.onto is not None
    assert not taught.keeps
    assert guess < 0.35
    assert right(BLIND, taught, 120) > 0.7
    assert taught.said.startswith(
        "A model of this event gives the grades; cross-validated F1 of 4 grades on the mean: 0."
    )


def test_what_cross_validation_says_is_what_the_other_buildings_show(taught: Adapted) -> None:
    """Of one sample, and so only nearly."""
    everyone = score(BLIND.truth[120:], taught.grades[120:], taught.confidence[120:], np.ones(1080))
    assert taught.after.right == pytest.approx(everyone.right, abs=0.12)
    assert taught.after.macro_f1 == pytest.approx(everyone.macro_f1, abs=0.15)
    assert taught.stops[-1].score == taught.after


def test_the_model_is_as_often_right_as_it_is_sure(taught: Adapted) -> None:
    assert taught.confidence[120:].mean() == pytest.approx(right(BLIND, taught, 120), abs=0.06)
    sure = taught.confidence[120:] > np.median(taught.confidence[120:])
    hits = taught.grades[120:] == BLIND.truth[120:]
    assert hits[sure].mean() > hits[~sure].mean() + 0.05


def test_more_judgements_buy_more_accuracy(taught: Adapted) -> None:
    assert [stop.judged for stop in taught.stops] == [0, 10, 25, 50, 96]
    assert taught.stops[0].score == taught.before
    scores = [stop.score.right for stop in taught.stops]
    assert scores[0] < scores[2] < scores[-1]


def test_a_map_that_is_right_already_keeps_its_grades() -> None:
    made = event(sharp=9, telling=0)
    found = adapt(made.judged(40), made.evidence)
    assert found.keeps
    assert found.said.startswith("The map keeps its grades: what was learned is no better; cross-validated F1 of 3 ")
    assert found.before.right == pytest.approx(1)


def test_of_two_grades_alone_a_model_of_two_is_made() -> None:
    made = event(sharp=0, telling=1.2, shares=(0, 0.7, 0, 0, 0.3))
    found = adapt(made.judged(40), made.evidence)
    assert set(found.grades) == {1, 4}
    assert not found.keeps and "F1 of 2 grades" in found.said
    assert right(made, found, 40) > 0.9


@pytest.mark.parametrize(("shares", "judged"), [((0, 1, 0, 0, 0), "only no damage"), ((1, 0, 0, 0, 0), "no grade")])
def test_where_less_than_two_grades_are_judged_the_map_keeps_its_grades(shares: tuple[float, ...], judged: str) -> None:
    made = event(sharp=1, telling=1, shares=shares)
    found = adapt(made.judged(24), made.evidence)
    assert found.keeps
    assert found.said == (
        f"The map keeps its grades: {judged} was judged 5 times or more, which measures no model. Judge more."
    )


def test_few_judgements_recalibrate_the_sums_and_do_not_look_at_features() -> None:
    made = event(sharp=1.5, telling=2)
    found = adapt(made.judged(FEW - 1), made.evidence)
    assert found.model.onto is None
    noise = np.random.default_rng(1).normal(size=(1200, 9))
    other = adapt(made.judged(FEW - 1), made.with_features(noise).evidence)
    np.testing.assert_array_equal(found.confidence, other.confidence)
    assert found.keeps or "recalibrated, no more, as fewer than 25 are judged" in found.said


def test_a_recalibrated_map_says_so() -> None:
    """A network that calls everything destroyed, but ranks well: its sums need no features to be mended."""
    made = event(sharp=3.5, telling=0, shares=(0, 0.5, 0, 0, 0.5))
    tilted = made.evidence.probabilities * [1, 1e-3, 1e-3, 300]
    evidence = made.evidence._replace(probabilities=tilted / tilted.sum(1, keepdims=True))
    found = adapt(made.judged(FEW - 1), evidence)
    assert not found.keeps
    assert found.said.startswith("The grades' probabilities are recalibrated, no more, as fewer than 25 are judged; ")
    assert right(made, found, FEW - 1) > 0.9 > 0.7 > float((grade_of(evidence.probabilities)[0] == made.truth).mean())


def test_a_network_without_features_can_be_adapted() -> None:
    made = BLIND.with_features(None)
    found = adapt(made.judged(60), made.evidence)
    assert found.model.onto is None
    assert found.keeps or "as the map has no features of the network" in found.said


def test_scores_are_those_of_weighted_counts() -> None:
    judged = np.array([1] * 6 + [4] * 6 + [0, 255, 2])
    grades = np.array([1] * 5 + [4] + [4] * 3 + [1] * 3 + [4, 4, 1])
    weights = np.array([1.0] * 6 + [2.0] * 6 + [9.0] * 3)
    found = score(judged, grades, np.full(15, 0.7), weights)
    # Of no damage 5 found, 1 missed, 6 and 9 too many; of destroyed 6 found, 6 missed, 1 too many.
    assert found.f1 == pytest.approx({1: 10 / (10 + 1 + 15), 4: 12 / (12 + 6 + 1)})
    assert found.macro_f1 == pytest.approx((10 / 26 + 12 / 19) / 2)
    assert [found.right, found.sure] == pytest.approx([11 / 27, 0.7])
