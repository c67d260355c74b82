"""All that a model is judged by, added up scene by scene: what it keeps is counts, however many pixels go by.

The official score is taken twice, of the damage map as the network gives it and with one grade a building; one of the
two is the result, as `evaluate.per_building` says.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from base.grades import GRADES, UNCLASSIFIED
from model.buildings import Grading, grade, separate
from model.calibration.errors import Confidence, undo
from model.inference import Prediction, Probabilities
from model.judge.matching import building_scores, match_buildings
from model.networks.pair_network import Temperatures
from model.score import (
    absent_grades,
    confusion,
    joint_counts,
    no_counts,
    precision_recall,
    present_score,
    scene_score,
    xview2_score,
)
from xbd.scenes import SceneRecord

GROUPS = ("disaster", "disaster_type", "split")  # columns of the index by which the score is also stated


class SceneResult(NamedTuple):
    """A scene's share of the result. scores: see `scene_score`; confusion: int64 [5, 5] pixels (target, prediction)."""

    record: SceneRecord
    scores: dict[str, float] | None
    confusion: Tensor


def vote(prediction: Prediction, probabilities: Probabilities) -> Grading:
    """The single buildings of one scene's prediction, each part [1, ..., H, W] and on the CPU, with their grades."""
    return grade(separate(prediction.localization[0].numpy()), probabilities.damage[0].numpy())


class Evaluation:
    """Judges predictions one scene at a time.

    per_building: whether the result has one grade a building. unclassified_as: see `joint_counts`. temperatures: by
    which the model's logits were divided.
    """

    def __init__(
        self, per_building: bool, unclassified_as: int | None, temperatures: Temperatures | None = None
    ) -> None:
        self.per_building, self.unclassified_as, self.temperatures = per_building, unclassified_as, temperatures
        self.scenes: list[SceneResult] = []
        self.counts = no_counts()
        self._other_counts = no_counts()
        self._groups: dict[tuple[str, str], Tensor] = defaultdict(no_counts)
        self._buildings: npt.NDArray[np.int64] = np.zeros((5, 5), np.int64)
        self._confidence = Confidence()
        self._uncalibrated = Confidence()  # the same before the logits were divided

    def add(
        self, record: SceneRecord, prediction: Prediction, probabilities: Probabilities, target: Tensor
    ) -> Prediction:
        """Adds a scene, each part [1, ..., H, W] and on the CPU; target: uint8 of 0-4 and 255.

        Returns what was scored: the prediction, with one grade a building if that is the result.
        """
        grading = vote(prediction, probabilities)
        self._buildings += match_buildings(grading.labels, grading.grades, target[0].numpy(), self.unclassified_as)
        self._calibrate(probabilities, target)

        scored, other = self._both(prediction, grading)
        self._other_counts += joint_counts(*other, target, self.unclassified_as)
        counts = joint_counts(*scored, target, self.unclassified_as)
        self.counts += counts
        for column in GROUPS:
            self._groups[column, getattr(record, column)] += counts
        self.scenes.append(SceneResult(record, scene_score(counts), confusion(counts)))
        return scored

    def scored(self, prediction: Prediction, grading: Grading) -> Prediction:
        """What is scored of a scene: the prediction, with one grade a building if that is the result."""
        return self._both(prediction, grading)[0]

    def _both(self, prediction: Prediction, grading: Grading) -> tuple[Prediction, Prediction]:
        """What is scored, and what stands beside it."""
        voted = prediction._replace(damage=torch.from_numpy(grading.damage)[None])
        return (voted, prediction) if self.per_building else (prediction, voted)

    def confusion_shares(self) -> list[list[float]]:
        """For each target class 0-4 the share of its pixels that was predicted as each class; 0 where it has none."""
        pixels = confusion(self.counts).double()
        shares: list[list[float]] = (pixels / pixels.sum(1, keepdim=True).clamp(min=1)).tolist()
        return shares

    def reliability(self) -> dict[str, tuple[list[float], list[float]]]:
        """By part: mean confidence and share of right pixels, of each bin of confidences that has pixels."""
        return self._confidence.curves()

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: the official keys first, then what stands beside them."""
        official, other = _official(self.counts), _official(self._other_counts)
        per_pixel, per_building = (other, official) if self.per_building else (official, other)
        buildings, errors = building_scores(self._buildings), self._confidence.errors()
        before = errors if self.temperatures is None else self._uncalibrated.errors()
        return {
            **official,
            **_present(self.counts),
            "scenes": len(self.scenes),
            "score_per_pixel": per_pixel["score"],
            "score_per_building": per_building["score"],
            "building_f1": buildings["f1"]["localization"],
            "localization_calibration_error": errors["localization"],
            "damage_calibration_error": errors["damage"],
            "calibration": {part: {"before": before[part], "after": error} for part, error in errors.items()},
            **precision_recall(self.counts),
            "buildings": buildings,
            "per_pixel": per_pixel,
            "per_building": per_building,
            **{
                f"per_{column}": {
                    name: {**_official(counts), **_present(counts), "scenes": self._count(column, name)}
                    for (of, name), counts in sorted(self._groups.items())
                    if of == column
                }
                for column in GROUPS
            },
        }

    def _count(self, column: str, name: str) -> int:
        return sum(getattr(scene.record, column) == name for scene in self.scenes)

    def _calibrate(self, probabilities: Probabilities, target: Tensor) -> None:
        """Localization on all pixels that count, damage on those of labelled buildings."""
        target, building, damage = (
            target.flatten(),
            probabilities.building.flatten(),
            probabilities.damage.flatten(2)[0],
        )
        unclassified = target == UNCLASSIFIED
        if self.unclassified_as is None:
            known = ~unclassified
            target, building, damage = target[known], building[known], damage[:, known]
        else:
            target = target.masked_fill(unclassified, self.unclassified_as)
        # Of the grades alone, also where the localization saw no building: it is judged by itself.
        damage, truth = damage[:, target > 0], target > 0
        self._confidence.add_buildings(building, truth)
        self._confidence.add_grades(damage, target[truth])
        if self.temperatures is not None:
            building, damage = undo(self.temperatures, building, damage)
            self._uncalibrated.add_buildings(building, truth)
            self._uncalibrated.add_grades(damage, target[truth])


def describe_absence(metrics: Mapping[str, Any]) -> str:
    """The sentence for people about grades that the scored scenes lack; empty where they have all."""
    absent = metrics["absent_grades"]
    if not absent:
        return ""
    labels = " or ".join(grade.label for grade in GRADES if grade.key in absent)
    return (
        f"no pixel of {labels} in these scenes: by the official rule damage_f1 is then about 0 and the score at most "
        "0.3, whatever the model finds; damage_f1_present and score_present are taken over the grades that are there"
    )


def _official(counts: Tensor) -> dict[str, float]:
    return {key: float(value) for key, value in xview2_score(counts).items()}


def _present(counts: Tensor) -> dict[str, Any]:
    """What stands beside the official score because a grade may be absent."""
    return {**present_score(counts), "absent_grades": absent_grades(counts)}
