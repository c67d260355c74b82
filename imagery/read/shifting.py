"""An image moved by a part of a pixel: what GDAL's cubic warp comes to between grids that differ by nothing else, in a
small part of its time.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

TYPES = ("uint8", "uint16", "int16", "float32")  # of pixels that can be moved
BEFORE, AFTER = 1, 2  # pixels around a window that a moved one is made of, on each axis
_A = -0.5  # of the cubic convolution, as GDAL has it
Values = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


def shifted(values: Values, valid: Flags, by: tuple[float, float]) -> tuple[Values, Flags]:
    """Pixels between those of an image: the one at column x and row y is what lies at x + `by`[0] and y + `by`[1].

    values: [C, BEFORE + H + AFTER, BEFORE + W + AFTER], of one of TYPES; valid: of the same pixels, whether they have
    data; by: from 0 to below 1. Returns [C, H, W], of the same type, and bool [H, W]: whether the nearest pixel has
    data. Cubic convolution (Keys 1981, https://doi.org/10.1109/TASSP.1981.1163711); where one of its 16 pixels is
    missing, the mean of those nearest four that are there, weighted bilinearly.
    """
    height, width = (size - BEFORE - AFTER for size in valid.shape)
    inside = np.s_[BEFORE : BEFORE + height, BEFORE : BEFORE + width]
    cubic = [_cubic(part) for part in by]
    moved = np.stack([_filtered(band, *cubic)[inside] for band in values])
    nearest = np.roll(valid, [-int(part >= 0.5) for part in reversed(by)], (0, 1))[inside]
    if not valid.all():
        flags = valid.astype(np.float32)
        is_whole = _filtered(flags, *2 * [np.ones(4)])[inside] > 15.5
        linear = [np.array([0, 1 - part, part, 0]) for part in by]
        weight = np.where(nearest, _filtered(flags, *linear)[inside], 1)
        known = np.where(valid, values, 0).astype(np.float32)
        near = np.stack([_filtered(band, *linear)[inside] for band in known]) / weight
        if np.issubdtype(values.dtype, np.integer):
            near = near.round()
        moved = np.where(is_whole, moved, near.astype(values.dtype))
    return moved, nearest


def _cubic(part: float) -> npt.NDArray[np.float64]:
    """The weights of four pixels in a row, for a place `part` of a pixel behind the second of them."""
    near, far = np.array([part, 1 - part]), np.array([1 + part, 2 - part])
    near = (_A + 2) * near**3 - (_A + 3) * near**2 + 1
    far = _A * far**3 - 5 * _A * far**2 + 8 * _A * far - 4 * _A
    return np.array([far[0], near[0], near[1], far[1]])


def _filtered(image: Values, across: npt.NDArray[np.float64], down: npt.NDArray[np.float64]) -> Values:
    found = cv2.sepFilter2D(image, -1, across, down, anchor=(BEFORE, BEFORE), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(found)
