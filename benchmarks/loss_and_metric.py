"""Lovász-softmax on a batch of 2 x 512 x 512 with realistic shares of ignored pixels, and the metric's counts.

python -m benchmarks.loss_and_metric
"""

import functools

import torch
from torch import Tensor

from benchmarks.measure import Work, side_by_side, table
from model.lovasz import lovasz_softmax
from model.score import joint_counts

IGNORED = 255


def one_sort_per_class(probs: Tensor, labels: Tensor) -> Tensor:
    """The loss as it is usually written: each class sorts all pixels, ignored ones with an error of 0."""
    classes = probs.shape[1]
    pixels, target = probs.permute(0, 2, 3, 1).reshape(-1, classes), labels.flatten()
    valid = (target != IGNORED).float()
    losses = []
    for c in range(classes):
        foreground = (target == c).float()
        if foreground.sum() == 0:
            continue
        errors, order = torch.sort((foreground - pixels[:, c]).abs() * valid, descending=True)
        hits, others = foreground[order].cumsum(0), ((1 - foreground) * valid)[order].cumsum(0)
        jaccard = 1 - (foreground.sum() - hits) / (foreground.sum() + others)
        losses.append(torch.dot(errors, torch.cat([jaccard[:1], jaccard.diff()])))
    return torch.stack(losses).mean()


def buildings(graded: bool) -> Tensor:
    """Labels int64 [2, 512, 512]: 8 % buildings. graded: four grades, the rest ignored; else building or not."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((2, 512, 512), IGNORED if graded else 0)
    for image in labels:
        for _ in range(40):
            top, left, grade = torch.randint(0, 488, (3,), generator=generator).tolist()
            image[top : top + 24, left : left + 24] = grade % 4 if graded else 1
    return labels


def loss(ours: bool, graded: bool) -> Work:
    """Forward and backward."""
    labels = buildings(graded)
    probs = torch.randn(2, 4 if graded else 2, 512, 512, generator=torch.Generator().manual_seed(1)).softmax(1)
    probs.requires_grad_()

    def work() -> float:
        probs.grad = None
        value = (lovasz_softmax if ours else one_sort_per_class)(probs, labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    return work


def one_pass_per_class(localization: Tensor, damage: Tensor, target: Tensor) -> list[int]:
    """True and false positives and false negatives as the official scorer counts them, class by class."""
    target = torch.where(target == IGNORED, 1, target)
    damage = torch.where(localization > 0, damage, 0)
    pairs = [(localization > 0, target > 0)]
    pairs += [((damage == c) & (target > 0), target == c) for c in range(1, 5)]
    return [int(count) for p, t in pairs for count in ((p & t).sum(), (p & ~t).sum(), (~p & t).sum())]


def counts(ours: bool) -> Work:
    """The counts of one 1024 x 1024 scene."""
    generator = torch.Generator().manual_seed(0)
    damage, target = torch.randint(0, 5, (2, 1, 1024, 1024), generator=generator).to(torch.uint8)
    target[:, :40, :40] = IGNORED
    masks = (damage.clamp(max=1), damage, target)
    return lambda: joint_counts(*masks) if ours else one_pass_per_class(*masks)


def main() -> None:
    """Prints three tables."""
    for name, work in (
        ("Lovász, damage: 4 classes, 92 % ignored", functools.partial(loss, graded=True)),
        ("Lovász, localization: 2 classes, none ignored", functools.partial(loss, graded=False)),
        ("counts of a 1024 x 1024 scene", counts),
    ):
        usual = "one pass per class" if work is counts else "one sort per class"
        variants = {usual: functools.partial(work, False), "ours": functools.partial(work, True)}
        print(f"\n{name}\n\n{table(side_by_side(variants, 15))}")


if __name__ == "__main__":
    main()
