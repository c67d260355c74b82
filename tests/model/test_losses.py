"""The loss: what teaches which head, and its terms against plain formulas."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.params import load_params
from model.dual_hrnet import DualLogits
from model.losses import dual_loss
from model.lovasz import lovasz_softmax
from model.settings import TrainSettings


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    return load_params(params_file).train


def random_logits() -> DualLogits:
    generator = torch.Generator().manual_seed(1)
    return DualLogits(
        torch.randn(1, 2, 16, 16, generator=generator, requires_grad=True),
        torch.randn(1, 4, 16, 16, generator=generator, requires_grad=True),
    )


def quartered_mask() -> Tensor:
    """64 x 64: background, buildings of grades 1-4, un-classified; each quarter far larger than a logit's reach."""
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, :32, 32:48], mask[:, :32, 48:] = 1, 2
    mask[:, 32:, :16], mask[:, 32:, 16:32] = 3, 4
    mask[:, 32:, 32:] = 255
    return mask


def inner(gradient: Tensor | None, top: int, left: int) -> Tensor:
    """Gradient of the logits whose pixels all lie inside the quarter at (top, left), in logits."""
    assert gradient is not None
    return gradient[:, :, top + 1 : top + 7, left + 1 : left + 7]


# Terms that are added to the paper's loss.
TERMS: list[dict[str, float]] = [{}, {"damage_cross_entropy": 0.3}]


@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_un_classified_pixels_teach_neither_head_and_background_teaches_no_damage(
    settings: TrainSettings, terms: dict[str, float]
) -> None:
    logits, settings = random_logits(), dataclasses.replace(settings, **terms)  # type: ignore[arg-type]
    dual_loss(logits, quartered_mask(), settings).total.backward()  # type: ignore[no-untyped-call]
    for head in logits:
        assert not inner(head.grad, 8, 8).any()  # un-classified
        assert inner(head.grad, 0, 8).any()  # grades 1 and 2
        assert inner(head.grad, 8, 0).any()  # grades 3 and 4
    assert inner(logits.localization.grad, 0, 0).any()  # background
    assert not inner(logits.damage.grad, 0, 0).any()


@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_changed_logits_on_ignored_pixels_change_no_loss(settings: TrainSettings, terms: dict[str, float]) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, **terms)  # type: ignore[arg-type]
    before = dual_loss(logits, mask, settings)
    with torch.no_grad():
        logits.localization[:, 0, 9:15, 9:15] += 50
        logits.damage[:, 2, 9:15, 9:15] += 50
        logits.damage[:, 3, 1:7, 1:7] += 50
    after = dual_loss(logits, mask, settings)
    assert torch.equal(before.localization, after.localization)
    assert torch.equal(before.damage, after.damage)


def test_loss_is_localization_plus_weighted_damage_at_full_resolution(settings: TrainSettings) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, damage_weight=0.25, class_weights=(0.4, 1.2, 1.2, 1.2))
    losses = dual_loss(logits, mask, settings)
    probs = [
        torch.nn.functional.interpolate(head.softmax(1), scale_factor=4, mode="bilinear", align_corners=False)
        for head in logits
    ]
    target = mask.long()
    building = torch.where(target == 255, 255, (target > 0).long())
    grade = torch.where((target == 0) | (target == 255), 255, target - 1)
    localization = lovasz_softmax(probs[0], building)
    damage = lovasz_softmax(probs[1], grade, class_weights=[0.4, 1.2, 1.2, 1.2])
    torch.testing.assert_close(losses.localization, localization)
    torch.testing.assert_close(losses.damage, damage)
    torch.testing.assert_close(losses.total, localization + 0.25 * damage)


@pytest.mark.parametrize("weights", [None, (0.4, 1.2, 2.0, 0.5)])
def test_cross_entropy_is_a_weighted_mean_over_graded_pixels(
    settings: TrainSettings, weights: tuple[float, ...] | None
) -> None:
    logits, mask = random_logits(), quartered_mask()
    settings = dataclasses.replace(settings, class_weights=weights)
    without = dual_loss(logits, mask, settings).damage
    with_it = dual_loss(logits, mask, dataclasses.replace(settings, damage_cross_entropy=0.3)).damage
    probs = torch.nn.functional.interpolate(logits.damage.softmax(1), scale_factor=4, mode="bilinear")[0].double()
    total = norm = 0.0
    for grade in range(1, 5):
        weight = 1.0 if weights is None else weights[grade - 1]
        chosen = probs[grade - 1][mask[0] == grade]
        total += weight * float(-chosen.detach().log().sum())
        norm += weight * len(chosen)
    assert (with_it - without).item() == pytest.approx(0.3 * total / norm, rel=1e-4)


def test_terms_without_a_graded_pixel_are_zero_and_not_nan(settings: TrainSettings) -> None:
    settings = dataclasses.replace(settings, damage_cross_entropy=0.3)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, 32:] = 255
    assert dual_loss(random_logits(), mask, settings).damage.item() == 0


def test_confident_right_logits_cost_next_to_nothing(settings: TrainSettings) -> None:
    mask = quartered_mask()[:, ::4, ::4].long()
    one_hot = torch.nn.functional.one_hot
    building = one_hot((mask > 0).long(), 2).permute(0, 3, 1, 2) * 100.0
    damage = one_hot((mask.clamp(1, 4) - 1), 4).permute(0, 3, 1, 2) * 100.0
    right = dual_loss(DualLogits(building, damage), quartered_mask(), settings)
    wrong = dual_loss(DualLogits(-building, damage.roll(1, 1)), quartered_mask(), settings)
    assert right.total.item() < 0.35  # borders between logits are blurred
    assert wrong.total.item() > 1.8
