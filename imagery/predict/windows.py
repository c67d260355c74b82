"""Which windows imagery is predicted in, and how much each of them counts where they overlap."""

import math

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from imagery.settings import STRIDE


def plan(width: int, height: int, tile: int, overlap: int) -> list[Window]:
    """Windows that cover a raster of width x height pixels, row by row, with `overlap` pixels or more between them.

    All are of `tile` x `tile` pixels but for those at the right and the lower end of it, where they end with it.
    They start at multiples of 32 pixels, the size of the coarsest branch's: moved by less, the same place would look
    different to the network. tile and overlap: multiples of 32, overlap less than tile.
    """
    return [
        Window(x, y, min(tile, width - x), min(tile, height - y))
        for y in _starts(height, tile, overlap)
        for x in _starts(width, tile, overlap)
    ]


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Spread evenly, so that the last two do not overlap more than the others."""
    if size <= tile:
        return [0]
    last = math.ceil((size - tile) / STRIDE)
    count = math.ceil(last / ((tile - overlap) // STRIDE))
    return [last * number // count * STRIDE for number in range(count + 1)]


def weights(height: int, width: int) -> npt.NDArray[np.float32]:
    """How much each logit of a window counts, [height, width]: 1 in the middle, a cosine to the borders, never 0."""
    along = [(1 - np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)) / 2 for size in (height, width)]
    return np.outer(*along).astype(np.float32)
