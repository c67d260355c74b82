from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.sampling.draw import draw_buildings
from imagery.sampling.places import spread
from imagery.sampling.strata import share_out, stratify


def town(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random(count), generator.random((count, 2)) * 1000


def test_strata_hold_a_tenth_two_three_and_four_tenths_by_falling_score() -> None:
    scores, _ = town(1000)
    strata = stratify(scores, np.random.default_rng(0))
    assert np.bincount(strata).tolist() == [100, 200, 300, 400]
    ends = [(scores[strata == stratum].min(), scores[strata == stratum].max()) for stratum in range(4)]
    assert all(lower > upper for (lower, _), (_, upper) in pairwise(ends))


def test_strata_are_filled_where_almost_everything_is_surely_undamaged() -> None:
    scores = np.zeros(5000)
    scores[:7] = 0.9
    strata = stratify(scores, np.random.default_rng(0))
    assert np.bincount(strata).tolist() == [500, 1000, 1500, 2000]
    assert (strata[:7] == 0).all()


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (19, [19]), (20, [2, 4, 6, 8]), (23, [2, 5, 7, 9])])
def test_a_few_buildings_have_strata_of_two_or_one_for_all(count: int, sizes: list[int]) -> None:
    assert np.bincount(stratify(town(count)[0], np.random.default_rng(0))).tolist() == sizes


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_every_prefix_is_half_in_proportion_and_half_equal(sizes: list[int]) -> None:
    in_turn, holds = share_out(np.array(sizes)), np.array(sizes)
    parts = 0.5 * holds / holds.sum() + 0.5 / len(holds)
    taken = np.zeros(len(sizes))
    for place, stratum in enumerate(in_turn):
        # The rule itself, one building after the other: the stratum furthest behind its part is next.
        behind = np.where(taken < holds, (taken + 0.5) / parts, np.inf)
        assert behind[stratum] == pytest.approx(behind.min(), rel=1e-12), place
        taken[stratum] += 1
    assert (taken == holds).all()


def test_sample_sizes_of_strata_are_near_their_parts() -> None:
    draw = draw_buildings(*town(20000), seed=1, map_hash="m")
    for judged in (50, 100, 400):
        assert (abs(draw.taken(judged) - judged * np.array([0.175, 0.225, 0.275, 0.325])) <= 1).all()
    assert draw.taken(20000).tolist() == draw.sizes.tolist() == [2000, 4000, 6000, 8000]


def test_an_order_holds_each_building_once_and_is_the_same_for_the_same_seed() -> None:
    scores, places = town(777)
    draws = [draw_buildings(scores, places, seed, "m") for seed in (3, 3, 4)]
    assert sorted(draws[0].order.tolist()) == list(range(777))
    assert draws[0].order.tolist() == draws[1].order.tolist() != draws[2].order.tolist()
    assert draws[0].strata.tolist() == stratify(scores, np.random.default_rng(3))[draws[0].order].tolist()


def test_each_building_comes_at_each_rank_as_often_as_any_other() -> None:
    places, generator = town(5)[1] ** 3, np.random.default_rng(0)
    ranks = np.zeros((5, 5))
    for _ in range(1000):
        ranks[spread(places, generator), np.arange(5)] += 1
    assert abs(ranks - 200).max() < 4 * 12.6  # standard deviations of a count


def test_inclusion_probabilities_are_how_often_buildings_are_drawn() -> None:
    scores, places = town(30)
    drawn, stated = np.zeros(30), np.zeros(30)
    for seed in range(400):
        draw = draw_buildings(scores, places, seed, "m")
        drawn[draw.order[:10]] += 1
        stated[draw.order] = draw.inclusion(10)
    assert stated.sum() == pytest.approx(10)
    assert abs(drawn / 400 - stated).max() < 4 * 0.025  # standard deviations of a share of a half


def test_a_prefix_is_spread_over_the_scene_better_than_by_chance() -> None:
    _, places = town(4096)
    quarters = (places // 250).astype(int) @ [4, 1]

    def unevenness(order: np.ndarray) -> float:
        return float(np.bincount(quarters[order[:64]], minlength=16).var())

    generator = np.random.default_rng(0)
    ours = np.mean([unevenness(spread(places, generator)) for _ in range(50)])
    chance = np.mean([unevenness(generator.permutation(4096)) for _ in range(50)])
    assert ours < chance / 3


@pytest.mark.parametrize("places", [np.zeros((7, 2)), np.full((1, 2), 5.0), np.array([[0.0, 1e-300], [0.0, 0.0]])])
def test_buildings_of_one_place_are_drawn_all_the_same(places: np.ndarray) -> None:
    assert sorted(spread(places, np.random.default_rng(0)).tolist()) == list(range(len(places)))


def test_buildings_that_no_image_shows_are_not_drawn() -> None:
    scores, places = town(50)
    scores[[3, 17]] = np.nan
    draw = draw_buildings(scores, places, 0, "m")
    assert set(range(50)) - set(draw.order.tolist()) == {3, 17}


def test_a_map_without_buildings_has_an_empty_draw() -> None:
    draw = draw_buildings(np.zeros(0), np.zeros((0, 2)), 0, "m")
    assert (len(draw), draw.fewest, draw.sizes.tolist()) == (0, 0, [])


@pytest.mark.parametrize("count", [1, 2, 20, 21, 500, 20000])
def test_the_fewest_for_an_interval_are_two_of_each_stratum(count: int) -> None:
    draw = draw_buildings(*town(count), seed=0, map_hash="m")

    def enough(judged: int) -> bool:
        return bool((draw.taken(judged) >= np.minimum(draw.sizes, 2)).all())

    assert draw.fewest == next(judged for judged in range(count + 1) if enough(judged))
