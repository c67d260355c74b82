"""Whether the network is as often right as it is sure of it: the expected calibration error, from streamed bins.

Source: Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599
"""

import torch
from torch import Tensor

from base.grades import GRADES, KEYS
from model.networks.pair_network import Temperatures

BINS = 15


class Calibration:
    """Streams confidences into 15 bins of equal width, (0, 1/15] to (14/15, 1]; keeps only their sums."""

    def __init__(self) -> None:
        self.pixels = torch.zeros(2, BINS, dtype=torch.int64)  # wrong, right
        self.confidence = torch.zeros(BINS, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Adds pixels. confidence: [N] float, probability of the chosen class; right: [N] bool."""
        # uint8, because an eighth of the memory traffic of int64 is a fraction of the time.
        bins = (confidence * BINS).ceil_().sub_(1).clamp_(0, BINS - 1).to(torch.uint8)
        self.confidence += torch.bincount(bins, confidence.double(), BINS)
        self.pixels += torch.bincount(bins + BINS * right.to(torch.uint8), minlength=2 * BINS).reshape(2, BINS)

    def error(self) -> float:
        """Mean distance of the share of right pixels from the mean confidence, over bins, weighted by their pixels.

        0 where nothing was added.
        """
        gaps = (self.pixels[1] - self.confidence).abs()
        return float(gaps.sum() / max(1, int(self.pixels.sum())))

    def curve(self) -> tuple[list[float], list[float]]:
        """Mean confidence and share of right pixels, of each bin that has pixels."""
        pixels = self.pixels.sum(0)
        filled = pixels > 0
        confidence, right = self.confidence[filled] / pixels[filled], self.pixels[1][filled] / pixels[filled]
        return confidence.tolist(), right.tolist()


class Confidence:
    """How sure a model is and how often it is right: of buildings, of grades, and of each grade by itself."""

    def __init__(self) -> None:
        self.parts = {part: Calibration() for part in ("localization", "damage", *KEYS)}

    def add_buildings(self, probability: Tensor, truth: Tensor) -> None:
        """Adds pixels. probability: [N], of a building; truth: bool [N], whether one is there."""
        found = probability > 0.5
        self.parts["localization"].add(torch.where(found, probability, 1 - probability), found == truth)

    def add_grades(self, probabilities: Tensor, grades: Tensor) -> None:
        """Adds pixels of buildings. probabilities: [4, N], of each grade; grades: [N] of 1-4."""
        confidence, chosen = probabilities.max(0)
        self.parts["damage"].add(confidence, chosen + 1 == grades)
        for probability, grade in zip(probabilities, GRADES, strict=True):
            self.parts[grade.key].add(probability, grades == grade.number)

    def errors(self) -> dict[str, float]:
        """See `Calibration.error`; of a grade: how far its probability is from the share of pixels that have it."""
        return {part: calibration.error() for part, calibration in self.parts.items()}

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """See `Calibration.curve`, of localization and damage."""
        return {part: self.parts[part].curve() for part in ("localization", "damage")}


def undo(temperatures: Temperatures, building: Tensor, damage: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities as they would be without temperatures: those are softmax(logits / T), and T log p are the
    logits but for a constant. building: [N]; damage: [4, n].
    """
    return (
        building.logit(eps=1e-7).mul(temperatures.localization).sigmoid(),
        damage.clamp_min(1e-30).log().mul(temperatures.damage).softmax(0),
    )
