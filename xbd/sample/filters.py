"""Filters of images that give the same number on every processor.

OpenCV and BLAS take the widest instructions that they find, and with these the last digit of a float changes. Where a
picture is then cut to whole grey values, some pixel of a data set falls on the other side. NumPy's + - * / of arrays
are the same everywhere (IEEE 754), and so is what is made of them here. Sines, exponentials and normal deviates are
not: they are rounded by `on_steps`, to steps that are large beside that last digit.
"""

import math

import numpy as np
import numpy.typing as npt

FloatField = npt.NDArray[np.float64]

_STEP_BITS = 20


def on_steps(values: npt.ArrayLike, bits: int = _STEP_BITS) -> FloatField:
    """The values, rounded to multiples of 2^-bits."""
    return np.asarray(np.rint(np.asarray(values, np.float64) * 2.0**bits) / 2.0**bits)


def normals(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatField:
    """Normal deviates, on steps of a thousandth: mean 0, deviation 1."""
    return on_steps(rng.standard_normal(shape), 10)


def smooth(field: FloatField, shape: tuple[int, int], *, cubic: bool) -> FloatField:
    """[h, w] to [H, W], by cubic or linear interpolation; the border goes on outwards."""
    for axis, length in enumerate(shape):
        places = (np.arange(length) + 0.5) * (field.shape[axis] / length) - 0.5
        first = np.floor(places)
        weights = _cubic(places - first) if cubic else (first + 1 - places, places - first)
        total = np.zeros((length, field.shape[1]) if axis == 0 else (field.shape[0], length))
        for offset, weight in enumerate(weights, start=-1 if cubic else 0):
            rows = np.clip(first + offset, 0, field.shape[axis] - 1).astype(np.int64)
            total += np.take(field, rows, axis) * (weight[:, None] if axis == 0 else weight)
        field = total
    return field


def _cubic(at: FloatField) -> tuple[FloatField, ...]:
    """Weights of the four neighbours of a place, `at` of [0, 1] between the inner two (Keys, a = -0.75)."""
    a = -0.75

    def near(x: FloatField) -> FloatField:
        return np.asarray(((a + 2) * x - (a + 3)) * x * x + 1)

    def far(x: FloatField) -> FloatField:
        return np.asarray(((x - 5) * x + 8) * x * a - 4 * a)

    return far(at + 1), near(at), near(1 - at), far(2 - at)


def blur(image: FloatField, sigma: float) -> FloatField:
    """Gaussian blur of [H, W] or [H, W, C]; the border is mirrored."""
    reach = max(1, math.ceil(4 * sigma))
    weights = on_steps([math.exp(-((offset / sigma) ** 2) / 2) for offset in range(reach + 1)])
    weights = weights / float(weights[0] + 2 * math.fsum(weights[1:].tolist()))
    for axis in (0, 1):
        length = image.shape[axis]
        padded = np.pad(image, [(reach, reach) if axis == own else (0, 0) for own in range(image.ndim)], "symmetric")
        parts = np.moveaxis(padded, axis, 0)
        total = weights[0] * parts[reach : reach + length]
        for offset in range(1, reach + 1):
            before, after = reach - offset, reach + offset
            total += weights[offset] * (parts[before : before + length] + parts[after : after + length])
        image = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(image)


def moved(image: FloatField, shift: tuple[float, float]) -> FloatField:
    """[H, W, C] moved by `shift` (x, y in pixels), by linear interpolation; the border is mirrored."""
    for axis, distance in ((1, shift[0]), (0, shift[1])):
        whole = math.floor(distance)
        rest = distance - whole
        length, reach = image.shape[axis], abs(whole) + 1
        padded = np.pad(image, [(reach, reach) if axis == own else (0, 0) for own in range(image.ndim)], "symmetric")
        parts = np.moveaxis(padded, axis, 0)
        start = reach - whole
        image = np.moveaxis(
            (1 - rest) * parts[start : start + length] + rest * parts[start - 1 : start - 1 + length], 0, axis
        )
    return np.ascontiguousarray(image)
