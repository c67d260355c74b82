"""The mean of the network's features over each building, finished as soon as its last pixel was seen."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from imagery.find.pixels import Numbers, Pixels
from imagery.predict.tile_features import TileFeatures


def mean_features(
    blocks: Iterable[Pixels], counts: Numbers, tiles: TileFeatures
) -> Iterator[tuple[Numbers, npt.NDArray[np.float16]]]:
    """Numbers of buildings and their features, [K] and [K, channels], as they come; those without pixels do not.

    blocks: all pixels of all buildings, each once. counts: [N], how many pixels a building has. In memory are the sums
    of a block's buildings, and of those that reach into later ones.
    """
    left, waiting = counts.copy(), dict[int, Numbers]()
    bits = tiles.bits(int(counts.max(initial=1)))
    for block in blocks:
        numbers = block.buildings
        sums = tiles.sums(block.owners, block.rows, block.columns, len(numbers), bits)
        for place, number in enumerate(numbers.tolist()):
            if number in waiting:
                sums[place] += waiting.pop(number)
        here = np.bincount(block.owners, minlength=len(numbers))
        left[numbers] -= here
        # A footprint that ends at the border of a block has no pixel in the next one, which may name it all the same.
        done = (left[numbers] == 0) & (here > 0)
        waiting |= {int(numbers[place]): sums[place].copy() for place in np.flatnonzero(left[numbers] > 0)}
        yield numbers[done], tiles.mean(sums[done], bits)
    assert not waiting, "blocks hold fewer pixels than the counts say"
