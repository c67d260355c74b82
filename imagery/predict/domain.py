"""Whether imagery is unlike what its model learned from, said before anybody trusts the map."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagery.estimating.interval import Z
from imagery.predict.tile_features import TileFeatures
from imagery.read.raster import ImagePair
from model.calibration.domain import (
    Distance,
    Domain,
    Floats,
    colours_of,
    distance_in_colours,
    distance_in_features,
)

WIDE = 0.2  # of a share: the widest interval of 95 % that is of use
SLACK = 1.1  # by which a pixel may be larger or smaller than all of the training data
PARTS = 16  # of the imagery, of which the middle one counts: each is read once more
_VALID = 0.5  # of a part, which must have data to count

UNKNOWN = "nothing is known of what the training data looked like"


class Likeness(NamedTuple):
    """features, colours: see `model.calibration.domain`; gsd: whether the pixels are as large as in the training data;
    each None where that is not known. gsd_range, off_nadir_range: of the training data, None where not known.
    """

    features: Distance | None
    colours: Distance | None
    gsd: bool | None
    gsd_range: tuple[float, float] | None
    off_nadir_range: tuple[float, float] | None

    @property
    def unlike(self) -> tuple[str, ...]:
        """In what the imagery is unlike the training data."""
        found = {"features": self.features, "colours": self.colours}
        names = [name for name, own in found.items() if own is not None and own.is_unlike]
        return (*names, *(["the size of its pixels"] if self.gsd is False else []))

    def __str__(self) -> str:
        if self.unlike:
            return (
                f"unlike the training data in {', '.join(self.unlike)}: judge at least {fewest_judged()} buildings, or "
                "all, before its numbers are used"
            )
        known = {"features": self.features, "colours": self.colours, "the size of its pixels": self.gsd}
        names = [name for name, own in known.items() if own is not None]
        return f"not unlike the training data in {', '.join(names)}" if names else UNKNOWN

    def facts(self) -> dict[str, Any]:
        """What is known, fit for JSON."""
        distances = {"features": self.features, "colours": self.colours}
        plain = {name: own and {**own._asdict(), "unlike": own.is_unlike} for name, own in distances.items()}
        plain |= {"gsd": self.gsd_range and {"trained_on": self.gsd_range, "unlike": self.gsd is False}}
        plain |= {"off_nadir": self.off_nadir_range and {"trained_on": self.off_nadir_range}}
        return {"said": str(self), "unlike": list(self.unlike), **plain}


def fewest_judged(width: float = WIDE) -> int:
    """How many buildings of a simple random sample give every share an interval of 95 % that is no wider, by Wilson's,
    which is widest at a half: z / sqrt(n + z²).
    """
    return math.ceil((Z / width) ** 2 - Z**2)


class Parts(NamedTuple):
    """What is compared of imagery, of up to PARTS of its tiles, by their numbers. features: of those with data, the
    mean of each channel, [C], C = 0 where none were kept; colours: of those with enough of it, [12], see `colours_of`.
    """

    features: dict[int, Floats]
    colours: dict[int, Floats]


def look_at_parts(pair: ImagePair, tiles: TileFeatures) -> Parts:
    """Those of a pair, spread over it, as far as `tiles` of it were kept: several of these, each of other tiles, have
    together what one of all tiles has. Raises RasterError.
    """
    spread, colours = tiles.spread(PARTS), dict[int, Floats]()
    for number in spread:
        tile = pair.read(tiles.windows[number])
        if tile.valid.mean() >= _VALID:
            colours[number] = colours_of(tile.pre[:, tile.valid], tile.post[:, tile.valid])
    return Parts(tiles.means(spread), colours)


def compare(domain: Domain, gsd: float, parts: Parts) -> Likeness:
    """How like imagery of pixels of `gsd` metres is to what the model learned from, by the middle one of its parts."""
    trained_on, off_nadir = _range(domain.gsd), _range(domain.off_nadir)
    fits = None if trained_on is None else trained_on[0] / SLACK <= gsd <= trained_on[1] * SLACK
    return Likeness(
        distance_in_features(domain.features, _in_order(parts.features)),
        distance_in_colours(domain.colours, _in_order(parts.colours)),
        fits,
        trained_on,
        off_nadir,
    )


def _in_order(known: Mapping[int, Floats]) -> Floats:
    """[T, ...], by the numbers of the tiles."""
    return np.stack([known[number] for number in sorted(known)]) if known else np.zeros((0, 0), np.float32)


def _range(values: Sequence[float] | Floats) -> tuple[float, float] | None:
    known = np.asarray(values)[np.isfinite(values)]
    return (round(float(known.min()), 3), round(float(known.max()), 3)) if len(known) else None
