"""Which windows a scene is predicted in, and how much each of them counts where they overlap."""

import math

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

STRIDE = 4  # pixels of a logit
# Windows start at multiples of a pixel of the network's coarsest branch: elsewhere it would see the scene in other
# steps, and every window would say something else of the same place.
ALIGN = 32


def plan(width: int, height: int, tile: int, overlap: int) -> list[Window]:
    """Windows that cover a scene of width x height pixels, row by row, with `overlap` pixels or more between them.

    All are of `tile` x `tile` pixels, a side of the scene that is smaller as long as it is; the last of a row or column
    may reach up to 31 pixels beyond the scene. tile and overlap: multiples of 32, overlap less than tile.
    """
    return [
        Window(x, y, min(tile, width), min(tile, height))
        for y in _starts(height, tile, overlap)
        for x in _starts(width, tile, overlap)
    ]


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    if size <= tile:
        return [0]
    last = math.ceil((size - tile) / ALIGN) * ALIGN
    count = math.ceil(last / (tile - overlap))
    # Evenly, and not as far apart as possible with a rest at the end.
    return [round(last * number / count / ALIGN) * ALIGN for number in range(count + 1)]


def weights(height: int, width: int) -> npt.NDArray[np.float32]:
    """How much each logit of a window counts, [height, width]: 1 in the middle, a cosine to the borders, never 0."""
    along = [np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in (height, width)]
    return np.outer(*along).astype(np.float32)
