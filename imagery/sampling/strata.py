"""Strata of buildings by their score, the predicted probability of damage, and how a sample is shared out over them.

The bins hold shares of the buildings, not ranges of the score: so they are filled also where almost everything is
undamaged, or where a model new to the event is never sure. Shares, number and allocation are those with the narrowest
intervals that cover, `python -m benchmarks.sampling`: docs/benchmarks.md.
"""

import numpy as np
import numpy.typing as npt

SHARES = (0.1, 0.2, 0.3, 0.4)  # of the buildings in each stratum, from the highest score down
EQUAL = 0.5  # of the sample is shared out equally over the strata, the rest in proportion to their sizes
FEWEST = 20  # buildings for more than one stratum: the smallest then holds two


def stratify(scores: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """The stratum of each building, [N], 0 with the highest scores; one for all below FEWEST buildings.

    scores: [N] in any unit that rises with the probability of damage, finite. Equal scores are parted by lot.
    """
    count = len(scores)
    strata = np.zeros(count, np.int64)
    if count >= FEWEST:
        shuffled = generator.permutation(count)
        order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        ends = np.round(np.cumsum(SHARES) * count).astype(np.int64)
        strata[order] = np.repeat(np.arange(len(SHARES)), np.diff(ends, prepend=0))
    return strata


def share_out(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The stratum of the first, second, ... building to judge, [sum of sizes]: each prefix is as near as whole numbers
    come to half in proportion, half equal; strata that are used up leave their part to the others.

    sizes: buildings in each stratum, [H], at least 1. It is the method of Webster (Sainte-Laguë), by which the t-th of
    a stratum with share a comes at (t - 0.5) / a; of equals, the lower stratum is first.
    """
    parts = (1 - EQUAL) * sizes / sizes.sum() + EQUAL / len(sizes)
    strata = np.repeat(np.arange(len(sizes)), sizes)
    turns = np.concatenate([np.arange(size) for size in sizes])
    return strata[np.argsort((turns + 0.5) / parts[strata], kind="stable")]
