"""The xView2 score, equal to the official scorer's numbers: F1 of localization and of the damage grades.

Source: the challenge's scorer, https://github.com/DIUx-xView/xView2_scoring, revision ea0793d.
"""

import torch
from torch import Tensor

from base.grades import KEYS, UNCLASSIFIED

LOCALIZATION = "localization"  # beside the grades, where a score is stated of both
_CLASSES = 5  # background and the four grades
# The scorer adds this to every F1 before the harmonic mean, so that a grade at 0 gives about 4e-6 and not a crash.
_EPSILON = 1e-6


def no_counts(device: torch.device | None = None) -> Tensor:
    """Where the sum of `joint_counts` starts: zeros, [2, 5, 5] int64."""
    return torch.zeros(2, _CLASSES, _CLASSES, dtype=torch.int64, device=device)


def joint_counts(localization: Tensor, damage: Tensor, target: Tensor, unclassified_as: int | None = 1) -> Tensor:
    """Pixel counts of all combinations of predicted building, predicted grade and target grade.

    localization, damage: [...] integer 0-4 (localization: above 0 is building). target: [...] integer 0-4, or 255,
        which counts as `unclassified_as`; None leaves those pixels out.
    Returns [2, 5, 5] int64: building predicted, damage predicted, target. One bincount of a joint code, because a
        pass for each class costs four times as much.
    Raises ValueError where shapes or values do not fit.
    """
    if not localization.shape == damage.shape == target.shape:
        raise ValueError(
            f"XView2Score: localization {tuple(localization.shape)}, damage {tuple(damage.shape)} and target "
            f"{tuple(target.shape)} must have one shape."
        )
    kept = target != UNCLASSIFIED
    if unclassified_as is None:
        localization, damage, target = localization[kept], damage[kept], target[kept]
    else:
        target = torch.where(kept, target, target.new_tensor(unclassified_as))
    for name, values in (("localization", localization), ("damage", damage), ("target", target)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < _CLASSES:
            raise ValueError(
                f"XView2Score: {name} has values {int(values.min())} to {int(values.max())}, expected 0 to 4."
            )
    # uint8 throughout: the largest code is 49, and an eighth of the memory traffic of int64 is an eighth of the time.
    code = localization.clamp(max=1).to(torch.uint8)
    for values in (damage, target):
        code.mul_(_CLASSES).add_(values.to(torch.uint8))
    return torch.bincount(code.flatten(), minlength=2 * _CLASSES**2).reshape(2, _CLASSES, _CLASSES)


def confusion(counts: Tensor) -> Tensor:
    """[2, 5, 5] joint counts to the confusion matrix [5, 5] int64 (target, prediction), damage zeroed outside
    the predicted buildings, as the scorer does.
    """
    matrix = counts[1].T.clone()
    matrix[:, 0] += counts[0].sum(0)
    return matrix


def xview2_score(counts: Tensor) -> dict[str, Tensor]:
    """[2, 5, 5] joint counts of a whole data set to the official keys, each a float64 scalar."""
    counts = counts.to(torch.float64)
    buildings = counts[:, :, 1:].sum((1, 2))  # target is a building, by predicted localization
    false_buildings = counts[1, :, 0].sum()
    localization = _f1(buildings[1], false_buildings, buildings[0])

    matrix = confusion(counts)[1:]  # only pixels with a target grade count
    scores = []
    for grade in range(1, _CLASSES):
        hits = matrix[grade - 1, grade]
        scores.append(_f1(hits, matrix[:, grade].sum() - hits, matrix[grade - 1].sum() - hits))
    damage = len(KEYS) / sum(1 / (score + _EPSILON) for score in scores)
    return {
        "score": 0.3 * localization + 0.7 * damage,
        "localization_f1": localization,
        "damage_f1": torch.as_tensor(damage),
        **{f"damage_f1_{name}": score for name, score in zip(KEYS, scores, strict=True)},
    }


def precision_recall(counts: Tensor) -> dict[str, dict[str, float]]:
    """[2, 5, 5] joint counts to precision and recall, of localization and of each grade as the scorer counts them:
    grades only on pixels with a target grade. 0 where nothing was hit, as its F1.
    """
    matrix = confusion(counts)[1:]
    hits = {LOCALIZATION: counts[1, :, 1:].sum()}
    predicted, actual = {LOCALIZATION: counts[1].sum()}, {LOCALIZATION: counts[:, :, 1:].sum()}
    for grade, name in enumerate(KEYS, start=1):
        hits[name], predicted[name], actual[name] = (
            matrix[grade - 1, grade],
            matrix[:, grade].sum(),
            matrix[grade - 1].sum(),
        )
    return {
        "precision": {name: float(hit) / max(1, int(predicted[name])) for name, hit in hits.items()},
        "recall": {name: float(hit) / max(1, int(actual[name])) for name, hit in hits.items()},
    }


def absent_grades(counts: Tensor) -> list[str]:
    """Keys of the grades that no target pixel of these [2, 5, 5] joint counts has.

    With one of them the official damage F1 is below 4e-6 and the score at most 0.3, however good the prediction.
    """
    return [name for name, pixels in zip(KEYS, counts.sum((0, 1))[1:], strict=True) if not pixels]


def present_score(counts: Tensor) -> dict[str, float]:
    """[2, 5, 5] joint counts to score_present and damage_f1_present: the official rule over the grades that the targets
    have. Where they have all four it is the official score, and where they have none both are 0.
    """
    official = xview2_score(counts)
    absent = absent_grades(counts)
    present = [float(official[f"damage_f1_{name}"]) for name in KEYS if name not in absent]
    damage = len(present) / sum(1 / (score + _EPSILON) for score in present) if present else 0.0
    score = 0.3 * float(official["localization_f1"]) + 0.7 * damage
    return {"score_present": score, "damage_f1_present": damage}


def scene_score(counts: Tensor) -> dict[str, float] | None:
    """[2, 5, 5] joint counts of one scene to score, localization_f1 and damage_f1, over the grades that the scene has;
    None where it shows no building.

    The official rule, made for a whole data set, takes all four grades, and one scene rarely has them: nearly all would
    get about 0, and none would be better than another.
    """
    if len(absent_grades(counts)) == len(KEYS):
        return None
    present = present_score(counts)
    return {
        "score": present["score_present"],
        "localization_f1": float(xview2_score(counts)["localization_f1"]),
        "damage_f1": present["damage_f1_present"],
    }


def _f1(true_positive: Tensor, false_positive: Tensor, false_negative: Tensor) -> Tensor:
    """F1 from counts; 0 where nothing was hit, as in the scorer."""
    if true_positive == 0:
        return torch.zeros_like(true_positive)
    precision = true_positive / (true_positive + false_positive)
    recall = true_positive / (true_positive + false_negative)
    return 2 * precision * recall / (precision + recall)
