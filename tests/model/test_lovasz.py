"""Lovász-softmax against golden values of the published code, and against its definition by sets."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.lovasz import lovasz_softmax
from tests.paths import GOLDEN


@pytest.mark.parametrize("path", sorted((GOLDEN / "lovasz").glob("*.npz")), ids=lambda path: path.stem)
def test_loss_and_gradient_equal_the_published_code(path: Path) -> None:
    golden = np.load(path)
    probs = torch.tensor(golden["probs"], requires_grad=True)
    weights = golden["class_weights"]
    given_weights = None if (weights == 1).all() else weights.tolist()
    loss = lovasz_softmax(probs, torch.tensor(golden["labels"]), 255, given_weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    assert probs.grad is not None
    # The published code takes differences of Jaccard values, which are up to 1, in float32.
    np.testing.assert_allclose(probs.grad.numpy(), golden["grad"], rtol=0, atol=2**-23)


def test_there_are_golden_values() -> None:
    assert len(list((GOLDEN / "lovasz").glob("*.npz"))) == 5


def jaccard_loss(truth: set[int], wrong: set[int]) -> float:
    """1 - intersection over union, where the pixels in `wrong` are mispredicted."""
    predicted = truth ^ wrong
    return 1 - len(truth & predicted) / len(truth | predicted)


def loss_by_sets(probs: Tensor, labels: Tensor, ignore_index: int) -> float:
    """The Lovász extension is the integral over a threshold t of the Jaccard loss of {pixel: error >= t}."""
    pixels = probs.permute(0, 2, 3, 1).reshape(-1, probs.shape[1]).double().numpy()
    targets = labels.flatten().numpy()
    pixels, targets = pixels[targets != ignore_index], targets[targets != ignore_index]
    losses = []
    for c in sorted(set(targets.tolist())):
        truth = {i for i, target in enumerate(targets) if target == c}
        errors = [1 - p if i in truth else p for i, p in enumerate(pixels[:, c])]
        integral, below = 0.0, 0.0
        for level in sorted(set(errors)):
            wrong = {i for i, error in enumerate(errors) if error >= level}
            integral += (level - below) * jaccard_loss(truth, wrong)
            below = level
        losses.append(integral)
    return float(np.mean(losses)) if losses else 0.0


@st.composite
def small_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """probs [B, C, H, W] and labels [B, H, W] of a few pixels, ties and ignored pixels included."""
    batch, classes = draw(st.integers(1, 2)), draw(st.integers(2, 4))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    logits = torch.randint(-4, 5, (batch, classes, height, width), generator=generator).double() / 2
    labels = draw(
        st.lists(
            st.sampled_from([*range(classes), 255]), min_size=batch * height * width, max_size=batch * height * width
        )
    )
    return torch.softmax(logits, 1), torch.tensor(labels, dtype=torch.uint8).reshape(batch, height, width)


@given(small_batches())
def test_loss_is_the_lovasz_extension_of_the_jaccard_loss(batch: tuple[Tensor, Tensor]) -> None:
    probs, labels = batch
    assert float(lovasz_softmax(probs, labels)) == pytest.approx(loss_by_sets(probs, labels, 255), abs=1e-12)


@given(small_batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_pixels_does_not_matter(batch: tuple[Tensor, Tensor], random: Random) -> None:
    probs, labels = batch
    count = labels.numel()
    order = list(range(count))
    random.shuffle(order)
    flat = probs.permute(1, 0, 2, 3).reshape(probs.shape[1], count)
    shuffled = flat[:, order].reshape(1, probs.shape[1], 1, count)
    expected = float(lovasz_softmax(probs, labels))
    assert float(lovasz_softmax(shuffled, labels.flatten()[order].reshape(1, 1, count))) == pytest.approx(expected)


def test_a_perfect_prediction_costs_nothing() -> None:
    labels = torch.tensor([[[0, 1, 2], [3, 2, 255]]])
    probs = torch.nn.functional.one_hot(labels.clamp(max=3), 4).permute(0, 3, 1, 2).float()
    assert float(lovasz_softmax(probs, labels)) == 0


def test_a_wholly_wrong_prediction_costs_one() -> None:
    labels = torch.tensor([[[0, 1], [1, 0]]])
    probs = torch.nn.functional.one_hot(1 - labels, 2).permute(0, 3, 1, 2).float()
    assert float(lovasz_softmax(probs, labels)) == 1


def test_where_all_is_ignored_loss_and_gradient_are_exactly_zero() -> None:
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    loss = lovasz_softmax(logits.softmax(1), torch.full((2, 5, 6), 255))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


def test_ignored_pixels_get_no_gradient_and_the_others_do() -> None:
    labels = torch.tensor([[[0, 255, 1, 1], [255, 2, 0, 255]]])
    probs = torch.rand(1, 3, 2, 4, generator=torch.Generator().manual_seed(1)).softmax(1).requires_grad_()
    lovasz_softmax(probs, labels).backward()  # type: ignore[no-untyped-call]
    assert probs.grad is not None
    touched = probs.grad.abs().sum(1) > 0
    assert torch.equal(touched, labels != 255)


def test_weights_multiply_the_losses_of_the_classes_present() -> None:
    generator = torch.Generator().manual_seed(2)
    probs = torch.rand(1, 4, 6, 6, generator=generator).softmax(1)
    labels = torch.randint(0, 3, (1, 6, 6), generator=generator)  # class 3 is absent
    alone = [
        float(lovasz_softmax(probs, labels, class_weights=[3.0 if i == c else 0.0 for i in range(4)])) for c in range(3)
    ]
    weighted = float(lovasz_softmax(probs, labels, class_weights=[0.4, 1.2, 2.0, 100.0]))
    assert weighted == pytest.approx((0.4 * alone[0] + 1.2 * alone[1] + 2.0 * alone[2]) / 3, rel=1e-6)


def test_gradients_on_half_a_million_pixels_keep_their_precision() -> None:
    """In float32, differences of neighbouring Jaccard values (about 2e-6 here) would be off by several percent."""
    generator = torch.Generator().manual_seed(3)
    probs = torch.rand(1, 2, 512, 1024, generator=generator).softmax(1)
    labels = torch.randint(0, 2, (1, 512, 1024), generator=generator)
    gradients = []
    for precision in (torch.float32, torch.float64):
        leaf = probs.detach().to(precision, copy=True).requires_grad_()
        lovasz_softmax(leaf, labels).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        gradients.append(leaf.grad.double().flatten())
    relative = (gradients[0] - gradients[1]).abs() / gradients[1].abs().clamp(min=1e-12)
    # Not all: errors that tie in float32 may change places.
    assert float(relative.quantile(0.95)) < 1e-3


@pytest.mark.parametrize(
    ("probs", "labels"),
    [
        ((2, 4, 8, 8), (2, 8, 9)),
        ((2, 4, 8, 8), (1, 8, 8)),
        ((2, 4, 8, 8), (2, 4, 8, 8)),
        ((4, 8, 8), (8, 8)),
        ((5,), (5,)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(probs: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="lovasz_softmax"):
        lovasz_softmax(torch.rand(probs), torch.zeros(labels, dtype=torch.int64))


def test_a_wrong_number_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="3 class weights for 4 classes"):
        lovasz_softmax(torch.rand(1, 4, 2, 2), torch.zeros(1, 2, 2), class_weights=[1, 1, 1])
