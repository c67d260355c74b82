"""A pair of images on one grid, read window by window: post is warped to the grid of pre, over what both show."""

import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.windows import Window

from imagery.errors import RasterError
from imagery.read.alignment import Alignment
from imagery.read.doubts import Seen
from imagery.read.grid import Grid, meet
from imagery.read.image import Image, KnownImage, Range
from imagery.settings import PERCENTILES, SettingsError, Sources

# Metres of a pixel of the images of xBD, https://arxiv.org/abs/1911.09296
FINEST, COARSEST = 0.3, 0.8


class Tile(NamedTuple):
    """pre, post: uint8 RGB [3, H, W], 0 where not valid; valid: bool [H, W], what both images show."""

    pre: npt.NDArray[np.uint8]
    post: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


class KnownPair(NamedTuple):
    """What was found out of a pair, see `ImagePair`: enough to read the same pixels again, in another process, too."""

    pre: KnownImage
    post: KnownImage
    grid: Grid
    ranges: tuple[Range | None, Range | None]
    alignment: Alignment


class ImagePair:
    """An open pair, a context manager; `grid` is that of pre (north up, resampled where asked for), cut to what both
    images cover.

    known: that of another ImagePair of the same sources, for what need not be looked for again. ranges: what becomes 0
    and 255 in each image, None for 8 bits. One ImagePair is for one thread at a time. Raises RasterError.
    """

    def __init__(self, sources: Sources, known: KnownPair | None = None) -> None:
        with ExitStack() as stack:
            found = (None, None) if known is None else (known.pre, known.post)
            pre = stack.enter_context(Image(sources.pre, sources.bands[0], sources.nodata[0], found[0]))
            post = stack.enter_context(Image(sources.post, sources.bands[-1], sources.nodata[-1], found[1]))
            self.grid = _common(pre, post, sources.resample_to) if known is None else known.grid
            self.sources = sources
            self.pre: Image = pre
            self.post: Image = post
            self.ranges: tuple[Range | None, Range | None]
            self.ranges = known.ranges if known else (self._range(pre), self._range(post))
            pre.place(self.grid)
            self.align(known.alignment if known else Alignment())
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def known(self) -> KnownPair:
        """What need not be looked for again."""
        return KnownPair(self.pre.known, self.post.known, self.grid, self.ranges, self.alignment)

    def align(self, alignment: Alignment) -> None:
        """From now on, post is read as it lies by this alignment: what pre shows is at the same place in both."""
        self.alignment = alignment
        moved = self.grid.transform @ Affine.translation(alignment.x, alignment.y)
        self.post.place(replace(self.grid, transform=moved))

    def read(self, window: Window) -> Tile:
        """Both images in a window of the grid."""
        pre, one = self.pre.read(window, self.ranges[0])
        post, other = self._bent(window) if self.alignment.places is not None else self._post(window)
        valid = one & other
        return Tile(pre * valid, post * valid, valid)

    def _post(self, window: Window) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        return self.post.read(window, self.ranges[1])

    def _bent(self, window: Window) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Post in a window, each pixel from where the local alignment says."""
        # OpenCV interpolates at 32nds of a pixel: rounded first, a pixel does not depend on where its window begins.
        across, down = (np.round(part * 32) / 32 for part in self.alignment.at(window))
        margin = math.ceil(max(np.abs(across).max(), np.abs(down).max())) + 2
        left, top = max(0, window.col_off - margin), max(0, window.row_off - margin)
        right = min(self.grid.width, window.col_off + window.width + margin)
        bottom = min(self.grid.height, window.row_off + window.height + margin)
        colours, valid = self._post(Window(left, top, right - left, bottom - top))
        across += np.arange(window.col_off - left, window.col_off - left + window.width, dtype=np.float32)
        down += np.arange(window.row_off - top, window.row_off - top + window.height, dtype=np.float32)[:, None]
        bent = cv2.remap(np.ascontiguousarray(colours.transpose(1, 2, 0)), across, down, cv2.INTER_CUBIC)
        seen = cv2.remap(valid.astype(np.float32), across, down, cv2.INTER_LINEAR)
        return np.asarray(bent.transpose(2, 0, 1), np.uint8), np.asarray(seen > 0.99)

    def seen(self) -> Seen:
        """Where both images have data, of the grid as they lie, in the few pixels of `imagery.read.doubts.smaller`."""
        return self.pre.seen(self.grid) & self.post.seen(self.grid)

    def _range(self, image: Image) -> Range | None:
        found = image.look(self.grid, self.sources.percentiles or PERCENTILES)
        if found is None or self.sources.value_range is None:
            return found
        low, high = self.sources.value_range
        return (low,) * 3, (high,) * 3


def _common(pre: Image, post: Image, resample_to: float | None) -> Grid:
    grid = pre.upright
    if resample_to is not None:
        grid = grid.resampled(resample_to)
    common = meet(grid, post.grid)
    if common is None:
        raise RasterError(
            f"{post.name}: shows nothing of what {pre.name} shows: it covers {post.grid.extent} degrees (west, "
            f"south, east, north), the other {pre.grid.extent}. Give two images of the same place."
        )
    return grid.cut(common)


def tell_how_read(pair: ImagePair) -> None:
    """Prints the bands that are taken of each image, and on stderr what of it is a guess."""
    for image in (pair.pre, pair.post):
        print(f"{image.name}: bands {image.bands}", flush=True)
    for line in doubts(pair):
        print(f"warning: {line}", file=sys.stderr, flush=True)


def doubts(pair: ImagePair) -> list[str]:
    """What was guessed of the images and may be wrong."""
    return [f"{image.name}: {doubt}." for image in (pair.pre, pair.post) for doubt in image.doubts]


def refuse_unused_range(pair: ImagePair) -> None:
    """Raises SettingsError where it is given what becomes black and white, and both images are taken as they are."""
    given = {"--range": pair.sources.value_range, "--percentiles": pair.sources.percentiles}
    named = [option for option, value in given.items() if value is not None]
    if named and pair.ranges == (None, None):
        raise SettingsError(
            f"{named[0]}: is for images of more than 8 bits, found 8 bits in {pair.pre.name} and {pair.post.name}, "
            "which are taken as they are. Leave it out."
        )


def warn_of_resolution(pair: ImagePair) -> None:
    """Says on stderr where pixels are not of the size that the model learned from."""
    expected = f"the model learned from {FINEST} to {COARSEST} m"
    if not FINEST <= round(pair.grid.gsd, 2) <= COARSEST:
        line = f"{pair.pre.name}: is predicted at {pair.grid.gsd:.2f} m a pixel, {expected}. Try --resample-to 0.5."
        print(f"warning: {line}", file=sys.stderr, flush=True)
    for image in (pair.pre, pair.post):
        if round(image.gsd, 2) > COARSEST and image.gsd > 1.5 * pair.grid.gsd:
            line = f"{image.name}: has pixels of {image.gsd:.2f} m, {expected}: finer ones would show more."
            print(f"warning: {line}", file=sys.stderr, flush=True)
