import dataclasses
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pytest

from base.grades import KEYS
from imagery.estimating.cross_fitting import FOLDS, cross_fit, recalibrating
from imagery.estimating.interval import Sums, ratio
from imagery.estimating.totals import CATEGORIES, DAMAGED, DESIGN_BASED, MODEL_ASSISTED, Estimates, estimate
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS
from tests.imagery.estimating.judging import Town, town

TOWN = town()
NUMBERS = ["share", "share_low", "share_high", "total", "low", "high", "error", "found", "judged"]


def estimated(made: Town, count: int) -> Estimates:
    return estimate(made.judged(count), made.frame, recalibrating(made.probabilities))


@pytest.fixture(scope="module")
def at_150() -> Estimates:
    return estimated(TOWN, 150)


def row(found: Estimates, area: str, category: str, unit: str, method: str) -> dict[str, float]:
    table = found.table
    (only,) = table[
        (table["area"] == area)
        & (table["category"] == category)
        & (table["unit"] == unit)
        & (table["method"] == method)
    ].index
    return {str(name): float(value) for name, value in table.loc[only, NUMBERS].items()}


def test_all_samples_of_a_small_town_on_the_mean_give_its_truth_and_their_own_variance() -> None:
    """Brute force: every stratified sample of two of four and three of five buildings."""
    truth = (np.array([1, 0, 1, 1]), np.array([0, 0, 1, 0, 1]))
    sizes, judged = np.array([4, 5]), np.array([2.0, 3.0])
    samples = list(product(combinations(range(4), 2), combinations(range(5), 3)))
    shares, errors = [], []
    for sample in samples:
        hits = np.array([float(own[list(chosen)].sum()) for own, chosen in zip(truth, sample, strict=True)])
        found = ratio(sizes, Sums(judged, judged, judged, hits, hits), np.array(9.0))
        shares.append(float(found.share))
        errors.append(float(found.error))
    assert len(samples) == 60
    assert np.mean(shares) == pytest.approx(5 / 9, rel=1e-12)
    assert np.mean(np.square(errors)) == pytest.approx(np.var(shares), rel=1e-12)


@pytest.mark.parametrize("unit", ["buildings", "m2"])
@pytest.mark.parametrize("area", ["total", "west"])
def test_design_based_totals_are_weighted_sums_over_the_judged(at_150: Estimates, area: str, unit: str) -> None:
    inside = TOWN.frame.areas["west"] if area == "west" else np.ones(600, bool)
    sizes = TOWN.frame.area_m2 if unit == "m2" else np.ones(600)
    for category, grades in CATEGORIES.items():
        top = bottom = 0.0
        for place in range(150):
            stratum = TOWN.draw.strata == TOWN.draw.strata[place]
            weight = stratum.sum() / stratum[:150].sum() * inside[place] * sizes[place]
            bottom += weight
            top += weight * (TOWN.truth[place] in grades)
        found = row(at_150, area, category, unit, DESIGN_BASED)
        assert found["share"] == pytest.approx(top / bottom, rel=1e-12)
        assert found["total"] == pytest.approx(top / bottom * sizes[inside].sum(), rel=1e-12)
        assert found["found"] == np.isin(TOWN.truth[:150][inside[:150]], grades).sum()
        assert found["judged"] == inside[:150].sum()
        assert 0 <= found["low"] <= found["total"] <= found["high"] <= sizes[inside].sum()


@pytest.mark.parametrize("method", [DESIGN_BASED, MODEL_ASSISTED])
def test_all_judgements_make_up_the_whole_and_grades_the_damaged(at_150: Estimates, method: str) -> None:
    for unit, whole in (("buildings", 600.0), ("m2", TOWN.frame.area_m2.sum())):
        total = {name: row(at_150, "total", name, unit, method)["total"] for name in CATEGORIES}
        assert total["damaged"] == pytest.approx(sum(total[key] for key in KEYS[1:]), rel=1e-9)
        assert sum(total.values()) - total["damaged"] == pytest.approx(
            whole, rel=0.02 if method == MODEL_ASSISTED else 1e-9
        )


