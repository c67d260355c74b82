"""Masks: pixel values of hand-made polygons, equality with the official targets, and what holds for any polygons."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import shapely.wkt
from hypothesis import given
from hypothesis import strategies as st

from tests.comparing import read_png
from xbd.labels import Building, read_buildings
from xbd.masks import rasterize


def box(left: float, top: float, right: float, bottom: float, grade: int | None = 1) -> Building:
    return Building("b", shapely.box(left, top, right, bottom), grade)


def drawn(wkt: str, size: tuple[int, int] = (12, 12)) -> npt.NDArray[np.uint8]:
    polygon = shapely.wkt.loads(wkt)
    assert isinstance(polygon, shapely.Polygon)
    return rasterize([Building("b", polygon, 3)], size)


def expected(size: tuple[int, int], *areas: tuple[int, int, int, int, int]) -> npt.NDArray[np.uint8]:
    """left, top, right, bottom (borders included), value; later over earlier."""
    mask = np.zeros(size, np.uint8)
    for left, top, right, bottom, value in areas:
        mask[max(0, top) : bottom + 1, max(0, left) : right + 1] = value
    return mask


def test_a_building_covers_its_borders() -> None:
    np.testing.assert_array_equal(rasterize([box(2, 3, 5, 7, 4)], (10, 12)), expected((10, 12), (2, 3, 5, 7, 4)))


@pytest.mark.parametrize(
    ("coordinate", "pixel"), [(10.4, 10), (10.5, 10), (10.6, 11), (11.5, 12), (10.999, 11), (11.0, 11)]
)
def test_coordinates_go_to_the_nearest_integer_and_halves_to_the_even_one(coordinate: float, pixel: int) -> None:
    mask = rasterize([box(coordinate, coordinate, 20, 20)], (24, 24))
    np.testing.assert_array_equal(mask, expected((24, 24), (pixel, pixel, 20, 20, 1)))


def test_what_lies_beyond_the_image_is_cut() -> None:
    buildings = [box(-5, -7, 3, 2, 2), box(9, 8, 40, 30, 3), box(-9, -9, -2, -2, 4), box(50, 50, 60, 60, 4)]
    np.testing.assert_array_equal(
        rasterize(buildings, (12, 14)), expected((12, 14), (-5, -7, 3, 2, 2), (9, 8, 40, 30, 3))
    )


def test_a_building_larger_than_the_image_fills_it() -> None:
    assert (rasterize([box(-100_000, -100_000, 100_000, 100_000, 2)], (8, 9)) == 2).all()


def test_later_buildings_cover_earlier_ones() -> None:
    first, second = box(1, 1, 6, 6, 1), box(4, 4, 9, 9, 4)
    areas = (1, 1, 6, 6, 1), (4, 4, 9, 9, 4)
    np.testing.assert_array_equal(rasterize([first, second], (12, 12)), expected((12, 12), *areas))
    np.testing.assert_array_equal(rasterize([second, first], (12, 12)), expected((12, 12), *areas[::-1]))


def test_every_grade_has_its_value_and_un_classified_is_255() -> None:
    grades = [1, 2, 3, 4, 255]
    mask = rasterize([box(i, 0, i, 0, grade) for i, grade in enumerate(grades)], (1, 6))
    np.testing.assert_array_equal(mask, [[1, 2, 3, 4, 255, 0]])


def test_buildings_of_a_pre_label_are_one() -> None:
    np.testing.assert_array_equal(rasterize([box(0, 0, 1, 0, None)], (1, 3)), [[1, 1, 0]])


def test_holes_are_filled() -> None:
    ring = "POLYGON ((1 1, 9 1, 9 9, 1 9, 1 1), (3 3, 3 6, 6 6, 6 3, 3 3))"
    np.testing.assert_array_equal(drawn(ring), expected((12, 12), (1, 1, 9, 9, 3)))


def test_a_polygon_without_area_is_drawn_as_its_line() -> None:
    np.testing.assert_array_equal(drawn("POLYGON ((2 4, 8 4, 2 4))"), expected((12, 12), (2, 4, 8, 4, 3)))
    np.testing.assert_array_equal(drawn("POLYGON ((5 5, 5 5, 5 5, 5 5))"), expected((12, 12), (5, 5, 5, 5, 3)))


def test_a_polygon_that_crosses_itself_is_drawn_as_its_two_halves() -> None:
    mask = drawn("POLYGON ((1 1, 9 9, 9 1, 1 9, 1 1))")
    assert mask[5, 2] == mask[5, 8] == 3  # the halves of the bow tie
    assert mask[2, 5] == mask[8, 5] == 0


def test_an_empty_polygon_and_no_building_draw_nothing() -> None:
    assert not drawn("POLYGON EMPTY").any()
    assert not rasterize([], (5, 6)).any()
    assert rasterize([], (5, 6)).shape == (5, 6)


def test_heights_of_the_polygons_do_not_matter() -> None:
    np.testing.assert_array_equal(
        drawn("POLYGON Z ((1 1 7, 4 1 7, 4 4 7, 1 4 7, 1 1 7))"), drawn("POLYGON ((1 1, 4 1, 4 4, 1 4, 1 1))")
    )


@pytest.mark.parametrize(("moment", "allowed"), [("pre", 1), ("post", 0)])
def test_masks_equal_the_official_targets(golden_targets: Path, moment: str, allowed: int) -> None:
    labels = sorted(golden_targets.glob(f"*_{moment}_disaster.json"))
    assert labels
    for label in labels:
        target = read_png(label.with_name(f"{label.stem}_target.png"))
        mask = rasterize(read_buildings(label), (1024, 1024))
        assert np.count_nonzero(mask) > 10_000
        assert np.count_nonzero(mask != target) <= allowed


integers = st.integers(-10, 40)


@given(st.lists(st.tuples(integers, integers, integers, integers, st.sampled_from([1, 2, 3, 4, 255])), max_size=6))
def test_rectangles_equal_slices(corners: list[tuple[int, int, int, int, int]]) -> None:
    areas = [(min(a, c), min(b, d), max(a, c), max(b, d), value) for a, b, c, d, value in corners]
    mask = rasterize([box(*area) for area in areas], (30, 25))
    # A negative end would count from the other side of the array.
    inside = [area for area in areas if area[2] >= 0 and area[3] >= 0]
    np.testing.assert_array_equal(mask, expected((30, 25), *inside))


coordinates = st.floats(-30, 60, allow_nan=False)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7).map(shapely.Polygon)
graded = st.builds(Building, st.just("b"), polygons, st.sampled_from([None, 1, 2, 3, 4, 255]))


@given(st.lists(graded, max_size=5))
def test_any_polygons_give_only_known_values_and_drawing_twice_changes_nothing(buildings: list[Building]) -> None:
    mask = rasterize(buildings, (32, 40))
    assert mask.dtype == np.uint8
    assert mask.shape == (32, 40)
    assert set(np.unique(mask)) <= {0} | {building.grade or 1 for building in buildings}
    np.testing.assert_array_equal(rasterize(buildings * 2, (32, 40)), mask)
