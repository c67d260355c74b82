"""Winograd's convolution against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.dual_hrnet import DualHRNet
from model.fast.folding import fold
from model.fast.winograd import WinogradConv
from tests.comparing import assert_close

INPUT, OUTPUT = 24, 40
# Of the largest number: twenty times the plain convolution's, because the method adds and subtracts multiples of its
# inputs before and after it multiplies. Measured with AVX2: 5e-6, the plain convolution's 5e-7.
ERROR = 1e-5


@pytest.fixture(scope="module")
def weights() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(OUTPUT, INPUT, 3, 3) / (3 * INPUT**0.5), torch.randn(OUTPUT)


def image(batch: int, height: int, width: int, channels: int = INPUT) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    plain = torch.randn(batch, channels, height, width, generator=generator)
    return plain.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (6, 5), (64, 64), (33, 71), (2, 130)])
@pytest.mark.parametrize("relu", [False, True])
def test_it_is_the_convolution_at_any_size(size: tuple[int, int], relu: bool, weights: tuple[Tensor, Tensor]) -> None:
    x = image(2, *size)
    expected = F.conv2d(x.double(), weights[0].double(), weights[1].double(), padding=1)
    found = WinogradConv(*weights, relu=relu)(x)
    assert_close(found.double(), expected.relu() if relu else expected, ERROR)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_sum_is_taken_before_the_relu(weights: tuple[Tensor, Tensor]) -> None:
    x, total = image(1, 20, 28), image(1, 20, 28, OUTPUT)
    convolved = F.conv2d(x.double(), weights[0].double(), weights[1].double(), padding=1)
    expected = (total.double() + convolved).relu()
    assert (expected == 0).float().mean() > 0.3
    found = WinogradConv(*weights).add_to(total, x)
    assert_close(found.double(), expected, ERROR)
    assert found is total


def test_an_image_gives_the_same_numbers_in_any_batch(weights: tuple[Tensor, Tensor]) -> None:
    x = image(5, 52, 36)
    conv = WinogradConv(*weights)
    together = conv(x)
    for number in range(5):
        assert torch.equal(together[number : number + 1], conv(x[number : number + 1]))


def test_the_layers_of_many_channels_take_this_way() -> None:
    """Of width 32: those of the branches with 128 and 256 channels, two of each block in every module and stream."""
    torch.manual_seed(0)
    model = DualHRNet(width=32).eval()
    folded = fold(model)
    sizes = [module.size[0] for module in folded.modules() if isinstance(module, WinogradConv)]
    assert (sizes.count(128), sizes.count(256), len(sizes)) == (2 * 7 * 4 * 2, 2 * 3 * 4 * 2, 160)
    pre, post = (torch.rand(1, 3, 96, 160) for _ in range(2))
    with torch.inference_mode():
        for one, other in zip(model(pre, post), folded(pre, post), strict=True):
            assert_close(other, one, 2e-4)
