"""One building, one grade: against plain loops over pixels, and outlines against the pixels they enclose."""

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from model.buildings import Labels, Mask, buildings_of, grade, separate

Probabilities = npt.NDArray[np.float32]


def random_map(seed: int, shape: tuple[int, int] = (14, 17), share: float = 0.6) -> Mask:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def random_probabilities(seed: int, shape: tuple[int, int]) -> Probabilities:
    raw: npt.NDArray[np.float64] = np.random.default_rng(seed).random((4, *shape)) ** 3 + 1e-6
    return np.asarray(raw / raw.sum(0), dtype=np.float32)


def flood(mask: Mask) -> Labels:
    """Numbers the parts of the map by walking from pixel to pixel over their sides."""
    labels = np.zeros(mask.shape, np.int32)
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number, edge = labels.max() + 1, [start]
        while edge:
            row, column = edge.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and mask[row, column] and not labels[row, column]:
                labels[row, column] = number
                edge += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return labels


@given(st.integers(0, 2**20), st.sampled_from([0.1, 0.5, 0.6, 0.8]))
def test_buildings_are_the_parts_that_hang_together_by_sides(seed: int, share: float) -> None:
    mask = random_map(seed, share=share)
    expected = flood(mask)
    found = separate(mask)
    assert found.dtype == np.int32
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), expected.ravel(), strict=True)}
    assert len(pairs) == found.max() + 1 == expected.max() + 1  # one name for another
    np.testing.assert_array_equal(found == 0, mask == 0)


def test_buildings_that_meet_at_a_corner_are_two() -> None:
    np.testing.assert_array_equal(separate(np.array([[1, 0], [0, 1]], np.uint8)), [[1, 0], [0, 2]])


@pytest.mark.parametrize("seed", range(4))
def test_the_grade_is_that_of_the_largest_sum_of_probabilities(seed: int) -> None:
    labels = separate(random_map(seed))
    probabilities = random_probabilities(seed, labels.shape)
    grading = grade(labels, probabilities)
    assert labels.max() > 3
    assert (grading.grades[0], grading.areas[0], grading.confidences[0]) == (0, 0, 0)
    for number in range(1, labels.max() + 1):
        pixels = [probabilities[:, row, column] for row, column in zip(*np.nonzero(labels == number), strict=True)]
        sums = [sum(float(pixel[c]) for pixel in pixels) for c in range(4)]
        own = [int(np.argmax(pixel)) for pixel in pixels]
        assert grading.grades[number] == 1 + np.argmax(sums)
        assert grading.areas[number] == len(pixels)
        assert grading.confidences[number] == pytest.approx(max(sums) / len(pixels), rel=1e-12)
        assert grading.shares[number].tolist() == [own.count(c) / len(pixels) for c in range(4)]


def test_a_sure_minority_of_pixels_can_win_the_vote() -> None:
    """The vote is of probabilities: two pixels barely minor against one that is certainly destroyed."""
    probabilities = np.array([[0.3, 0.3, 0.0], [0.4, 0.4, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 1.0]], np.float32)
    grading = grade(np.ones((1, 3), np.int32), probabilities[:, None])
    np.testing.assert_array_equal(grading.damage, [[4, 4, 4]])
    assert grading.shares[1].tolist() == [0, 2 / 3, 0, 1 / 3]
    assert grading.confidences[1] == pytest.approx(1.6 / 3)


def test_of_equal_sums_the_lower_grade_is_taken() -> None:
    probabilities = np.array([0.1, 0.4, 0.1, 0.4], np.float32)[:, None, None].repeat(2, axis=2)
    assert grade(np.ones((1, 2), np.int32), probabilities).grades.tolist() == [0, 2]


@given(st.integers(0, 2**20))
def test_each_building_has_one_grade_and_the_localization_stays(seed: int) -> None:
    localization = random_map(seed)
    grading = grade(separate(localization), random_probabilities(seed + 1, localization.shape))
    damage = grading.damage
    assert damage.dtype == np.uint8
    np.testing.assert_array_equal(damage > 0, localization > 0)
    for number in range(1, grading.labels.max() + 1):
        assert len(np.unique(damage[grading.labels == number])) == 1


@given(st.integers(0, 2**20))
def test_voting_twice_changes_nothing(seed: int) -> None:
    localization = random_map(seed)
    first = grade(separate(localization), random_probabilities(seed, localization.shape))
    certain = (first.damage == np.arange(1, 5)[:, None, None]).astype(np.float32)
    np.testing.assert_array_equal(grade(first.labels, certain).damage, first.damage)


@given(st.integers(0, 2**20), st.sampled_from([0.3, 0.6, 0.9]))
def test_an_outline_encloses_the_pixels_of_its_building_and_no_other(seed: int, share: float) -> None:
    labels = separate(random_map(seed, (9, 11), share))
    buildings = buildings_of(grade(labels, random_probabilities(seed, labels.shape)))
    assert [building.number for building in buildings] == list(range(1, labels.max() + 1))
    rows, columns = np.indices(labels.shape) + 0.5
    for building in buildings:
        assert isinstance(building.polygon, shapely.Polygon)
        assert building.polygon.is_valid
        np.testing.assert_array_equal(
            shapely.contains_xy(building.polygon, columns, rows), labels == building.number, strict=True
        )
        assert building.polygon.area == building.area == (labels == building.number).sum()


def test_a_courtyard_is_a_hole_and_straight_sides_have_no_vertices_between() -> None:
    labels = np.zeros((8, 9), np.int32)
    labels[1:7, 2:8], labels[3:5, 4:6] = 1, 0
    probabilities = np.zeros((4, 8, 9), np.float32)
    probabilities[2] = 0.75
    (building,) = buildings_of(grade(labels, probabilities))
    assert shapely.equals_exact(
        building.polygon.normalize(),
        shapely.Polygon([(2, 1), (8, 1), (8, 7), (2, 7)], [[(4, 3), (6, 3), (6, 5), (4, 5)]]).normalize(),
    )
    found = (building.number, building.grade, building.confidence, building.area, building.shares)
    assert found == (1, 3, 0.75, 32, (0, 0, 1, 0))


def test_known_footprints_keep_their_numbers_and_may_lie_outside_or_in_parts() -> None:
    footprints = np.array([[7, 0, 7], [3, 3, 0]], np.int32)
    grading = grade(footprints, random_probabilities(3, (2, 3)))
    buildings = buildings_of(grading)
    assert [(building.number, building.area) for building in buildings] == [(3, 2), (7, 2)]
    assert [building.polygon.geom_type for building in buildings] == ["Polygon", "MultiPolygon"]
    assert [number for number, found in enumerate(grading.grades) if found] == [3, 7]


def test_a_map_without_a_building_has_none() -> None:
    grading = grade(separate(np.zeros((4, 5), np.uint8)), random_probabilities(0, (4, 5)))
    assert buildings_of(grading) == []
    np.testing.assert_array_equal(grading.damage, np.zeros((4, 5)))


def test_probabilities_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5, 4\) do not fit labels \(4, 5\)"):
        grade(np.zeros((4, 5), np.int32), random_probabilities(0, (5, 4)))
