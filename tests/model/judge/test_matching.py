"""Buildings found and graded right: against sets of pixels compared each with each."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.grades import KEYS
from model.buildings import Labels, Mask
from model.judge.matching import Counts, building_scores, labelled_buildings, match_buildings
from tests.model.test_buildings import flood

Pixels = frozenset[tuple[int, int]]


def pixel_sets(labels: Labels) -> list[Pixels]:
    return [
        frozenset(zip(*map(np.ndarray.tolist, np.nonzero(labels == n)), strict=True))
        for n in range(1, labels.max() + 1)
    ]


def match_by_sets(labels: Labels, grades: Mask, target: Mask, unclassified_as: int | None) -> Counts:
    """Every predicted building against every labelled one."""
    labelled: list[tuple[Pixels, int]] = []
    for value in (1, 2, 3, 4, 255):
        known = unclassified_as if value == 255 else value
        if known:
            labelled += [(pixels, known) for pixels in pixel_sets(flood((target == value).astype(np.uint8)))]
    hidden = frozenset(zip(*map(np.ndarray.tolist, np.nonzero(target == 255)), strict=True))
    predicted = [
        (pixels, int(grades[number]))
        for number, pixels in enumerate(pixel_sets(labels), start=1)
        if pixels and not (unclassified_as is None and 2 * len(pixels & hidden) > len(pixels))
    ]
    counts = np.zeros((5, 5), np.int64)
    for (pixels, known), (others, graded) in itertools.product(labelled, predicted):
        if len(pixels & others) / len(pixels | others) > 0.5:
            counts[known, graded] += 1
    for known in range(1, 5):
        counts[known, 0] = sum(1 for _, other in labelled if other == known) - counts[known, 1:].sum()
        counts[0, known] = sum(1 for _, other in predicted if other == known) - counts[1:, known].sum()
    return counts


def random_scene(seed: int) -> tuple[Labels, Mask, Mask]:
    """Predicted buildings, their grades, and a target of rectangles that are like them, or not."""
    rng = np.random.default_rng(seed)
    target, found = np.zeros((2, 24, 28), np.uint8)
    for top, left in itertools.product(range(0, 24, 6), range(0, 28, 7)):
        height, width = rng.integers(1, 7, 2)
        target[top : top + height, left : left + width] = rng.choice([0, 1, 2, 3, 4, 255])
        shift = rng.integers(0, 3, 2)
        found[top + shift[0] : top + height, left + shift[1] : left + width] = rng.random() < 0.8
    labels = flood(found)
    grades = np.append(0, rng.integers(1, 5, labels.max())).astype(np.uint8)
    return labels, grades, target


@pytest.mark.parametrize("unclassified_as", [1, 0, 4, None])
@given(seed=st.integers(0, 2**20))
def test_counts_equal_those_of_every_building_against_every_other(unclassified_as: int | None, seed: int) -> None:
    labels, grades, target = random_scene(seed)
    found = match_buildings(labels, grades, target, unclassified_as)
    np.testing.assert_array_equal(found, match_by_sets(labels, grades, target, unclassified_as))


def test_random_scenes_have_hits_misses_and_inventions() -> None:
    """Else the comparison above would say nothing."""
    counts = sum(match_buildings(*random_scene(seed), 1) for seed in range(20))
    assert np.asarray(counts)[1:, 1:].min() > 0 and np.asarray(counts)[0, 1:].min() > 0
    assert np.asarray(counts)[1:, 0].min() > 0


def test_half_of_the_union_is_not_enough_and_one_pixel_more_is() -> None:
    target = np.full((1, 4), 2, np.uint8)
    for width, expected in ((2, [(0, 2), (2, 0)]), (3, [(2, 2)])):
        labels = np.array([[1] * width + [0] * (4 - width)], np.int32)
        counts = match_buildings(labels, np.array([0, 2], np.uint8), target, 1)
        assert list(zip(*map(np.ndarray.tolist, np.nonzero(counts)), strict=True)) == expected


def test_touching_labelled_buildings_of_different_grades_are_two() -> None:
    target = np.array([[1, 1, 3, 3, 0, 255]], np.uint8)
    labels, classes = labelled_buildings(target)
    assert labels.tolist() == [[1, 1, 2, 2, 0, 3]]
    assert classes.tolist() == [0, 1, 3, 255]


def test_scores_from_counts_by_hand() -> None:
    counts = np.zeros((5, 5), np.int64)
    counts[1, 1], counts[1, 2], counts[1, 0], counts[0, 1], counts[4, 4] = 6, 2, 4, 3, 5
    scores = building_scores(counts)
    assert scores["precision"]["localization"] == 13 / 16
    assert scores["recall"]["localization"] == 13 / 17
    assert scores["f1"]["localization"] == pytest.approx(2 / (16 / 13 + 17 / 13))
    assert [scores["precision"][grade] for grade in KEYS] == [6 / 9, 0, 0, 1]
    assert [scores["recall"][grade] for grade in KEYS] == [6 / 12, 0, 0, 1]
    assert [scores["f1"][grade] for grade in KEYS] == [pytest.approx(2 / (1.5 + 2)), 0, 0, 1]


def test_no_building_at_all_scores_zero() -> None:
    nothing = np.zeros((4, 4), np.uint8)
    counts = match_buildings(nothing.astype(np.int32), np.zeros(1, np.uint8), nothing, 1)
    assert counts.sum() == 0
    assert {value for part in building_scores(counts).values() for value in part.values()} == {0.0}
