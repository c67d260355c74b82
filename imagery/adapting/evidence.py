"""What predict kept of each building, brought into the few numbers that a small model learns from."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.estimating.interval import Floats

AXES = 32  # most directions of the features that are looked at
_ROWS = 10_000  # of the buildings that the axes are found from, and that are brought onto them at a time
_DULL = 1e-6  # standard deviation below which a channel tells buildings apart by rounding alone


class Evidence(NamedTuple):
    """probabilities: [N, 4], of the grades, the mean over the pixels, each row of sum 1; features: [N, C] of any float,
    finite, or None where the network offers none.
    """

    probabilities: Floats
    features: npt.NDArray[np.floating] | None

    def at(self, rows: npt.NDArray[np.int64]) -> "Evidence":
        """Those of some buildings, in this order."""
        return Evidence(self.probabilities[rows], None if self.features is None else self.features[rows])


def evidence_of(sums: Floats, features: npt.NDArray[np.floating] | None) -> Evidence:
    """Of buildings by the sums of the grades' probabilities over their pixels, [N, 4], and their features, [N, C].
    Those without pixels get zeros in both.
    """
    totals = sums.sum(1, keepdims=True)
    probabilities = np.divide(sums, totals, out=np.zeros(sums.shape), where=totals > 0)
    return Evidence(probabilities, None if features is None else np.where(totals > 0, features, features.dtype.type(0)))


class Projection(NamedTuple):
    """Onto the axes along which the features of a map differ most. mean: [C]; axes: [C, D]."""

    mean: Floats
    axes: Floats

    def __call__(self, features: npt.NDArray[np.floating]) -> Floats:
        """[N, D], in steps that bound the memory."""
        found = np.empty((len(features), self.axes.shape[1]))
        for start in range(0, len(features), _ROWS):
            found[start : start + _ROWS] = (features[start : start + _ROWS] - self.mean) @ self.axes
        return found


def projection(features: npt.NDArray[np.floating]) -> Projection:
    """The principal axes of the features, each channel of which is standardized first; on the mean over the axes, the
    variance along one is 1. No judgement is needed for it, so that all buildings have a say. features: [N, C].
    """
    some = features[:: -(-len(features) // _ROWS)].astype(np.float32)
    mean, spread = some.mean(0, dtype=np.float64), some.std(0, dtype=np.float64)
    scale = np.where(spread > _DULL, 1 / np.maximum(spread, _DULL), 0.0)
    standard = (some - mean) * scale
    variances, axes = np.linalg.eigh(standard.T @ standard / len(some))  # the smallest first
    count = min(AXES, *some.shape)
    typical = max(float(np.sqrt(variances[-count:].mean())), _DULL)
    return Projection(mean, scale[:, None] * axes[:, : -count - 1 : -1] / typical)
