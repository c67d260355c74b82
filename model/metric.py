"""The xView2 score as a metric of torchmetrics, for training loops of others.

Our own add up `joint_counts` themselves: torchmetrics takes as long to import as torch, in each process of a training.
"""

from typing import Any

from torch import Tensor
from torchmetrics import Metric

from model.score import joint_counts, no_counts, xview2_score


class XView2Score(Metric):
    """Streams predictions and targets; `compute` gives the official scorer's keys over everything seen.

    Counts are summed over processes before the score is taken, so a distributed evaluation is exact.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, unclassified_as: int | None = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unclassified_as = unclassified_as
        self.add_state("counts", no_counts(), dist_reduce_fx="sum")

    def update(self, localization: Tensor, damage: Tensor, target: Tensor) -> None:
        """Adds a batch, see `joint_counts`; each [B, H, W]."""
        self.counts += joint_counts(localization, damage, target, self.unclassified_as)

    def compute(self) -> dict[str, Tensor]:
        """The official keys over all batches, see `xview2_score`."""
        return xview2_score(self.counts)
