"""Polygons to the damage mask, pixel for pixel as the official targets were drawn."""

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from xbd.labels import Building

UNGRADED = 1  # buildings of a pre label have no grade; their mask says "building"


def rasterize(buildings: Iterable[Building], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draws buildings in their order, later over earlier.

    size: (height, width) in pixels.
    Returns uint8 [height, width]: 0 background, 1 no damage, 2 minor, 3 major, 4 destroyed, 255 un-classified; for
    buildings of a pre label 1. Coordinates are rounded to the nearest integer and only the outer ring is drawn: of
    the ways to rasterize, this one reproduces the official targets (0 of 1,048,576 pixels differ, truncation
    instead of rounding differs in 11,383).
    """
    mask = np.zeros(size, np.uint8)
    for building in buildings:
        if not building.polygon.is_empty:
            cv2.fillPoly(mask, [_ring(building)], UNGRADED if building.grade is None else building.grade)
    return mask


def is_drawn(building: Building, size: tuple[int, int]) -> bool:
    """Whether a mask of this (height, width) shows something of a building: False where it lies outside of the image,
    is empty, or all of it falls on one pixel, as degrees do that are taken for pixels.
    """
    if building.polygon.is_empty:
        return False
    ring = _ring(building)
    low, high = ring.min(0), ring.max(0)
    if (low == high).all():
        return False
    first, last = np.maximum(low, 0), np.minimum(high, (size[1] - 1, size[0] - 1))
    if (first > last).any():
        return False
    part = np.zeros((last - first + 1)[::-1], np.uint8)
    return bool(cv2.fillPoly(part, [ring - first.astype(np.int32)], 1).any())


def _ring(building: Building) -> npt.NDArray[np.int32]:
    """[N, 2] pixels of the corners."""
    return np.asarray(building.polygon.exterior.coords)[:, :2].round().astype(np.int32)
