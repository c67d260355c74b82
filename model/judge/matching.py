"""Buildings found and graded right, counted by building: the same for a hut as for a hall.

The score counts pixels, so that one hall weighs more than a street of houses. Here a predicted building counts as
found where it and a labelled one overlap in more than half of their union. No building can do so with two others, so
that there is nothing to choose: the matching is unique, and greedy or best matching would give the same.
Source of the proof: Kirillov et al., "Panoptic Segmentation", section 4.1; https://arxiv.org/abs/1801.00868
"""

import cv2
import numpy as np
import numpy.typing as npt

from base.grades import KEYS, UNCLASSIFIED
from model.buildings import Labels, Mask
from model.score import LOCALIZATION

Counts = npt.NDArray[np.int64]
_CLASSES = 5  # none and the four grades


def labelled_buildings(target: Mask) -> tuple[Labels, Mask]:
    """Single buildings of a target mask [H, W] of 0-4 and 255: parts of one class that hang together by sides.

    Returns their numbers from 1, [H, W], and the class of each number, uint8 [N + 1]. A mask does not tell touching
    buildings of one grade apart, and an overlap cuts buildings: of the 2,917 polygons of 32 real scenes, 2,747 are
    found again by the rule above.
    """
    labels = np.zeros(target.shape, np.int32)
    classes = [0]
    for value in np.unique(target[target > 0]).tolist():
        count, parts = cv2.connectedComponents((target == value).view(np.uint8), connectivity=4)
        labels += np.where(parts > 0, parts + (len(classes) - 1), 0).astype(np.int32)
        classes += [value] * (count - 1)
    return labels, np.array(classes, np.uint8)


def match_buildings(labels: Labels, grades: Mask, target: Mask, unclassified_as: int | None) -> Counts:
    """Counts a scene's buildings: [5, 5] (labelled, predicted), 0 standing for none: not labelled, not predicted.

    labels: [H, W] predicted buildings; grades: of each number, see `model.buildings.Grading`.
    target: [H, W] of 0-4 and 255, which counts as `unclassified_as`; None leaves those buildings out, and predicted
    ones that lie on them by more than half.
    """
    actual, classes = labelled_buildings(target)
    areas = np.bincount(labels.ravel(), minlength=len(grades))
    actual_areas = np.bincount(actual.ravel(), minlength=len(classes))
    counted = areas > 0
    if unclassified_as is None:
        hidden = np.bincount(labels[target == UNCLASSIFIED], minlength=len(grades))
        counted &= 2 * hidden <= areas
    counted[0] = False
    known = np.where(classes == UNCLASSIFIED, np.uint8(unclassified_as or 0), classes)

    both = (labels > 0) & (known[actual] > 0)
    pairs, overlaps = np.unique(labels[both].astype(np.int64) * len(classes) + actual[both], return_counts=True)
    predicted, labelled = np.divmod(pairs, len(classes))
    unions = areas[predicted] + actual_areas[labelled] - overlaps
    found = 2 * overlaps > unions
    predicted, labelled = predicted[found], labelled[found]

    counts = np.zeros((_CLASSES, _CLASSES), np.int64)
    np.add.at(counts, (known[labelled], grades[predicted]), 1)
    counted[predicted] = False
    counts[0] += np.bincount(grades[counted], minlength=_CLASSES)
    missed = known > 0
    missed[labelled] = False
    counts[:, 0] += np.bincount(known[missed], minlength=_CLASSES)
    return counts


def building_scores(counts: Counts) -> dict[str, dict[str, float]]:
    """Counts of `match_buildings` to precision, recall and f1: of localization (found at all) and of each grade.

    A building counts for its grade where it is found and graded right. 0 where nothing was hit.
    """
    hits = {LOCALIZATION: counts[1:, 1:].sum()} | {name: counts[i, i] for i, name in enumerate(KEYS, start=1)}
    predicted = {LOCALIZATION: counts[:, 1:].sum()} | dict(zip(KEYS, counts.sum(0)[1:], strict=True))
    labelled = {LOCALIZATION: counts[1:].sum()} | dict(zip(KEYS, counts.sum(1)[1:], strict=True))
    return {
        "precision": {name: float(hit / max(1, predicted[name])) for name, hit in hits.items()},
        "recall": {name: float(hit / max(1, labelled[name])) for name, hit in hits.items()},
        "f1": {name: float(2 * hit / max(1, predicted[name] + labelled[name])) for name, hit in hits.items()},
    }
