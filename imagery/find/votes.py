"""How the pixels of a building vote on its grade, in whole numbers, so that parts of a building add up exactly.

The vote is that of `model.buildings.grade`, which sees all of a building at once; imagery is seen block by block.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from base.grades import KEYS

Votes = npt.NDArray[np.int64]
DAMAGE = tuple(name.replace("_", "-") for name in KEYS)  # as in xBD
NOT_VISIBLE = "not-visible"
SHARES = tuple(f"share_{name}" for name in KEYS)
CERTAIN = 255  # a probability of 1


def count_votes(labels: npt.NDArray[np.int32], probabilities: npt.NDArray[np.uint8], length: int) -> Votes:
    """The votes of each label below `length`, [length, 2, 4]; of the background, 0, none.

    labels: [H, W]. probabilities: of the grades, [4, H, W], 255 is 1. [:, 0] is the sum of the probabilities of each
    grade, [:, 1] how many pixels have it as their most probable one.
    """
    inside = np.flatnonzero(labels)
    numbers = labels.ravel()[inside]
    flat = probabilities.reshape(len(KEYS), -1)[:, inside]
    sums = [np.bincount(numbers, part, length) for part in flat]
    pixels = np.bincount(numbers * len(KEYS) + flat.argmax(0), minlength=length * len(KEYS)).reshape(length, -1)
    return np.stack([np.stack(sums, axis=1).astype(np.int64), pixels], axis=1)


def decide(votes: Votes) -> pd.DataFrame:
    """What is known of each building: grade, damage, confidence and the shares of the grades.

    votes: [N, 2, 4]. grade: 1-4, the lower one of two with equal votes; damage: its name in xBD; confidence: the mean
    probability of that grade over the pixels; share_...: of the pixels, by their own most probable grade. A building
    without pixels is not visible, and all but that is missing.
    """
    sums, pixels = votes[:, 0], votes[:, 1]
    total = pixels.sum(1)
    seen = total > 0
    divisor = np.maximum(total, 1)
    best = sums.argmax(1)
    grade = pd.array(best + 1, dtype="Int64")
    grade[~seen] = pd.NA
    shares = np.where(seen[:, None], (pixels / divisor[:, None]).round(4), np.nan)
    return pd.DataFrame(
        {
            "grade": grade,
            "damage": np.where(seen, np.array(DAMAGE, dtype=object)[best], NOT_VISIBLE),
            "confidence": np.where(seen, (sums.max(1, initial=0) / divisor / CERTAIN).round(4), np.nan),
            **dict(zip(SHARES, shares.T, strict=True)),
        }
    )
