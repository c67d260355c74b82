"""How many buildings the map missed, from a random sample of squares in which a person counted them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from imagery.estimating.interval import Floats
from imagery.sampling.squares import Counts

_OUTSIDE = 0.025  # of the probability, on either side
_UNSEEN = 3.0


class Count(NamedTuple):
    """A total with its 95 % interval; found: how many were seen."""

    total: float
    low: float
    high: float
    found: int

    def __str__(self) -> str:
        return f"{self.total:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


class Missed(NamedTuple):
    """What the map missed. buildings, damaged: totals; counts: of the squares that were looked at; squares: of all."""

    buildings: Count
    damaged: Count
    counts: Counts
    squares: int

    def __str__(self) -> str:
        looked = f"{len(self.counts.missed)} of {self.squares:,} squares looked at"
        if np.isnan(self.buildings.total):
            return f"missed by the map: too few squares for an estimate; {looked}"
        return f"missed by the map: {self.buildings}, of which damaged {self.damaged}; {looked}"


def estimate_missed(counts: Counts, squares: int) -> Missed:
    """The totals of a map with so many squares. Where nothing can be seen nothing is counted: these are the missed that
    can be seen.
    """
    return Missed(missed(squares, counts.missed), missed(squares, counts.damaged), counts, squares)


def missed(squares: int, counts: npt.NDArray[np.int64]) -> Count:
    """The total of all squares, from what the first of the order hold. counts: [n], n >= 2 or all squares.

    The interval is Garwood's exact one of a Poisson count, for the count over its overdispersion
    d: chi²(0.025, 2x/d) d/2 to chi²(0.975, 2x/d + 2) d/2. It is drawn towards the estimate by sqrt(1 - n/M) for the
    finite population, and never below what was found. d is 1 + (s²/mean - 1)(1 + 3/sqrt(n)), at least 1: missed
    buildings come in clumps, and few squares do not show how large these are; the 3 is chosen by coverage.
    Source: Garwood 1936; the overdispersion as in a quasi-Poisson model, McCullagh and Nelder 1989.
    """
    judged, found = len(counts), int(counts.sum())
    if judged == squares:
        return Count(found, found, found, found)
    if judged < 2:
        return Count(np.nan, found, np.inf, found)
    excess = float(counts.var(ddof=1) / counts.mean()) - 1 if found else 0.0
    clumps = 1 + max(0.0, excess) * (1 + _UNSEEN / np.sqrt(judged))
    total = squares * found / judged
    low, high = (squares / judged * limit for limit in garwood(found / clumps) * clumps)
    nearer = np.sqrt(1 - judged / squares)
    return Count(total, max(found, total - nearer * (total - low)), total + nearer * (high - total), found)


def garwood(count: float) -> Floats:
    """Lowest and highest mean of a Poisson distribution that the count does not rule out, [2]."""
    low = gammaincinv(count, _OUTSIDE) if count > 0 else 0.0
    return np.array([low, gammaincinv(count + 1, 1 - _OUTSIDE)])


def with_missed(mapped: Count, missing: Count) -> Count:
    """Buildings of the map and those that it missed, from two samples that know nothing of one another.

    The distances to the limits are joined by root of squares. Source: Zou and Donner 2008,
    https://doi.org/10.1002/sim.3095
    """
    total = mapped.total + missing.total
    low = total - float(np.hypot(mapped.total - mapped.low, missing.total - missing.low))
    high = total + float(np.hypot(mapped.high - mapped.total, missing.high - missing.total))
    return Count(total, max(low, mapped.found + missing.found), high, mapped.found + missing.found)
