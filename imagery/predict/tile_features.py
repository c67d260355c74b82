"""The features of predicted imagery, pixel by pixel, out of its tiles: sums in whole numbers, so that parts add up
exactly, whatever the blocks in which they are asked for, and on whichever machine.

Where tiles overlap, a pixel counts from the one whose centre is nearest. A pixel's features are those of the square of
4 x 4 pixels that it lies in, which is a pixel of the logits; coarser maps are upsampled to these bilinearly, as the
head of the network does (`model.hrnet.Head`), but in whole numbers.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from scipy import sparse

from imagery.predict.blending import PIXELS
from imagery.predict.tile_store import Maps, TileStore
from imagery.predict.windows import plan
from imagery.settings import Windows
from model.calibration.domain import mean_of_maps

LARGEST = 65504.0  # of float16
FINEST = 24  # bits behind the point: float16 has no smaller numbers
HALF = 20  # bits of the lower part of a sum: the largest building of the largest numbers has more than 63
SMALL = 2**23  # shares of pixels: fewer of the largest numbers fit into 63 bits
Numbers = npt.NDArray[np.int64]


class Scale(NamedTuple):
    """A map of features. pixels: of the imagery, in a side of one of its own; channels: of how many numbers."""

    pixels: int
    channels: int


def channels_of(scales: Sequence[Scale]) -> int:
    """Of all scales together."""
    return sum(scale.channels for scale in scales)


def mean(sums: Numbers, scales: Sequence[Scale]) -> npt.NDArray[np.float16]:
    """The mean over the pixels, [N, channels], of what `TileFeatures.sums` gives or sums of these; NaN where there are
    none.
    """
    units = np.repeat([_shares(scale) for scale in scales], [scale.channels for scale in scales])
    total = sums[:, 0] * 2.0**HALF + sums[:, 1]
    with np.errstate(invalid="ignore"):
        return np.asarray(total[:, 1:] / (total[:, :1] * units * 2.0**FINEST), np.float16)


def carried(sums: Numbers) -> Numbers:
    """The same sums, [..., 2, N], with lower parts of HALF bits."""
    high, low = sums[..., 0, :], sums[..., 1, :]
    return np.stack([high + (low >> HALF), low & (2**HALF - 1)], axis=-2)


class TileFeatures:
    """What was kept of the tiles of imagery of width x height pixels in the folder `work`: of all of them, or of those
    that a part of the imagery is made of. scales: of the maps that the network has, from fine to coarse, none of a
    network that has none, or where no tile has data; windows: of all tiles, in the imagery.
    """

    def __init__(self, work: Path, width: int, height: int, windows: Windows) -> None:
        self._store = TileStore(work)
        self.windows = plan(width, height, windows.tile, windows.overlap)
        self._across = _borders([(tile.col_off, tile.width) for tile in self.windows if tile.row_off == 0])
        self._down = _borders([(tile.row_off, tile.height) for tile in self.windows if tile.col_off == 0])
        found = (self._store.load_features(number) for number in self._store.numbers())
        maps: Maps = next((maps for maps in found if maps is not None), ())
        self.scales = tuple(Scale(PIXELS * maps[0].shape[0] // part.shape[0], part.shape[2]) for part in maps)

    def sums(self, owners: Numbers, rows: Numbers, columns: Numbers, length: int) -> Numbers:
        """Sums over the pixels of each owner below `length`, [length, 2, 1 + channels]: the number of pixels, and of
        their features `mean` knows what; an upper part, which counts 2**HALF times, and a lower one of HALF bits.
        owners, rows, columns: [n], fewer than 2**34.
        """
        total = np.zeros((length, 2, 1 + channels_of(self.scales)), np.int64)
        tiles = np.searchsorted(self._down, rows, "right") * (len(self._across) + 1)
        tiles += np.searchsorted(self._across, columns, "right")
        for number in np.flatnonzero(np.bincount(tiles)).tolist():
            inside = tiles == number
            maps = self._store.load_features(number)
            if maps is not None:
                tile = self.windows[number]
                total += self._of_tile(owners[inside], rows[inside], columns[inside], length, tile, maps)
        return carried(total)

    def spread(self, most: int) -> list[int]:
        """Up to `most` of all tiles, evenly spread over them; those of these that were kept."""
        kept = set(self._store.numbers())
        spread = (int(number) for number in np.unique(np.linspace(0, len(self.windows) - 1, most).round()))
        return [number for number in spread if number in kept]

    def means(self, numbers: Iterable[int]) -> dict[int, npt.NDArray[np.float32]]:
        """The mean of each channel over a tile, [channels], of those of the tiles that have data, by their numbers."""
        found = ((number, self._store.load_features(number)) for number in numbers)
        return {number: mean_of_maps(maps) for number, maps in found if maps is not None}

    def _of_tile(
        self, owners: Numbers, rows: Numbers, columns: Numbers, length: int, tile: Window, maps: Maps
    ) -> Numbers:
        width = maps[0].shape[1]
        places = (rows - tile.row_off) // PIXELS * width + (columns - tile.col_off) // PIXELS
        used, places = np.unique(places, return_inverse=True)
        counts = sparse.csr_array((np.ones_like(owners), (owners, places)), shape=(length, len(used)))
        pixels = counts.sum(1)
        parts = [np.stack([0 * pixels, pixels], axis=1)[:, :, None]]
        for part, scale in zip(maps, self.scales, strict=True):
            shares, needed, factor = counts, used, scale.pixels // PIXELS
            if factor > 1:
                shares = counts @ _upsampling(used, width, factor, part.shape[:2])
                needed, order = np.unique(shares.indices, return_inverse=True)
                shares = sparse.csr_array((shares.data, order, shares.indptr), shape=(length, len(needed)))
            values = part.reshape(-1, scale.channels)[needed].astype(np.float32)
            whole = np.rint(values * np.float32(2.0**FINEST)).astype(np.int64)
            if pixels.max() * _shares(scale) < SMALL:
                total = shares @ whole
                parts.append(np.stack([total >> HALF, total & (2**HALF - 1)], axis=1))
            else:
                parts.append(np.stack([shares @ (whole >> HALF), shares @ (whole & (2**HALF - 1))], axis=1))
        return np.concatenate(parts, axis=2)


def _borders(tiles: Sequence[tuple[int, int]]) -> Numbers:
    """Where the next one's pixels begin, of tiles (start, size) side by side: those whose middles lie nearer to its
    own, as far as it reaches.
    """
    return np.array(
        [
            min(max((2 * start + size + 2 * later + other + 2) // 4, later), start + size)
            for (start, size), (later, other) in pairwise(tiles)
        ],
        np.int64,
    )


def _shares(scale: Scale) -> int:
    """Of how many equal parts a pixel of the logits is made up in bilinear upsampling from the scale."""
    factor = scale.pixels // PIXELS
    return 1 if factor == 1 else 4 * factor**2


def _upsampling(places: Numbers, width: int, factor: int, coarse: tuple[int, ...]) -> sparse.csr_array:
    """Bilinear upsampling by `factor`, align_corners=False, to some places of a map that is `width` wide, as a matrix
    in parts of `_shares`: [places, those of the map of the size `coarse`]. Upsampling of rows, then of columns, is the
    product of their shares.
    """
    sides = []
    for along, last in zip(np.divmod(places, width), coarse, strict=True):
        lower, share = np.divmod(2 * along + 1 - factor, 2 * factor)
        sides.append([(np.clip(lower + n, 0, last - 1), part) for n, part in enumerate((2 * factor - share, share))])
    corners = [(y * coarse[1] + x, down * across) for y, down in sides[0] for x, across in sides[1]]
    columns, shares = (np.concatenate(part) for part in zip(*corners, strict=True))
    own = np.tile(np.arange(len(places)), len(corners))
    return sparse.csr_array((shares, (own, columns)), shape=(len(places), coarse[0] * coarse[1]))
