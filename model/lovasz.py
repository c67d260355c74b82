"""Lovász-softmax, the loss that the paper chose over weighted cross-entropy for xBD's class imbalance.

Source: Berman et al., CVPR 2018, https://arxiv.org/abs/1705.08790
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def lovasz_softmax(
    probs: Tensor, labels: Tensor, ignore_index: int = 255, class_weights: Sequence[float] | Tensor | None = None
) -> Tensor:
    """Lovász extension of the Jaccard loss, averaged over the classes present in the batch.

    probs: [B, C, H, W] float in [0, 1], summing to 1 over C.
    labels: [B, H, W] integer in [0, C) or ignore_index.
    class_weights: one factor a class; the loss is the mean over the classes present of weight x class loss (the
        published code of Dual-HRNet does the same), not divided by the sum of the weights.
    Returns a float32 (or float64) scalar; exactly 0, with zero gradient, where every pixel is ignored.
    Raises ValueError where the shapes do not fit.
    Source: Berman et al., algorithm 1.
    """
    if probs.ndim != 4 or labels.shape != probs.shape[:1] + probs.shape[2:]:
        raise ValueError(
            f"lovasz_softmax: probs {tuple(probs.shape)} and labels {tuple(labels.shape)}, expected [B, C, H, W] and "
            "[B, H, W]."
        )
    classes = probs.shape[1]
    if class_weights is not None and len(class_weights) != classes:
        raise ValueError(f"lovasz_softmax: {len(class_weights)} class weights for {classes} classes.")

    valid = labels != ignore_index
    # [C, N], so that each class is one contiguous row; selecting costs a copy and a scatter, so only where needed
    by_class = probs.transpose(0, 1)
    pixels = by_class.flatten(1) if bool(valid.all()) else by_class[:, valid]
    pixels = pixels if pixels.dtype == torch.float64 else pixels.float()
    foreground = labels[valid] == torch.arange(classes, device=labels.device)[:, None]  # [C, N]
    present = foreground.any(1)
    if not bool(present.all()):
        pixels, foreground = pixels[present], foreground[present]
    if not len(foreground):
        return pixels.sum() * 0  # keeps the graph, so that backward works and gives zeros
    factors = pixels.new_ones(classes) if class_weights is None else pixels.new_tensor(class_weights)

    errors = torch.where(foreground, 1 - pixels, pixels)
    # Two classes share their errors, and so one order serves both. The loss is linear in the errors once their order
    # is known, so the weights need no graph.
    order = (errors.detach()[:1] if classes == 2 else errors.detach()).argsort(1, descending=True).expand_as(errors)
    gradient = _jaccard_gradient(foreground.gather(1, order)) * factors[present][:, None]
    weights = torch.empty_like(errors, requires_grad=False).scatter_(1, order, gradient.to(errors.dtype))
    return (errors * weights).sum() / len(errors)


def _jaccard_gradient(foreground: Tensor) -> Tensor:
    """Growth of the Jaccard loss as pixels join the error set in the given order: [C, N] bool to [C, N] float64."""
    # float64: the differences of neighbouring Jaccard values fall below float32's resolution on a batch of
    # millions of pixels (1 / N against 6e-8), which would zero the weight of every easy pixel.
    hits = foreground.cumsum(1)  # counted in integers, which has a deterministic order on GPUs
    total = hits[:, -1:]
    position = torch.arange(1, foreground.shape[1] + 1, device=foreground.device)
    jaccard = 1 - (total - hits).double() / (total + position - hits)
    return torch.diff(jaccard, prepend=jaccard.new_zeros(len(jaccard), 1))
