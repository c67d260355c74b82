"""Buildings by place: each in one square, few in each, and counted alike at every zoom."""

import numpy as np
import pytest

from imagery.give.page.quarters import SMALLEST, count, quarters, side_around

SIZE = 3000, 2000


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Half of them in a town, the others anywhere; some on corners of squares."""
    generator = np.random.default_rng(3)
    town, others = generator.normal((700, 900), 60, (2000, 2)), generator.uniform(0, SIZE, (2000, 2))
    corners = np.array([[0, 0], [2048, 1024], [1024, 1024], [2999, 1999]])
    return np.concatenate([town, others, corners]).clip(0, np.array(SIZE) - 1)


def test_every_building_is_in_the_one_square_around_it_which_has_few(points: np.ndarray) -> None:
    side, rows = side_around(*SIZE), np.arange(len(points))[::-1]
    assert side == 4096
    found = list(quarters(points, rows, side, 50))
    assert sorted(row for own in found for row in own.rows.tolist()) == rows[::-1].tolist()
    assert len({own.name for own in found}) == len(found)
    for own in found:
        wide = side >> own.level
        assert len(own.rows) <= 50 or wide == SMALLEST
        assert (points[own.rows] // wide == (own.column, own.row)).all()
    assert len({own.level for own in found}) > 1


def test_counts_add_up_at_every_zoom_and_lie_where_the_buildings_do(points: np.ndarray) -> None:
    grades = np.random.default_rng(4).integers(0, 5, len(points))
    looks = list(count(points, grades, 5, side_around(*SIZE)))
    assert [own.side for own in looks] == [SMALLEST]
    looks = list(count(points * 16, grades, 5, 16 * side_around(*SIZE)))
    assert [own.side for own in looks] == [1024, 256, 128]
    for own in looks:
        assert own.numbers.sum(0).tolist() == np.bincount(grades, minlength=5).tolist()
        for cell, middle, numbers in zip(own.cells, own.middles, own.numbers, strict=True):
            members = (points * 16 // own.side == cell).all(1)
            assert numbers.tolist() == np.bincount(grades[members], minlength=5).tolist()
            np.testing.assert_allclose(middle, (points * 16)[members].mean(0), rtol=1e-12)
