"""Looks for the shift between two images of a place, by phase correlation.

Two images are rarely taken from the same direction, and each is laid on the ground with an error of its own. What is
looked for is the shift that most of the image agrees on. It shows in the strength of edges, which stay where colours
and seasons change. The spectra of many parts of the image are added up before the peak is looked for: in a single part
it is often too weak. Method: C. D. Kuglin and D. C. Hines, The phase correlation image alignment method, 1975.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from imagery.read.alignment import Alignment, Floats
from imagery.read.doubts import Seen
from imagery.read.raster import ImagePair, Tile

PART = 512  # pixels of a side of what is compared at once; less where no such part has enough data
LEAST = 64  # pixels of a side, below which nothing is compared
PARTS = 100  # that the shift of the whole image is taken from, at most
REACH, LOCAL_REACH = 48, 8  # pixels: the largest shift looked for, and how far a place may differ from the whole
CERTAIN = 6.0  # standard deviations that a peak stands above the rest: 9 and more in tiles of xBD, 4 in unrelated ones
NEAR = 1.0  # how fast places count less the further they are: neighbours exp(-NEAR)
DOUBT = 0.2  # weight of the whole image's shift in a place, beside that of what is just certain there
SEEN = 0.5  # share of a part that must have data
DETAIL = 0.09  # cycles a pixel: finer detail hardly agrees between two images


class _Peak(NamedTuple):
    x: float
    y: float
    certainty: float


def register(pair: ImagePair, mode: str) -> Alignment:
    """The alignment of the pair, which is read as it lies. mode: see `imagery.settings.ALIGNMENTS`.

    Looked at are parts that have data in at least half of them, the largest that there are. No shift is found where
    nothing stands out, or where no part is large enough. Raises RasterError.
    """
    if mode == "off":
        return Alignment(mode)
    parts = _parts(pair)
    if parts is None:
        return Alignment(mode)
    total: Tensor | None = None
    for row, column in parts.most_telling():
        spectrum = _spectrum(pair.read(parts.window(row, column)))
        if spectrum is not None:
            total = spectrum if total is None else total + spectrum
    if total is None:
        return Alignment(mode)
    whole = _peak(_surface(total, (0, 0), min(REACH, min(total.shape) // 4)))
    if whole.certainty < CERTAIN:
        return Alignment(mode, certainty=whole.certainty, compared=True)
    # To tenths, so that images without a shift are read as they are.
    whole = whole._replace(x=round(whole.x, 1), y=round(whole.y, 1))
    known = Alignment(mode, *whole, found=True, compared=True)
    if mode == "global":
        return known
    return known._replace(places=_places(pair, parts, whole), rows=parts.rows, columns=parts.columns)


@dataclass(frozen=True)
class _Parts:
    """What of a pair is compared. rows, columns: middles, in pixels of the grid; height, width: of each part, even.
    seen: share of each that has data, [rows, columns].
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    height: int
    width: int
    seen: npt.NDArray[np.float64]

    def window(self, row: int, column: int) -> Window:
        """Of the part in that row and column."""
        top, left = self.rows[row] - self.height / 2, self.columns[column] - self.width / 2
        return Window(int(left), int(top), self.width, self.height)

    def most_telling(self) -> list[tuple[int, int]]:
        """Row and column of those with enough data; of more than PARTS some all over the images, always the same."""
        fitting = np.argwhere(self.seen >= SEEN)
        chosen = np.sort(np.random.default_rng(0).permutation(len(fitting))[:PARTS])
        return [(row, column) for row, column in fitting[chosen].tolist()]


