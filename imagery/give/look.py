"""A pair of images as people look at it: both images, small enough for a page, and what is known of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from rasterio.windows import Window

from imagery.find.buildings import SIDE
from imagery.predict.domain import UNKNOWN, Likeness
from imagery.read.grid import Grid, blocks
from imagery.read.raster import ImagePair, Tile
from model.judge.page import photo
from xbd.overview import Image

LARGEST = 4096  # pixels of a side of what a page shows
CHIP = 320  # of the picture of a building
CHARACTERS = 36_000  # of its data URI at most: two of 500 buildings and 50 squares make 40 MB
QUALITIES = (80, 60, 40, 20)  # of JPEG
Read = Callable[[Window], Tile]  # both images in a window of a grid, see `ImagePair.read`


class Look(NamedTuple):
    """pre, post: data URIs of the images on the pair's grid; facts: what is known of the pair, fit for JSON."""

    pre: str
    post: str
    facts: Mapping[str, Any]

    def with_likeness(self, likeness: Likeness | None) -> "Look":
        """With what is known of how like the pair is to the training data, and a doubt where it is unlike these."""
        found = {"said": UNKNOWN} if likeness is None else likeness.facts()
        doubts = [f"the imagery: {likeness}."] if likeness is not None and likeness.unlike else []
        return self._replace(facts={**self.facts, "domain": found, "doubts": [*self.facts["doubts"], *doubts]})


def look_at(pair: ImagePair, facts: Mapping[str, Any], largest: int = LARGEST) -> Look:
    """Both images, a whole number of their pixels averaged to one where a side is longer than `largest`; they are read
    block by block. facts: what is known beside the size of the grid. Raises RasterError.
    """
    factor = factor_of(pair.grid, largest)
    whole = Window(0, 0, pair.grid.width, pair.grid.height)
    return look_of(reduce(pair, whole, factor), pair.grid, facts, largest)


def look_of(images: Sequence[Image], grid: Grid, facts: Mapping[str, Any], largest: int = LARGEST) -> Look:
    """The look of both images of a grid, as `reduce` gives them."""
    pre, post = (photo(image, largest, quality=75) for image in images)
    size = {"width": grid.width, "height": grid.height, "gsd_m": round(grid.gsd, 4)}
    return Look(pre, post, {**facts, **size})


def factor_of(grid: Grid, largest: int = LARGEST) -> int:
    """How many pixels of a grid become one, in rows and in columns."""
    return math.ceil(max(grid.width, grid.height) / largest)


def reduced(part: Window, factor: int) -> Window:
    """The pixels of reduced images whose first pixel lies in a part of the grid: parts without gaps stay such."""
    left, top = -(-part.col_off // factor), -(-part.row_off // factor)
    right, bottom = -(-(part.col_off + part.width) // factor), -(-(part.row_off + part.height) // factor)
    return Window(left, top, right - left, bottom - top)


def reduce(pair: ImagePair, part: Window, factor: int) -> tuple[Image, Image]:
    """Both images where `reduced` says of a part of the grid, uint8 RGB [H, W, 3]. Raises RasterError."""
    grid, small = pair.grid, reduced(part, factor)
    images = np.zeros((2, small.height, small.width, 3), np.uint8)
    for block in blocks(small.width, small.height, max(1, SIDE // factor)):
        left, top = (small.col_off + block.col_off) * factor, (small.row_off + block.row_off) * factor
        width, height = block.width * factor, block.height * factor
        tile = pair.read(Window(left, top, min(width, grid.width - left), min(height, grid.height - top)))
        for image, colours in zip(images, (tile.pre, tile.post), strict=True):
            _lay(image, colours, block.col_off, block.row_off, factor)
    return images[0], images[1]


def _lay(image: Image, colours: Image, left: int, top: int, factor: int) -> None:
    """colours: [3, H, W], of which `factor` x `factor` pixels become one of the image's."""
    height, width = (math.ceil(side / factor) for side in colours.shape[1:])
    full = np.pad(colours, ((0, 0), (0, height * factor - colours.shape[1]), (0, width * factor - colours.shape[2])))
    image[top : top + height, left : left + width] = cv2.resize(
        np.ascontiguousarray(full.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_AREA
    )


class Square(NamedTuple):
    """A part of the grid, in its pixels; it may reach beyond."""

    left: int
    top: int
    side: int


def chips(read: Read, squares: Sequence[Square], width: int, height: int) -> list[tuple[str, str]]:
    """Data URIs of both images in each square of a grid of width x height pixels, black beyond it."""
    found: dict[Square, tuple[str, str]] = {}
    for square in sorted(set(squares), key=lambda square: (square.top // SIDE, square.left)):  # as GDAL's cache likes
        left, top = max(0, square.left), max(0, square.top)
        right, bottom = min(width, square.left + square.side), min(height, square.top + square.side)
        tile = read(Window(left, top, right - left, bottom - top))
        whole = np.zeros((2, square.side, square.side, 3), np.uint8)
        part = np.s_[:, top - square.top : bottom - square.top, left - square.left : right - square.left]
        whole[part] = np.stack([tile.pre, tile.post]).transpose(0, 2, 3, 1)
        found[square] = _chip(whole[0]), _chip(whole[1])
    return [found[square] for square in squares]


def _chip(image: Image) -> str:
    """The best that is no longer than CHARACTERS."""
    for quality in QUALITIES:
        uri = photo(image, CHIP, quality)
        if len(uri) <= CHARACTERS:
            return uri
    return photo(image, CHIP // 2, QUALITIES[-1])
