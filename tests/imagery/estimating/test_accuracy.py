import numpy as np
import pandas as pd
import pytest

from base.grades import KEYS
from imagery.estimating.accuracy import judge_map
from imagery.estimating.frame import Frame
from imagery.sampling.draw import Draw
from imagery.sampling.judged import CANNOT_TELL, Prefix
from tests.imagery.estimating.judging import town

# Olofsson et al. 2014, table 8 (https://doi.org/10.1016/j.rse.2014.02.015; https://github.com/hagc/mapaccuracy), with a
# pixel for each hundred: as large a population has the same shares, and intervals nearly so.
MATRIX = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
AREAS = np.array([2000, 1500, 32000, 64500])


def published() -> tuple[Prefix, Frame]:
    judged = MATRIX.sum(1)
    strata = np.concatenate([np.repeat(np.arange(4), judged), np.repeat(np.arange(4), AREAS - judged)])
    draw = Draw(np.arange(len(strata)), strata, 0, "m")
    grades = np.concatenate([np.repeat(np.arange(1, 5), row) for row in MATRIX])
    return Prefix(draw, grades, 0), Frame(strata + 1, np.ones(len(strata)))


def measured(table: pd.DataFrame, measure: str, category: str) -> dict[str, float]:
    (only,) = table[(table["measure"] == measure) & (table["category"] == category)].index
    return {name: float(str(table.loc[only, name])) for name in ("share", "low", "high", "error", "judged")}


def test_precision_recall_and_accuracy_are_those_of_the_published_matrix() -> None:
    """Against the papers' formulas: user's, producer's and overall accuracy, and the first one's standard error."""
    table = judge_map(*published()).table
    shares = AREAS[:, None] / AREAS.sum() * MATRIX / MATRIX.sum(1, keepdims=True)
    for place, key in enumerate(KEYS):
        users = MATRIX[place, place] / MATRIX[place].sum()
        precision, recall = measured(table, "precision", key), measured(table, "recall", key)
        assert precision["share"] == pytest.approx(users, rel=1e-12)
        known = np.sqrt(users * (1 - users) / (MATRIX[place].sum() - 1) * (1 - MATRIX[place].sum() / AREAS[place]))
        assert precision["error"] == pytest.approx(known, rel=1e-9)
        assert recall["share"] == pytest.approx(shares[place, place] / shares[:, place].sum(), rel=1e-12)
        assert recall["low"] < recall["share"] < recall["high"]
    assert measured(table, "accuracy", "all")["share"] == pytest.approx(np.trace(shares), rel=1e-12)


def test_error_of_recall_is_that_of_the_published_formula() -> None:
    """Equation 7 of 2014, producer's accuracy, which has no correction for a finite population."""
    table = judge_map(*published()).table
    judged = MATRIX.sum(1)
    for place, key in enumerate(KEYS):
        own = MATRIX[:, place] / judged
        total = (AREAS * own).sum()
        recall = AREAS[place] * own[place] / total
        users = own[place]
        rest = np.arange(4) != place
        variance = AREAS[place] ** 2 * (1 - recall) ** 2 * users * (1 - users) / (judged[place] - 1)
        variance += recall**2 * (AREAS**2 * own * (1 - own) / (judged - 1))[rest].sum()
        # Ours knows that up to 5 % of a class are judged.
        assert measured(table, "recall", key)["error"] == pytest.approx(np.sqrt(variance) / total, rel=0.03)


# As printed there, p. 54, in hundredths, +- 1.96 standard errors. For recall of the second and the fourth class it has
# 23 and 1, where its own equation 7 gives 25 and 2.
USERS = ((88, 7), (73, 10), (93, 4), (96, 2))
PRODUCERS = ((75, 21), (85, 25), (93, 3), (96, 2))
OVERALL = (95, 2)


def test_accuracies_are_those_printed_in_the_paper() -> None:
    table = judge_map(*published()).table
    printed = {("accuracy", "all"): OVERALL}
    for place, key in enumerate(KEYS):
        printed |= {("precision", key): USERS[place], ("recall", key): PRODUCERS[place]}
    for (measure, category), (share, half) in printed.items():
        found = measured(table, measure, category)
        assert (round(100 * found["share"]), round(196 * found["error"])) == (share, half), (measure, category)


def test_the_confusion_stands_for_all_buildings() -> None:
    made = town()
    confusion = judge_map(made.judged(200), made.frame).confusion
    assert confusion.to_numpy().sum() == pytest.approx(600)
    assert list(confusion.columns) == ["not_a_building", *KEYS, "not_assessable"]
    weights = 1 / made.draw.inclusion(200)[:200]
    cell = (made.frame.grades[:200] == 4) & (made.truth[:200] == 1)
    assert confusion.loc["destroyed", "no_damage"] == pytest.approx(weights[cell].sum())


def test_judging_all_gives_the_accuracies_without_width() -> None:
    made = town(80)
    table = judge_map(made.judged(80), made.frame).table
    told = made.truth != CANNOT_TELL
    mapped, truth = np.isin(made.frame.grades, (2, 3, 4)), np.isin(made.truth, (2, 3, 4))
    exact = {
        "precision": (mapped & truth).sum() / (mapped & told).sum(),
        "recall": (mapped & truth).sum() / truth.sum(),
    }
    for measure, share in exact.items():
        found = measured(table, measure, "damaged")
        for limit in ("low", "share", "high"):
            assert found[limit] == pytest.approx(share, rel=1e-9)


def test_intervals_of_precision_and_recall_hold_the_truth_as_often_as_they_say() -> None:
    made = town(2000)
    told = made.truth != CANNOT_TELL
    mapped, truth = np.isin(made.frame.grades, (2, 3, 4)), np.isin(made.truth, (2, 3, 4))
    exact = {
        "precision": (mapped & truth).sum() / (mapped & told).sum(),
        "recall": (mapped & truth).sum() / truth.sum(),
    }
    generator = np.random.default_rng(0)
    held = dict.fromkeys(exact, 0)
    for _ in range(50):
        place = np.concatenate([generator.permutation(np.flatnonzero(made.draw.strata == h)) for h in range(4)])
        place = place[np.argsort(np.argsort(made.draw.strata, kind="stable"))]  # the strata in the order's turn
        table = judge_map(
            Prefix(made.draw, made.truth[place][:120], 0), Frame(made.frame.grades[place], made.frame.area_m2)
        ).table
        for measure, share in exact.items():
            found = measured(table, measure, "damaged")
            held[measure] += bool(found["low"] <= share <= found["high"])
    assert min(held.values()) >= 50 * 0.95 - 3 * 1.54  # three standard deviations below