def test_model_assisted_totals_correct_what_a_model_predicts_of_all() -> None:
    made, count = TOWN, 100
    constant = np.array([0.1, 0.5, 0.1, 0.1, 0.1, 0.1])

    def learn(
        places: npt.NDArray[np.int64], grades: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        return np.asarray(np.outer(made.frame.area_m2 / 1000, constant) + places[0] / 1000, np.float64)

    found = estimate(made.judged(count), made.frame, learn)
    predictions = cross_fit(learn, made.judged(count))
    for unit, sizes in (("buildings", np.ones(600)), ("m2", made.frame.area_m2)):
        predicted = (predictions.everywhere[:, 2:5].sum(1) * sizes).sum()
        for place in range(count):
            stratum = made.draw.strata == made.draw.strata[place]
            error = (made.truth[place] in DAMAGED) - predictions.held_out[place, 2:5].sum()
            predicted += stratum.sum() / stratum[:count].sum() * sizes[place] * error
        assert row(found, "total", "damaged", unit, MODEL_ASSISTED)["total"] == pytest.approx(predicted, rel=1e-9)


def test_no_judgement_is_held_against_a_model_that_saw_it() -> None:
    calls: list[set[int]] = []

    def learn(
        places: npt.NDArray[np.int64], grades: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        calls.append(set(places.tolist()))
        assert grades.tolist() == TOWN.truth[places].tolist()
        assert weights.mean() == pytest.approx(1)
        return np.full((600, len(JUDGEMENTS)), float(len(calls)))

    predictions = cross_fit(learn, TOWN.judged(103))
    assert len(calls) == FOLDS
    for place in range(103):
        unseen = [number for number, seen in enumerate(calls, 1) if place not in seen]
        assert predictions.held_out[place].tolist() == unseen * len(JUDGEMENTS)
    shares = [1 - len(seen) / 103 for seen in calls]
    assert predictions.everywhere[0, 0] == pytest.approx(np.dot(shares, [1, 2, 3, 4, 5]))


def test_judging_all_gives_the_truth_without_width() -> None:
    made = town(60)
    found = estimated(made, 60)
    for name, grades in CATEGORIES.items():
        for method in (DESIGN_BASED, MODEL_ASSISTED):
            for unit, sizes in (("buildings", np.ones(60)), ("m2", made.frame.area_m2)):
                truth = sizes[np.isin(made.truth, grades)].sum()
                numbers = row(found, "total", name, unit, method)
                for limit in ("low", "total", "high"):
                    assert numbers[limit] == pytest.approx(truth, rel=1e-9, abs=1e-9)
    assert not any("fewer than" in warning for warning in found.warnings)


def test_damaged_of_the_assessable_leaves_out_what_cannot_be_told(at_150: Estimates) -> None:
    weights = 1 / TOWN.draw.inclusion(150)[:150]
    told = np.isin(TOWN.truth[:150], (1, 2, 3, 4))
    hit = np.isin(TOWN.truth[:150], DAMAGED)
    found = row(at_150, "total", "damaged_of_assessable", "buildings", DESIGN_BASED)
    assert found["share"] == pytest.approx(weights[hit].sum() / weights[told].sum(), rel=1e-12)
    assert found["judged"] == told.sum()
    assert found["share"] > row(at_150, "total", "damaged", "buildings", DESIGN_BASED)["share"]
    assert np.isnan(found["total"])


def test_an_area_in_which_nothing_lies_has_no_share_and_no_total(at_150: Estimates) -> None:
    found = row(at_150, "none", "damaged", "buildings", DESIGN_BASED)
    assert np.isnan(found["share"])
    assert (found["low"], found["high"]) == (0, 0)


def test_the_headline_is_settled_by_the_number_judged() -> None:
    for count, headline in ((49, DESIGN_BASED), (50, MODEL_ASSISTED)):
        found = estimated(TOWN, count)
        table = found.table[found.table["headline"]]
        assert found.headline == headline
        assert set(table[table["category"] != "damaged_of_assessable"]["method"]) == {headline}
        assert not table.duplicated(["area", "category", "unit"]).any()
        assert len(table) == 3 * 2 * 8


def test_few_damaged_few_judged_and_a_gap_are_warned_of() -> None:
    fewest = TOWN.draw.fewest
    found = estimated(TOWN, fewest - 1)
    assert found.warnings[0] == f"{fewest - 1} judged without a gap: no interval before {fewest} are."
    assert "damaged among the judged, fewer than 10" in found.warnings[1]
    assert set(found.table["method"]) == {DESIGN_BASED}
    gap = dataclasses.replace(TOWN.judged(150), beyond=3)
    assert estimate(gap, TOWN.frame, recalibrating(TOWN.probabilities)).warnings == (
        "3 judgements after a gap in the order are not counted: judge what lies before.",
    )


def test_nothing_judged_is_nothing_known() -> None:
    found = estimated(TOWN, 0)
    numbers = row(found, "total", "destroyed", "buildings", DESIGN_BASED)
    assert np.isnan(numbers["total"])
    assert (numbers["low"], numbers["high"]) == (0, 600)


def test_not_assessable_is_a_number_of_its_own(at_150: Estimates) -> None:
    found = row(at_150, "total", "not_assessable", "buildings", DESIGN_BASED)
    assert found["found"] == (TOWN.truth[:150] == CANNOT_TELL).sum() > 0
    assert found["low"] < 0.05 * 600 < found["high"]
