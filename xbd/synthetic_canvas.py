"""The drawing surface of synthetic scenes: shapes in pixels of the final image, drawn at twice its resolution."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
FloatField = npt.NDArray[np.float32]

SCALE = 2
_FRACTION_BITS = 4


def noise(rng: np.random.Generator, size: int, scales: Sequence[float]) -> FloatField:
    """float32 [size, size], mean 0 and deviation about 1: random fields of the given grain sizes in pixels, added."""
    total = np.zeros((size, size), np.float32)
    for scale in scales:
        cells = int(size / scale) + 3
        coarse = rng.standard_normal((cells, cells), np.float32)
        span = round(cells * scale)
        total += cv2.resize(coarse, (max(span, size), max(span, size)), interpolation=cv2.INTER_CUBIC)[:size, :size]
    return total / np.float32(len(scales) ** 0.5)


class Canvas:
    """pixels: uint8 [2H, 2W, 3]; everything drawn is moved by `shift` (x, y in pixels)."""

    def __init__(self, ground: FloatField, shift: tuple[float, float]) -> None:
        """ground: float32 [H, W, 3] in 0..255."""
        move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
        size = (ground.shape[1], ground.shape[0])
        moved = cv2.warpAffine(ground, move, size, borderMode=cv2.BORDER_REFLECT)
        moved = np.clip(moved, 0, 255).astype(np.uint8)
        self.pixels: Picture = cv2.resize(moved, (size[0] * SCALE, size[1] * SCALE), interpolation=cv2.INTER_LINEAR)
        self.shift = shift

    @classmethod
    def mask(cls, size: int, shift: tuple[float, float]) -> "Canvas":
        """A black canvas of one channel."""
        canvas = cls.__new__(cls)
        canvas.pixels, canvas.shift = np.zeros((size * SCALE, size * SCALE), np.uint8), shift
        return canvas

    def fixed(self, points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """[N, 2] in pixels to OpenCV's fixed-point coordinates on the canvas."""
        on_canvas = (np.asarray(points, np.float64) + self.shift) * SCALE + (SCALE - 1) / 2
        return (on_canvas * 2**_FRACTION_BITS).round().astype(np.int32)

    def fill(self, polygon: npt.ArrayLike, colour: Sequence[float]) -> None:
        """polygon: [N, 2]."""
        cv2.fillPoly(self.pixels, [self.fixed(polygon)], tuple(colour), cv2.LINE_8, _FRACTION_BITS)

    def line(self, points: npt.ArrayLike, colour: Sequence[float], width: float) -> None:
        """points: [N, 2]; width in pixels."""
        thickness = max(1, round(width * SCALE))
        cv2.polylines(self.pixels, [self.fixed(points)], False, tuple(colour), thickness, cv2.LINE_8, _FRACTION_BITS)

    def disk(self, x: float, y: float, radius: float, colour: Sequence[float]) -> None:
        """A filled circle."""
        centre = (round((x + self.shift[0]) * SCALE), round((y + self.shift[1]) * SCALE))
        cv2.circle(self.pixels, centre, max(1, round(radius * SCALE)), tuple(colour), -1)

    def window(self, polygon: npt.ArrayLike, margin: float = 0) -> tuple[Picture, npt.NDArray[np.bool_]]:
        """The part of `pixels` around a polygon, as a view, and which of it lies inside; [h, w, 3] and [h, w]."""
        points = self.fixed(polygon) / 2**_FRACTION_BITS
        height, width = self.pixels.shape[:2]
        left, top = np.clip(points.min(axis=0) - margin * SCALE, 0, (width, height)).astype(int)
        right, bottom = np.clip(points.max(axis=0) + margin * SCALE + 1, 0, (width, height)).astype(int)
        inside = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.uint8)
        if inside.size:
            cv2.fillPoly(inside, [(points - (left, top)).round().astype(np.int32)], 1)
        return self.pixels[top:bottom, left:right], inside.astype(bool)

    @contextmanager
    def clipped(self, polygon: npt.ArrayLike) -> Iterator[None]:
        """Undoes, at the end, what was drawn outside the polygon."""
        view, inside = self.window(polygon)
        whole = self.pixels
        self.pixels = whole.copy()
        yield
        drawn, _ = self.window(polygon)
        np.copyto(view, drawn, where=inside[..., None])
        self.pixels = whole

    def shade(self, where: "Canvas", light: float) -> None:
        """Darkens what the mask covers; a shadow keeps some of the sky's blue."""
        dark = cv2.convertScaleAbs(self.pixels, alpha=light, beta=2)
        cv2.copyTo(dark, where.pixels, self.pixels)

    def blend(self, colour: FloatField | Sequence[float], share: FloatField) -> None:
        """Mixes in a colour; share: float32 [H, W] in [0, 1]."""
        big = cv2.resize(share, self.pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
        self.pixels[:] = self.pixels + big * (np.asarray(colour, np.float32) - self.pixels)

    def averaged(self) -> FloatField:
        """float32 [H, W, 3]: the picture at its final resolution."""
        size = (self.pixels.shape[1] // SCALE, self.pixels.shape[0] // SCALE)
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
