"""The objective: Lovász-softmax on localization and damage, in probabilities at full resolution, and what a recipe may
add to it.

Source: paper, section 3, equation 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from base.grades import UNCLASSIFIED
from model.dual_hrnet import DualLogits
from model.hrnet import resize
from model.lovasz import lovasz_softmax
from model.settings import TrainSettings


@dataclass(frozen=True)
class Losses:
    """total = localization + damage_weight x damage; scalars."""

    total: Tensor
    localization: Tensor
    damage: Tensor


def dual_loss(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
    """The paper's objective (equation 2) on probabilities upsampled to full resolution.

    mask: [B, H, W], 0-4 and 255. Un-classified pixels count in neither loss; the damage loss sees buildings only,
    and its classes are the grades less one. Computed in float32, whatever precision the logits have.
    """
    with torch.autocast(mask.device.type, enabled=False):
        return _dual_loss(DualLogits(*(part.float() for part in logits)), mask, settings)


def _dual_loss(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
    size = (mask.shape[-2], mask.shape[-1])
    ignored = torch.full_like(mask, UNCLASSIFIED)
    building = torch.where(mask == UNCLASSIFIED, ignored, (mask > 0).to(mask.dtype))
    grade = torch.where((mask == 0) | (mask == UNCLASSIFIED), ignored, mask - 1)
    places = resize(F.softmax(logits.localization, 1), size)
    grades = resize(F.softmax(logits.damage, 1), size)
    localization = lovasz_softmax(places, building, UNCLASSIFIED)
    damage = lovasz_softmax(grades, grade, UNCLASSIFIED, settings.class_weights)
    if settings.damage_cross_entropy > 0:
        damage = damage + settings.damage_cross_entropy * _cross_entropy(grades, grade, settings.class_weights)
    return Losses(localization + settings.damage_weight * damage, localization, damage)


def _cross_entropy(probs: Tensor, grade: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """Weighted mean over the graded pixels, 0 where there is none.

    Why it is there: Lovász-softmax pulls a grade up by a force that falls with p (1 - p) of its softmax, so that a
    grade which lost its probability early (in small batches that lack it) never comes back; cross-entropy's pull
    grows instead. Measured in docs/benchmarks.md.
    """
    if bool((grade == UNCLASSIFIED).all()):
        return probs.sum() * 0
    weights = None if class_weights is None else probs.new_tensor(class_weights)
    return F.nll_loss(probs.clamp_min(1e-12).log(), grade.long(), weights, ignore_index=UNCLASSIFIED)
