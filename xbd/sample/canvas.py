"""The drawing surface of synthetic scenes: shapes in pixels of the final image, drawn at twice its resolution."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt

from xbd.sample.filters import FloatField, moved, normals, smooth

Picture = npt.NDArray[np.uint8]

SCALE = 2
_FRACTION_BITS = 4


def noise(rng: np.random.Generator, size: int, scales: Sequence[float]) -> FloatField:
    """[size, size], mean 0 and deviation about 1: random fields of the given grain sizes in pixels, added."""
    total = np.zeros((size, size))
    for scale in scales:
        cells = int(size / scale) + 3
        span = max(round(cells * scale), size)
        total += smooth(normals(rng, (cells, cells)), (span, span), cubic=True)[:size, :size]
    return np.asarray(total / math.sqrt(len(scales)))


class Canvas:
    """pixels: uint8 [2H, 2W, 3], or [2H, 2W] for a mask; what is drawn is moved by `shift` (x, y in pixels)."""

    def __init__(self, pixels: Picture, shift: tuple[float, float]) -> None:
        self.pixels = pixels
        self.shift = shift

    @classmethod
    def of(cls, ground: FloatField, shift: tuple[float, float]) -> "Canvas":
        """Starts from ground, [H, W, 3] in 0..255, moved as well."""
        whole = np.clip(moved(ground, shift), 0, 255).astype(np.uint8)
        size = (ground.shape[1] * SCALE, ground.shape[0] * SCALE)
        return cls(np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR_EXACT), np.uint8), shift)

    @classmethod
    def mask(cls, size: int, shift: tuple[float, float]) -> "Canvas":
        """Starts from black, with one channel."""
        return cls(np.zeros((size * SCALE, size * SCALE), np.uint8), shift)

    def fixed(self, points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """[N, 2] in pixels to OpenCV's fixed-point coordinates on the canvas."""
        on_canvas = (np.asarray(points, np.float64) + self.shift) * SCALE + (SCALE - 1) / 2
        return np.asarray((on_canvas * 2**_FRACTION_BITS).round(), np.int32)

    def fill(self, polygon: npt.ArrayLike, colour: Sequence[float]) -> None:
        """polygon: [N, 2]."""
        cv2.fillPoly(self.pixels, [self.fixed(polygon)], tuple(colour), cv2.LINE_8, _FRACTION_BITS)

    def line(self, points: npt.ArrayLike, colour: Sequence[float], width: float) -> None:
        """points: [N, 2] of one line or [M, N, 2] of several; width in pixels."""
        fixed = self.fixed(points)
        lines = [fixed] if fixed.ndim == 2 else list(fixed)
        thickness = max(1, round(width * SCALE))
        cv2.polylines(self.pixels, lines, False, tuple(colour), thickness, cv2.LINE_8, _FRACTION_BITS)

    def strokes(self, ends: npt.ArrayLike, colours: Sequence[Sequence[float]], widths: Sequence[float]) -> None:
        """Many short lines; ends: [N, 2, 2]; widths in pixels."""
        for line, colour, width in zip(self.fixed(ends), colours, widths, strict=True):
            cv2.polylines(self.pixels, [line], False, colour, max(1, round(width * SCALE)), cv2.LINE_8, _FRACTION_BITS)

    def disks(self, centres: npt.ArrayLike, radii: npt.ArrayLike, colours: Sequence[Sequence[float]]) -> None:
        """Filled circles; centres: [N, 2], radii: [N], in pixels."""
        spots = ((np.asarray(centres, np.float64) + self.shift) * SCALE).round().astype(int).tolist()
        sizes = np.maximum(np.asarray(radii, np.float64) * SCALE, 1).round().astype(int).tolist()
        for spot, size, colour in zip(spots, sizes, colours, strict=True):
            cv2.circle(self.pixels, spot, size, colour, -1)

    def window(self, polygon: npt.ArrayLike) -> tuple[Picture, npt.NDArray[np.bool_]]:
        """The part of `pixels` around a polygon, as a view of at least a pixel, and which of it lies inside.

        Returns [h, w, 3] and [h, w].
        """
        left, top = self._corner(polygon)
        points = self.fixed(polygon) / 2**_FRACTION_BITS - (left, top)
        height, width = self.pixels.shape[:2]
        right, bottom = np.clip(points.max(axis=0) + 2, 1, (width - left, height - top)).astype(int)
        inside = np.zeros((bottom, right), np.uint8)
        cv2.fillPoly(inside, [points.round().astype(np.int32)], 1)
        return self.pixels[top : top + bottom, left : left + right], inside.astype(bool)

    def _corner(self, polygon: npt.ArrayLike) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        left, top = np.clip(self.fixed(polygon).min(axis=0) // 2**_FRACTION_BITS - 1, 0, (width - 1, height - 1))
        return int(left), int(top)

    @contextmanager
    def clipped(self, polygon: npt.ArrayLike) -> Iterator["Canvas"]:
        """A canvas to draw on, of which only what lies in the polygon stays."""
        view, inside = self.window(polygon)
        left, top = self._corner(polygon)
        part = Canvas(view.copy(), (self.shift[0] - left / SCALE, self.shift[1] - top / SCALE))
        yield part
        np.copyto(view, part.pixels, where=inside[..., None])

    def shade(self, where: "Canvas", light: float) -> None:
        """Darkens what the mask covers; a shadow keeps some of the sky's blue."""
        dark = cv2.LUT(self.pixels, (np.arange(256) * light + 2).round().clip(0, 255).astype(np.uint8))
        cv2.copyTo(dark, where.pixels, self.pixels)

    def blend(self, colour: FloatField | Sequence[float], share: FloatField) -> None:
        """Mixes in a colour; share: [H, W] in [0, 1]."""
        big = smooth(share, self.pixels.shape[:2], cubic=False)[..., None]
        self.pixels[:] = self.pixels + big * (np.asarray(colour, np.float64) - self.pixels)

    def averaged(self) -> FloatField:
        """[H, W, 3]: the picture at its final resolution."""
        parts = [self.pixels[row::SCALE, column::SCALE] for row in range(SCALE) for column in range(SCALE)]
        return np.asarray(sum(part.astype(np.float64) for part in parts) / SCALE**2)