def _parts(pair: ImagePair) -> _Parts | None:
    """The largest parts of which one has enough data, over the frame of what has some; None where there is none."""
    grid, seen = pair.grid, pair.seen()
    if not seen.any():
        return None
    scale = grid.height / seen.shape[0], grid.width / seen.shape[1]
    frame = []
    for axis, size, length in ((1, scale[0], grid.height), (0, scale[1], grid.width)):
        places = np.flatnonzero(seen.any(axis))
        frame.append((math.floor(places[0] * size), min(length, math.ceil((places[-1] + 1) * size))))
    (top, bottom), (left, right) = frame
    side = PART
    while side >= LEAST:
        height, width = (min(side, extent) // 2 * 2 for extent in (bottom - top, right - left))
        if min(height, width) < LEAST:
            return None
        rows, columns = _centres(top, bottom, height), _centres(left, right, width)
        shares = np.array([[_share(seen, (row, column), (height, width), scale) for column in columns] for row in rows])
        if (shares >= SEEN).any():
            return _Parts(rows, columns, height, width, shares)
        side //= 2
    return None


def _centres(start: int, end: int, part: int) -> tuple[float, ...]:
    """Middles of the parts between two pixels, half a part apart or a little less."""
    count = math.ceil((end - start - part) / (part // 2)) + 1
    return tuple(np.linspace(start + part / 2, end - part / 2, count).tolist())


def _share(seen: Seen, middle: tuple[float, float], size: tuple[int, int], scale: tuple[float, float]) -> float:
    """How much of the part has data, by the few pixels of `seen`, each of which stands for `scale` of the grid."""
    spans = [
        slice(math.floor((at - extent / 2) / step), math.ceil((at + extent / 2) / step))
        for at, extent, step in zip(middle, size, scale, strict=True)
    ]
    return float(seen[spans[0], spans[1]].mean())


def _places(pair: ImagePair, parts: _Parts, whole: _Peak) -> Floats:
    """How much further each place is shifted, [2, len(rows), len(columns)]: as most of what lies around it says, and
    nothing more where the images do not tell.
    """
    around = round(whole.x), round(whole.y)
    side = 2 * LOCAL_REACH + 1
    size = len(parts.rows), len(parts.columns)
    surfaces = np.zeros((*size, side, side), np.float32)
    for row, column in np.ndindex(size):
        spectrum = _spectrum(pair.read(parts.window(row, column)))
        if spectrum is not None:
            surfaces[row, column] = _surface(spectrum, around, LOCAL_REACH)
    surfaces = _blend(surfaces)
    further, weight = np.zeros((*size, 2), np.float32), np.zeros((*size, 1), np.float32)
    for row, column in np.ndindex(size):
        peak = _peak(surfaces[row, column])
        if peak.certainty >= CERTAIN:
            further[row, column] = around[0] + peak.x - whole.x, around[1] + peak.y - whole.y
            weight[row, column] = peak.certainty / CERTAIN
    found = _blend(further * weight) / (_blend(weight) + DOUBT)
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def _blend(values: Floats) -> Floats:
    """Adds to each place what its neighbours have, less the further they are. values: [rows, columns, ...]."""
    distances = (np.arange(size)[:, None] - np.arange(size) for size in values.shape[:2])
    rows, columns = (np.exp(-NEAR * distance**2).astype(np.float32) for distance in distances)
    return np.asarray(np.einsum("ij,kl,jl...->ik...", rows, columns, values, optimize=True), np.float32)


def _spectrum(tile: Tile) -> Tensor | None:
    """Phases of the cross-power spectrum, complex [H, W // 2 + 1]; None where there is too little to see."""
    if tile.valid.mean() < SEEN:
        return None
    inside = cv2.erode(tile.valid.astype(np.float32), np.ones((5, 5), np.uint8), borderValue=1)
    pre, post = (torch.fft.rfft2(torch.from_numpy(_edges(image, inside))) for image in (tile.pre, tile.post))
    product: Tensor = post * pre.conj()
    return product / product.abs().clamp(min=1e-6)


def _edges(image: npt.NDArray[np.uint8], inside: npt.NDArray[Any]) -> Floats:
    """Strength of the edges, fading out to the borders: a spectrum takes the left border to go on at the right."""
    grey = image.mean(0, dtype=np.float32)
    across, down = (cv2.Scharr(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    strength = np.hypot(across, down) * inside
    strength -= strength.sum() / max(1, inside.sum())
    window = cv2.createHanningWindow(strength.shape[::-1], cv2.CV_32F)
    return np.asarray(strength * inside * window, np.float32)


def _surface(spectrum: Tensor, around: tuple[int, int], reach: int) -> Floats:
    """How well the shifts within `reach` pixels of `around` (x, y) agree, [2 reach + 1, 2 reach + 1]."""
    height, width = spectrum.shape[0], 2 * (spectrum.shape[1] - 1)
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    smooth = torch.exp(-(down**2 + across**2) / (2 * DETAIL**2))
    surface = torch.fft.irfft2(spectrum * smooth, s=(height, width)).numpy()
    looked = np.roll(surface, (reach - around[1], reach - around[0]), axis=(0, 1))
    return np.asarray(looked[: 2 * reach + 1, : 2 * reach + 1], np.float32)


def _peak(surface: Floats) -> _Peak:
    """The shift that agrees best, from the middle of the surface, to parts of a pixel."""
    row, column = (int(place) for place in np.unravel_index(surface.argmax(), surface.shape))
    rest = np.ones(surface.shape, bool)
    rest[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = False
    certainty = (surface[row, column] - surface[rest].mean()) / max(float(surface[rest].std()), 1e-12)
    x, y = _vertex(surface, row, column)
    middle = surface.shape[0] // 2
    return _Peak(column - middle + x, row - middle + y, float(certainty))


def _vertex(surface: Floats, row: int, column: int) -> tuple[float, float]:
    """How far right of and below the highest pixel the peak lies: that of a paraboloid through the pixels around it,
    the nearer ones counting more; 0 at a border.
    """
    near = surface[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    if near.shape != (5, 5):
        return 0.0, 0.0
    y, x = (axis.ravel() for axis in np.mgrid[-2:3, -2:3])
    weight = np.exp(-(x**2 + y**2) / 8)
    terms = np.stack([x**2, y**2, x * y, x, y, np.ones(25)], axis=1)
    xx, yy, xy, right, down, _ = np.linalg.lstsq(terms * weight[:, None], near.ravel() * weight)[0]
    bent = 4 * xx * yy - xy**2
    if xx >= 0 or bent <= 0:  # no peak
        return 0.0, 0.0
    x, y = np.clip(((xy * down - 2 * yy * right) / bent, (xy * right - 2 * xx * down) / bent), -1, 1).tolist()
    return x, y
