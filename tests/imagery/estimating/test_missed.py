import numpy as np
import pytest
from scipy.stats import poisson

from imagery.estimating.missed import Count, estimate_missed, garwood, missed, with_missed
from imagery.sampling.squares import Counted, first_counts

SQUARES = 400


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_limits_of_a_count_leave_a_fortieth_of_the_probability_on_either_side(count: int) -> None:
    low, high = garwood(count)
    assert poisson.cdf(count, high) == pytest.approx(0.025)
    assert poisson.sf(count - 1, low) == pytest.approx(0.025) if count else low == 0


def test_squares_without_a_missed_building_still_leave_room_for_some() -> None:
    found = missed(SQUARES, np.zeros(50, np.int64))
    assert (found.total, found.low, found.found) == (0, 0, 0)
    assert found.high == pytest.approx(400 / 50 * 3.6889 * np.sqrt(1 - 50 / 400), rel=1e-4)


def test_a_total_is_the_mean_times_all_squares_and_clumps_widen_it() -> None:
    even, clumped = np.tile([0, 1], 30), np.array([30, *[0] * 59])
    alike, apart = missed(SQUARES, even), missed(SQUARES, clumped)
    assert alike.total == apart.total == 400 * 30 / 60
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    assert apart.low >= 30


def test_all_squares_or_one_are_no_sample() -> None:
    assert missed(SQUARES, np.ones(400, np.int64)) == Count(400, 400, 400, 400)
    alone = missed(SQUARES, np.array([2]))
    assert np.isnan(alone.total) and (alone.low, alone.high) == (2, np.inf)


def test_intervals_hold_the_truth_where_buildings_are_missed_in_clumps() -> None:
    generator = np.random.default_rng(0)
    town = generator.poisson(generator.gamma(0.3, 1 / 0.3, 400))
    held = []
    for _ in range(300):
        found = missed(SQUARES, generator.permutation(town)[:60])
        held.append(found.low <= town.sum() <= found.high)
    assert np.mean(held) > 0.95 - 3 * 0.0126


def test_what_the_map_holds_and_what_it_missed_add_up() -> None:
    both = with_missed(Count(100, 70, 140, 9), Count(20, 5, 50, 2))
    assert both == Count(120, 120 - np.hypot(30, 15), 120 + np.hypot(40, 30), 11)


def test_squares_that_show_nothing_add_nothing_and_few_squares_no_number() -> None:
    counts = first_counts([Counted(0, 3, 1), Counted(1, None, 0), Counted(2, 1, 1), Counted(4, 9, 9)])
    found = estimate_missed(counts, SQUARES)
    assert (found.buildings.total, found.damaged.total) == (SQUARES * 4 / 3, SQUARES * 2 / 3)
    assert (counts.unseen, counts.beyond) == (1, 1)
    assert str(found).startswith("missed by the map: 533 (")
    alone = estimate_missed(first_counts([Counted(0, 3, 1)]), SQUARES)
    assert str(alone) == "missed by the map: too few squares for an estimate; 1 of 400 squares looked at"
