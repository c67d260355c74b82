"""Training's numbers: precision, accumulated gradients, batches without a class, deterministic runs."""

import copy
import dataclasses
from pathlib import Path
from typing import Literal, cast

import pytest
import torch
from torch import Tensor

from components.params import load_params
from model.dual_hrnet import DualHRNet, DualLogits
from model.inference import normalize
from model.losses import dual_loss
from model.settings import TrainSettings
from model.train.training import _accumulate_gradients, train
from tests.comparing import assert_close
from tests.tiny import ALONE, SMALL
from xbd.dataset import Sample


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    return load_params(params_file).train


def batch(pairs: int, size: int = 64) -> Sample:
    """Random images; in each mask background, buildings of grades that differ from pair to pair, un-classified."""
    generator = torch.Generator().manual_seed(8)
    pre, post = torch.randint(0, 256, (2, pairs, 3, size, size), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(pairs, size, size, dtype=torch.uint8)
    for i in range(pairs):
        mask[i, : size // 2, : size // 2] = 1 + i % 4
        mask[i, size // 2 :, : size // 4] = 1 + (i + 1) % 4
        mask[i, size // 2 :, size // 2 :] = 255
    return Sample(pre, post, mask)


def gradients(model: DualHRNet) -> dict[str, Tensor]:
    return {name: cast(Tensor, parameter.grad) for name, parameter in model.named_parameters()}


def assert_gradients_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """But for rounding, which the way back carries from layer to layer: 2**-15 of the largest of all gradients."""
    assert found.keys() == expected.keys()
    one, other = (torch.cat([part[name].flatten() for name in expected]) for part in (found, expected))
    assert_close(one, other, 2**-15)


def test_accumulated_gradients_are_those_of_the_mean_loss_of_the_passes(settings: TrainSettings) -> None:
    """Four passes of one pair against one pass of four, each pair with its own loss; batch norm frozen."""
    torch.manual_seed(0)
    one_by_one = DualHRNet(**SMALL).eval()
    together = copy.deepcopy(one_by_one)
    sample = batch(4)
    found = _accumulate_gradients(one_by_one, sample, dataclasses.replace(settings, device_batch_size=1)).mean(0)

    logits = together(normalize(sample.pre), normalize(sample.post))
    losses = [
        dual_loss(DualLogits(*(part[i : i + 1] for part in logits)), sample.mask[i : i + 1], settings) for i in range(4)
    ]
    total = torch.stack([loss.total for loss in losses]).mean()
    total.backward()  # type: ignore[no-untyped-call]
    assert found[0] == pytest.approx(total.item(), rel=1e-5)
    assert found[1] + settings.damage_weight * found[2] == pytest.approx(total.item(), rel=1e-5)
    assert_gradients_close(gradients(one_by_one), gradients(together))


def test_gradients_accumulate_over_any_division_alike_where_pairs_decompose(settings: TrainSettings) -> None:
    """Pairs that are all the same: then the loss of a pass does not depend on which and how many pairs it has."""
    torch.manual_seed(0)
    base = DualHRNet(**SMALL).eval()
    sample = Sample(*(part.repeat(4, *[1] * (part.ndim - 1)) for part in batch(1)))
    reference: dict[str, Tensor] = {}
    for size in (4, 2, 1):
        model = copy.deepcopy(base)
        _accumulate_gradients(model, sample, dataclasses.replace(settings, device_batch_size=size))
        reference = reference or gradients(model)
        assert_gradients_close(gradients(model), reference)


def test_the_loss_is_taken_in_float32_under_autocast(settings: TrainSettings) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = DualLogits(*(torch.randn(4, c, 16, 16, generator=generator).bfloat16().requires_grad_() for c in (2, 4)))
    mask = batch(4).mask
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dual_loss(logits, mask, settings)
    expected = dual_loss(DualLogits(*(part.float() for part in logits)), mask, settings)
    assert found.total.dtype == torch.float32
    assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_in_either_precision_stay_finite_and_keep_float32_weights(
    settings: TrainSettings, precision: Literal["float32", "bfloat16"]
) -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
    changed = dataclasses.replace(settings, precision=precision, device_batch_size=2)
    for _ in range(3):
        optimizer.zero_grad()
        assert _accumulate_gradients(model, batch(4, 32), changed).isfinite().all()
        optimizer.step()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("value", [0, 1, 4, 255])
@pytest.mark.parametrize("cross_entropy", [0.0, 0.3])
def test_a_batch_of_one_class_has_a_finite_loss_and_finite_gradients(
    settings: TrainSettings, value: int, cross_entropy: float
) -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).train()
    sample = batch(2)
    sample.mask.fill_(value)
    changed = dataclasses.replace(settings, device_batch_size=2, damage_cross_entropy=cross_entropy)
    losses = _accumulate_gradients(model, sample, changed)[0]
    assert losses.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    if value == 255:
        assert not losses.any()
        assert not any(gradient.any() for gradient in gradients(model).values())
    if value == 0:
        assert losses[2] == 0


@pytest.mark.slow
def test_a_deterministic_run_gives_the_usual_weights_on_a_cpu(
    settings: TrainSettings, prepared: Path, tmp_path: Path
) -> None:
    try:
        for name, deterministic in (("strict", True), ("usual", False)):
            train(prepared, tmp_path / name, dataclasses.replace(settings, deterministic=deterministic), ALONE)
            assert torch.are_deterministic_algorithms_enabled() is deterministic
    finally:
        torch.use_deterministic_algorithms(False)
    strict, usual = (tmp_path / name / "model" / "model.safetensors" for name in ("strict", "usual"))
    assert strict.read_bytes() == usual.read_bytes()
