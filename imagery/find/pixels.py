"""Which pixels of predicted imagery belong to which building, block by block."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Pixels(NamedTuple):
    """Of a block, those with data. buildings: [K] their numbers in the list, from 0, each once; owners: [n] places in
    `buildings`; rows, columns: [n] in the raster. Where buildings overlap, a pixel is there for each of them.
    """

    buildings: Numbers
    owners: Numbers
    rows: Numbers
    columns: Numbers
