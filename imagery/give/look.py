"""A pair of images as people look at it: both images, small enough for a page, and what is known of them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from imagery.find.buildings import SIDE
from imagery.read.grid import blocks
from imagery.read.raster import ImagePair
from model.judge.page import photo
from xbd.overview import Image

LARGEST = 4096  # pixels of a side of what a page shows


class Look(NamedTuple):
    """pre, post: data URIs of the images on the pair's grid; facts: what is known of the pair, fit for JSON."""

    pre: str
    post: str
    facts: Mapping[str, Any]


def look_at(pair: ImagePair, facts: Mapping[str, Any], largest: int = LARGEST) -> Look:
    """Both images, a whole number of their pixels averaged to one where a side is longer than `largest`; they are read
    block by block. facts: what is known beside the size of the grid. Raises RasterError.
    """
    grid = pair.grid
    factor = math.ceil(max(grid.width, grid.height) / largest)
    small = (math.ceil(grid.height / factor), math.ceil(grid.width / factor), 3)
    images = np.zeros(small, np.uint8), np.zeros(small, np.uint8)
    for window in blocks(grid.width, grid.height, max(1, SIDE // factor) * factor):
        tile = pair.read(window)
        for image, colours in zip(images, (tile.pre, tile.post), strict=True):
            _lay(image, colours, window.col_off // factor, window.row_off // factor, factor)
    pre, post = (photo(image, largest, quality=75) for image in images)
    size = {"width": grid.width, "height": grid.height, "gsd_m": round(grid.gsd, 4)}
    return Look(pre, post, {**facts, **size})


def _lay(image: Image, colours: Image, left: int, top: int, factor: int) -> None:
    """colours: [3, H, W], of which `factor` x `factor` pixels become one of the image's."""
    height, width = (math.ceil(side / factor) for side in colours.shape[1:])
    full = np.pad(colours, ((0, 0), (0, height * factor - colours.shape[1]), (0, width * factor - colours.shape[2])))
    image[top : top + height, left : left + width] = cv2.resize(
        np.ascontiguousarray(full.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_AREA
    )
