"""The 95 % interval of a share of a stratified sample, by formulas that a page computes to the same digits.

Of N buildings in H strata of N_h, the first n of the order are judged, n_h of them in stratum h, of which x_h have what
is asked for (damaged, say). With W_h = N_h / N:

    p    = sum_h W_h x_h / n_h                                   the share
    s_h  = (x_h + p) / (n_h + 1)                                 pulled to p by one pseudo-observation
    V    = sum_h W_h^2 (1 - n_h / N_h) s_h (1 - s_h) / (n_h - 1)   0 for a stratum that is wholly judged
    g    = n / (1 - n / N)                                       the sample, corrected for the finite population
    m    = p (1 - p) / V, no less than 0.3 g and no more than 2 g; g where x = 0 or x = n
    low, high = (p + z^2/2m -+ z sqrt(p (1 - p)/m + z^2/4m^2)) / (1 + z^2/m)     Wilson, z = 1.959963984540054
    low is no less than x / N, high no more than 1 - (n - x) / N         what was seen is certain

and N times p, low and high are the totals. Where a stratum has none judged, nothing is known: 0 to 1; `Draw.fewest` is
the n from which on that cannot be, nor n_h = 1 of more. All is computed in float64, sums over strata from h = 0 up.

For what is not a share of all buildings the same holds with a size a of each: its m², or 0 outside of a domain such as
an area. With sums over the judged of a stratum, and y = 1 for those that have what is asked for:

    D    = sum_h (N_h / n_h) sum a,    p = sum_h (N_h / n_h) sum a y / D                 a ratio
    e    = a (y - p)                                             a (y - f) where a model predicted f, see `assisted`
    V    = sum_h N_h^2 (1 - n_h / N_h) v_h / (n_h - 1) / D^2
    v_h  = (sum e^2 + p (1 - p) sum a^2 / n_h) / (n_h + 1) - (sum e / (n_h + 1))^2
    g    = (sum a)^2 / sum a^2 / (1 - sum a / A)                 A: the largest size that the domain can have
    low is no less than sum a y / A, high no more than 1 - sum a (1 - y) / A

Sources: Olofsson et al. 2014, https://doi.org/10.1016/j.rse.2014.02.015 (p, V without the pseudo-observation);
Wilson 1927; the effective sample size as Korn and Graubard 1998 and Dean and Pagano 2015 put it into Wilson's interval.
The pull and the bounds of m are ours, chosen by coverage: `python -m benchmarks.sampling`, docs/benchmarks.md.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z = 1.959963984540054  # of 95 %
LEAST, MOST = 0.3, 2.0  # effective sample size over g: above 2, finds in few strata promise more than they hold


class Sums(NamedTuple):
    """Over the judged of each stratum, each [..., H]: their number n_h, sum a, sum a², sum a y, sum a² y."""

    judged: Floats
    size: Floats
    squared: Floats
    hits: Floats
    hits_squared: Floats


class Share(NamedTuple):
    """share, low and high: in [0, 1], NaN, 0 and 1 where nothing is known. error: the plain standard error, without
    pull or bounds, NaN where a stratum with one judged gives none. Each [...].
    """

    share: Floats
    low: Floats
    high: Floats
    error: Floats


def ratio(sizes: npt.NDArray[np.int64], sums: Sums, most: Floats) -> Share:
    """The share of y in a domain, by the design alone. sizes: N_h, [H]; most: A, the domain's largest size, [...]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = sizes / sums.judged
        domain = (weights * sums.size).sum(-1)
        share = (weights * sums.hits).sum(-1) / domain
        p = share[..., None]
        first, second = sums.hits - p * sums.size, (1 - 2 * p) * sums.hits_squared + p**2 * sums.squared
    return closed(sizes, sums, most, share, first, second, domain)


def assisted(
    sizes: npt.NDArray[np.int64], sums: Sums, most: Floats, predicted: Floats, first: Floats, second: Floats
) -> Share:
    """The share by the difference estimator: what a model predicts of all, corrected by its errors on the judged.

    most: the domain's size, which is known, [...]; predicted: sum a f over all of it, [...]; first and second: sum e
    and sum e² over the judged, e = a (y - f), each f of a model that did not see this y, [..., H].
    Source: Särndal et al. 1992, "Model Assisted Survey Sampling", section 6.3.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (predicted + (sizes / sums.judged * first).sum(-1)) / most
    return closed(sizes, sums, most, share, first, second, most)


def closed(
    sizes: npt.NDArray[np.int64],
    sums: Sums,
    most: Floats,
    share: Floats,
    first: Floats,
    second: Floats,
    domain: Floats,
) -> Share:
    """The interval around a share whose residuals e are known by their sums, as the module says."""
    hits, size = sums.hits.sum(-1), sums.size.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        seen, unseen = hits / most, 1 - (size - hits) / most
        mixed = (hits > 0) & (hits < size)
        share = np.clip(np.where(mixed, share, hits / size), seen, unseen)
        spread = share * (1 - share)
        pull = spread[..., None] * sums.squared / sums.judged
        variance = _variance(sizes, sums.judged, first, second + pull, 1) / domain**2
        error = np.sqrt(_variance(sizes, sums.judged, first, second, 0)) / domain
        whole = size**2 / sums.squared.sum(-1) / np.maximum(1 - size / most, np.finfo(np.float64).eps)
        effective = np.where(mixed, np.clip(spread / variance, LEAST * whole, MOST * whole), whole)
        low, high = wilson(share, effective)
        low, high = np.maximum(low, seen), np.minimum(high, unseen)
    known = np.isfinite(share) & (sums.judged > 0).all(-1)
    return Share(
        np.where(known, share, np.nan),
        np.where(known, low, 0.0),
        np.where(known, high, 1.0),
        np.where(known & np.isfinite(error), error, np.nan),
    )


def wilson(share: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Wilson's interval for a share of `count` observations, which need not be whole."""
    z = Z**2 / count
    half = Z * np.sqrt(share * (1 - share) / count + z / (4 * count))
    middle = share + z / 2
    # It holds the share, which rounding can hide at 0 and 1.
    return np.minimum(share, (middle - half) / (1 + z)), np.maximum(share, (middle + half) / (1 + z))


def _variance(sizes: npt.NDArray[np.int64], judged: Floats, first: Floats, second: Floats, pseudo: int) -> Floats:
    """That of sum_h N_h mean(e), from sums of e and e² which hold `pseudo` observations besides, [...]."""
    count = judged + pseudo
    within = second / count - (first / count) ** 2
    each = sizes.astype(np.float64) ** 2 * (1 - judged / sizes) * np.maximum(within, 0.0) / (judged - 1)
    total: Floats = np.where(judged >= sizes, 0.0, each).sum(-1)
    return total
