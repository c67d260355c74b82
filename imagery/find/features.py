"""The mean of the network's features over each building, finished as soon as its last pixel was seen."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from imagery.find.pixels import Numbers, Pixels
from imagery.predict.tile_features import TileFeatures, carried, mean

Means = tuple[Numbers, npt.NDArray[np.float16]]  # [K] numbers of buildings, and [K, channels]


def sum_features(blocks: Iterable[Pixels], counts: Numbers, tiles: TileFeatures) -> Iterator[tuple[Numbers, Numbers]]:
    """Numbers of buildings and the sums of their features, [K] and [K, 2, 1 + channels], as they come; those without
    pixels do not.

    blocks: all pixels of all buildings, each once. counts: [N], how many pixels a building has. In memory are the sums
    of a block's buildings, and of those that reach into later ones.
    """
    left, waiting = counts.copy(), dict[int, Numbers]()
    for block in blocks:
        numbers = block.buildings
        sums = tiles.sums(block.owners, block.rows, block.columns, len(numbers))
        for place, number in enumerate(numbers.tolist()):
            if number in waiting:
                sums[place] = carried(sums[place] + waiting.pop(number))
        here = np.bincount(block.owners, minlength=len(numbers))
        left[numbers] -= here
        # A footprint that ends at the border of a block has no pixel in the next one, which may name it all the same.
        done = (left[numbers] == 0) & (here > 0)
        waiting |= {int(numbers[place]): sums[place].copy() for place in np.flatnonzero(left[numbers] > 0)}
        yield numbers[done], sums[done]
    assert not waiting, "blocks hold fewer pixels than the counts say"


def mean_features(blocks: Iterable[Pixels], counts: Numbers, tiles: TileFeatures) -> Iterator[Means]:
    """As `sum_features`, the means over the pixels, [K, channels]."""
    for numbers, sums in sum_features(blocks, counts, tiles):
        yield numbers, mean(sums, tiles.scales)
