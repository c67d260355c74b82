"""What stands beside the official score: precision and recall, and a scene's own score, against plain loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from base.grades import KEYS
from model.score import joint_counts, precision_recall, scene_score
from tests.comparing import read_png
from tests.model.test_metric import CASES, Mask, random_masks, score_by_loops, tensors

NAMES = ("localization", *KEYS)


def rates_by_loops(localization: Mask, damage: Mask, target: Mask) -> dict[str, dict[str, float]]:
    """Precision and recall, one class at a time; 0 where nothing was hit."""
    graded = target > 0
    zeroed = np.where(localization > 0, damage, 0)[graded]
    pairs = {"localization": (localization > 0, graded)}
    pairs |= {name: (zeroed == grade, target[graded] == grade) for grade, name in enumerate(KEYS, start=1)}
    hits = {name: int((predicted & actual).sum()) for name, (predicted, actual) in pairs.items()}
    return {
        kind: {name: hits[name] / int(pairs[name][part].sum()) if hits[name] else 0.0 for name in NAMES}
        for part, kind in enumerate(("precision", "recall"))
    }


def count(localization: Mask, damage: Mask, target: Mask) -> Tensor:
    parts = tensors(localization, damage, target)
    return joint_counts(parts[0], parts[1], parts[2])


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_equal_plain_loops(seed: int) -> None:
    localization, damage, target = random_masks(seed)
    found = precision_recall(count(localization, damage, target))
    expected = rates_by_loops(localization, damage, np.where(target == 255, 1, target).astype(np.uint8))
    assert list(found) == ["precision", "recall"]
    for kind in found:
        assert list(found[kind]) == list(NAMES)
        assert found[kind] == pytest.approx(expected[kind], rel=0, abs=1e-12)
        assert min(found[kind].values()) > 0.05  # else the comparison would say nothing


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_precision_and_recall_give_the_official_f1(case: Path) -> None:
    """Also where a class is absent from the targets, or nothing is predicted: then they and F1 are 0."""
    counts = torch.zeros(2, 5, 5, dtype=torch.int64)
    for target in sorted((case / "targets").glob("*_damage_*_target.png")):
        damage = case / "predictions" / target.name.replace("_target", "_prediction")
        localization = damage.with_name(damage.name.replace("_damage_", "_localization_"))
        counts += count(*map(read_png, (localization, damage, target)))
    rates = precision_recall(counts)
    official = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    for name in NAMES:
        precision, recall = rates["precision"][name], rates["recall"][name]
        f1 = 2 * precision * recall / (precision + recall) if precision else 0.0
        key = "localization_f1" if name == "localization" else f"damage_f1_{name}"
        assert f1 == pytest.approx(official[key], rel=0, abs=1e-9)


def test_a_scene_with_all_grades_has_the_official_score() -> None:
    localization, damage, target = random_masks(1)
    expected = score_by_loops(localization, damage, np.where(target == 255, 1, target).astype(np.uint8))
    found = scene_score(count(localization, damage, target))
    assert found == pytest.approx({key: expected[key] for key in found or {}}, rel=0, abs=1e-12)


def test_a_scene_is_judged_by_the_grades_that_it_shows() -> None:
    localization, damage, target = random_masks(2)
    target = np.where(target == 255, 0, np.where(target == 3, 2, target)).astype(np.uint8)
    official = score_by_loops(localization, damage, target)
    assert official["damage_f1"] < 1e-5 < official["damage_f1_minor_damage"]
    shown = [official[f"damage_f1_{name}"] for name in ("no_damage", "minor_damage", "destroyed")]
    expected = 3 / sum(1 / (value + 1e-6) for value in shown)
    found = scene_score(count(localization, damage, target))
    assert found is not None
    assert found["damage_f1"] == pytest.approx(expected, rel=0, abs=1e-12)
    assert found["score"] == pytest.approx(0.3 * official["localization_f1"] + 0.7 * expected, rel=0, abs=1e-12)


def test_a_scene_without_buildings_has_no_score() -> None:
    localization, damage, target = random_masks(3)
    assert scene_score(count(localization, damage, np.zeros_like(target))) is None
