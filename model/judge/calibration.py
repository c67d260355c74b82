"""Whether the network is as often right as it is sure of it: the expected calibration error, from streamed bins.

Source: Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599
"""

import torch
from torch import Tensor

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
