"""The xView2 score against the official scorer's output, and against plain loops."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.metric import XView2Score
from model.score import absent_grades, confusion, joint_counts, present_score
from tests.comparing import read_png
from tests.paths import GOLDEN

Mask = npt.NDArray[np.uint8]
KEYS = [
    "score",
    "localization_f1",
    "damage_f1",
    "damage_f1_no_damage",
    "damage_f1_minor_damage",
    "damage_f1_major_damage",
    "damage_f1_destroyed",
]
CASES = sorted((GOLDEN / "scoring").iterdir())


def score_by_loops(localization: Mask, damage: Mask, target: Mask) -> dict[str, float]:
    """The official rules, one class at a time; masks of any shape, target 0-4."""

    def f1(predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> float:
        hits = int((predicted & actual).sum())
        return 2 * hits / int(predicted.sum() + actual.sum()) if hits else 0.0

    score = {"localization_f1": f1(localization > 0, target > 0)}
    zeroed = np.where(localization > 0, damage, 0)[target > 0]
    graded = target[target > 0]
    reciprocals = 0.0
    for grade, name in enumerate(("no_damage", "minor_damage", "major_damage", "destroyed"), start=1):
        score[f"damage_f1_{name}"] = f1(zeroed == grade, graded == grade)
        reciprocals += 1 / (score[f"damage_f1_{name}"] + 1e-6)
    score["damage_f1"] = 4 / reciprocals
    score["score"] = 0.3 * score["localization_f1"] + 0.7 * score["damage_f1"]
    return score


def as_floats(score: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in score.items()}


def random_masks(seed: int, shape: tuple[int, ...] = (2, 24, 20)) -> tuple[Mask, Mask, Mask]:
    """localization, damage, and a target with un-classified pixels; related enough for scores well above 0."""
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array([0, 0, 0, 1, 2, 3, 4, 255], np.uint8), shape)
    noise = rng.random(shape)
    damage = np.where(noise < 0.6, target % 255, rng.integers(0, 5, shape)).astype(np.uint8)
    localization = np.where(noise > 0.2, target > 0, rng.integers(0, 2, shape)).astype(np.uint8)
    return localization, damage, target


def tensors(*masks: Mask) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(mask.copy()) for mask in masks)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_key_equals_the_official_scorer(case: Path) -> None:
    metric = XView2Score()
    targets = sorted((case / "targets").glob("*_damage_*_target.png"))
    assert targets
    for target in targets:
        damage = case / "predictions" / target.name.replace("_target", "_prediction")
        localization = damage.with_name(damage.name.replace("_damage_", "_localization_"))
        metric.update(*(part[None] for part in tensors(*map(read_png, (localization, damage, target)))))
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    assert as_floats(metric.compute()) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_loops_of_this_file_equal_the_official_scorer(case: Path) -> None:
    """Other tests judge by these loops, so they are judged here."""
    parts = []
    for folder, name in (
        ("predictions", "localization_*_prediction"),
        ("predictions", "damage_*_prediction"),
        ("targets", "damage_*_target"),
    ):
        parts.append(np.stack([read_png(path) for path in sorted((case / folder).glob(f"*_{name}.png"))]))
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    assert score_by_loops(*parts) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("unclassified_as", [1, 0, 4, None])
@pytest.mark.parametrize("seed", range(5))
def test_score_equals_plain_loops_over_the_classes(seed: int, unclassified_as: int | None) -> None:
    localization, damage, target = random_masks(seed)
    metric = XView2Score(unclassified_as)
    metric.update(*tensors(localization, damage, target))
    if unclassified_as is None:
        kept = target != 255
        localization, damage, target = localization[kept], damage[kept], target[kept]
    else:
        target = np.where(target == 255, np.uint8(unclassified_as), target)
    expected = score_by_loops(localization, damage, target)
    assert min(expected.values()) > 0.05  # else the comparison would say nothing
    assert as_floats(metric.compute()) == pytest.approx(expected, rel=0, abs=1e-12)


def test_damage_outside_the_predicted_buildings_does_not_count() -> None:
    localization, damage, target = tensors(*random_masks(1))
    zeroed = damage * (localization > 0)
    with_noise, without = XView2Score(), XView2Score()
    with_noise.update(localization, damage, target)
    without.update(localization, zeroed, target)
    assert not torch.equal(damage, zeroed)
    assert as_floats(with_noise.compute()) == as_floats(without.compute())


def test_a_perfect_prediction_scores_one_up_to_the_scorers_epsilon() -> None:
    target = torch.arange(5).repeat(1, 4, 3)
    metric = XView2Score()
    metric.update((target > 0).int(), target, target)
    score = as_floats(metric.compute())
    assert score["localization_f1"] == 1
    assert score["damage_f1"] == pytest.approx(1 + 1e-6, abs=1e-12)


NAMES = ("no_damage", "minor_damage", "major_damage", "destroyed")


@pytest.mark.parametrize("grades", [c for n in range(5) for c in itertools.combinations(range(1, 5), n)], ids=str)
def test_the_score_of_the_present_grades_is_the_official_rule_over_those_alone(grades: tuple[int, ...]) -> None:
    """A perfect prediction gets 1 for whichever grades there are, where the official rule gives 0.3."""
    target = np.resize(np.array([0, *grades], np.uint8), (1, 9, 20))
    rng = np.random.default_rng(sum(grades))
    noisy = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 5, target.shape)).astype(np.uint8)
    for damage in (target, noisy):
        localization = (damage > 0).astype(np.uint8)
        parts = tensors(localization, damage, target)
        counts = joint_counts(parts[0], parts[1], parts[2])
        assert absent_grades(counts) == [name for grade, name in enumerate(NAMES, start=1) if grade not in grades]
        official, found = score_by_loops(localization, damage, target), present_score(counts)
        terms = [1 / (official[f"damage_f1_{NAMES[grade - 1]}"] + 1e-6) for grade in grades]
        mean = len(terms) / sum(terms) if terms else 0.0
        assert found["damage_f1_present"] == pytest.approx(mean, rel=1e-12)
        expected = 0.3 * official["localization_f1"] + 0.7 * mean
        assert found["score_present"] == pytest.approx(expected, rel=1e-12)
        if grades and damage is target:
            assert found["score_present"] == pytest.approx(1, abs=1e-6)
            assert len(grades) == 4 or official["score"] < 0.30001


def test_a_prediction_of_nothing_gives_numbers_and_not_nan() -> None:
    empty = torch.zeros(1, 8, 8, dtype=torch.uint8)
    metric = XView2Score()
    metric.update(empty, empty, empty)
    assert as_floats(metric.compute()) == pytest.approx(
        dict.fromkeys(KEYS, 0.0) | {"damage_f1": 1e-6, "score": 7e-7}, rel=0, abs=1e-12
    )


@given(st.integers(0, 2**20), st.lists(st.integers(1, 11), max_size=4))
def test_batches_of_any_size_sum_to_the_whole(seed: int, cuts: list[int]) -> None:
    parts = tensors(*random_masks(seed, (12, 6, 5)))
    whole, split = XView2Score(), XView2Score()
    whole.update(*parts)
    borders = [0, *sorted(set(cuts)), 12]
    for start, stop in itertools.pairwise(borders):
        split.update(*(part[start:stop] for part in parts))
    assert as_floats(whole.compute()) == as_floats(split.compute())


def test_forward_gives_the_batch_and_compute_everything() -> None:
    first, second = tensors(*random_masks(3)), tensors(*random_masks(4))
    metric, alone, both = XView2Score(), XView2Score(), XView2Score()
    metric(*first)
    alone.update(*second)
    both.update(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    assert as_floats(metric(*second)) == as_floats(alone.compute())
    assert as_floats(metric.compute()) == as_floats(both.compute())
    metric.reset()
    metric.update(*second)
    assert as_floats(metric.compute()) == as_floats(alone.compute())


def test_the_keys_stand_in_the_order_of_the_contract_and_are_float64() -> None:
    metric = XView2Score()
    metric.update(*tensors(*random_masks(5)))
    score = metric.compute()
    assert list(score) == KEYS
    assert {value.dtype for value in score.values()} == {torch.float64}


@pytest.mark.parametrize("unclassified_as", [1, None])
def test_confusion_matrix_counts_pixels_by_target_and_prediction(unclassified_as: int | None) -> None:
    localization, damage, target = random_masks(6)
    parts = [torch.from_numpy(mask) for mask in (localization, damage, target)]
    counts = joint_counts(parts[0], parts[1], parts[2], unclassified_as)
    matrix = confusion(counts)
    kept = np.full(target.shape, True) if unclassified_as is not None else target != 255
    actual = np.where(target == 255, 1, target)
    predicted = np.where(localization > 0, damage, 0)
    for a in range(5):
        for p in range(5):
            assert matrix[a, p] == (kept & (actual == a) & (predicted == p)).sum()


def test_shapes_that_differ_are_refused() -> None:
    zeros = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\(1, 4, 5\).*one shape"):
        XView2Score().update(zeros, torch.zeros(1, 4, 5, dtype=torch.uint8), zeros)


@pytest.mark.parametrize("argument", ["localization", "damage", "target"])
@pytest.mark.parametrize("value", [5, -1, 254])
def test_values_that_are_no_class_are_refused(argument: str, value: int) -> None:
    masks = {name: torch.zeros(1, 4, 4, dtype=torch.int64) for name in ("localization", "damage", "target")}
    masks[argument][0, 2, 3] = value
    with pytest.raises(ValueError, match=f"{argument} has values .*{value}.*expected 0 to 4"):
        XView2Score().update(**masks)


@pytest.mark.parametrize("argument", ["localization", "damage"])
def test_un_classified_is_no_prediction(argument: str) -> None:
    masks = {name: torch.zeros(1, 4, 4, dtype=torch.uint8) for name in ("localization", "damage", "target")}
    masks[argument][0, 0, 0] = 255
    with pytest.raises(ValueError, match=f"{argument} has values 0 to 255"):
        XView2Score().update(**masks)


def test_a_refused_batch_leaves_the_sums_alone() -> None:
    good, metric = tensors(*random_masks(7)), XView2Score()
    metric.update(*good)
    before = as_floats(metric.compute())
    with pytest.raises(ValueError, match="damage has values"):
        metric.update(good[0], good[1] + 9, good[2])
    assert as_floats(metric.compute()) == before
