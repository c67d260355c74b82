"""Outlines of labels: what prepare draws of them are the pixels that they were made of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from imagery.labelling.scenes import outlines_of
from xbd.labels import Building
from xbd.masks import is_drawn, rasterize

EVERY = np.ones((3, 3))  # neighbours, also across corners


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 3))
@settings(max_examples=200)
def test_whatever_the_shape_the_drawn_pixels_are_its_own_with_holes_filled(seed: int, share: float, size: int) -> None:
    """By SciPy, which knows neither contours nor polygons. Random pixels touch across corners, and have spikes."""
    mask = (np.random.default_rng(seed).random((6 + 5 * size, 7 + 4 * size)) < share).astype(np.uint8)
    parts, count = ndimage.label(mask, EVERY)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    expected = ndimage.binary_fill_holes(mask * (sizes > 1)[parts])
    buildings = [Building(str(number), polygon, 3) for number, polygon in enumerate(outlines_of(mask, 40, 30))]
    drawn = rasterize(buildings, (80, 90))
    np.testing.assert_array_equal(drawn[30 : 30 + mask.shape[0], 40 : 40 + mask.shape[1]], 3 * expected)
    assert (drawn > 0).sum() == expected.sum()
    assert all(building.is_sound and is_drawn(building, drawn.shape) for building in buildings)


def test_a_part_of_one_pixel_has_no_outline_and_one_of_two_has() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1, 1] = mask[4, 4:6] = 1
    (only,) = outlines_of(mask)
    assert np.argwhere(rasterize([Building("a", only, 1)], (9, 9))).tolist() == [[4, 4], [4, 5]]
