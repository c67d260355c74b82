"""A random order of places of which every prefix is spread over all of them, and each place as likely as another.

The places are put on a line that keeps neighbours together, and drawn along it as a scrambled van der Corput sequence:
the first half of any 2n is one from each of n equal pieces of the line. So it is with the reverse hierarchical order of
generalized random tessellation sampling: Stevens and Olsen 2004, https://doi.org/10.1198/016214504000000250
"""

import numpy as np
import numpy.typing as npt

_BITS = 16  # of a coordinate on the line: finer than buildings lie


def spread(places: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """The order to take them in, [N] positions. places: [N, 2] x and y in metres, finite.

    The line is closed to a ring and turned by lot, so that each place comes at each rank with probability 1/N.
    """
    count = len(places)
    if not count:
        return np.zeros(0, np.int64)
    shuffled = generator.permutation(count)
    line = shuffled[np.argsort(_along(places[shuffled]), kind="stable")]
    turned = np.roll(line, int(generator.integers(count)))
    return turned[np.argsort(_scrambled(count, generator))]


def _along(places: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Where each place lies on the Z-order curve through the square around all, [N]."""
    low = places.min(0)
    side = max(float((places.max(0) - low).max()), np.finfo(np.float64).tiny)
    cells = np.minimum((places - low) / side * 2**_BITS, 2**_BITS - 1).astype(np.int64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):  # a 0 after each digit
        cells = (cells | cells << shift) & mask
    curve: npt.NDArray[np.int64] = cells[:, 0] | cells[:, 1] << 1
    return curve


def _scrambled(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each position on the line when it is drawn: its binary digits reversed, at each node of the tree of halves
    swapped by lot. Source: Owen 1995, "Randomly permuted (t,m,s)-nets", https://doi.org/10.1007/978-1-4612-2552-2_19
    """
    bits = max(1, (count - 1).bit_length())
    codes = (np.arange(count) << bits) // count
    keys = np.zeros(count, np.int64)
    for level in range(bits):
        swapped = generator.integers(0, 2, size=2**level)[codes >> (bits - level)]
        keys |= ((codes >> (bits - level - 1) & 1) ^ swapped) << level
    return keys
