"""Prediction by the mean over flips and quarter turns of a pair."""

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.inference import Predictor, normalize
from model.networks.siamese_unet import SiameseUNet, SiameseUNetSettings
from tests.conftest import LOGITS, assert_close


@pytest.fixture(scope="module")
def network() -> SiameseUNet:
    torch.manual_seed(0)
    return SiameseUNet(SiameseUNetSettings(width=8, blocks=(1, 1, 1, 1), decoder=8)).eval()


def pair(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 2, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.mark.parametrize("views", [4, 8])
def test_logits_are_the_mean_over_the_views_each_put_back(network: SiameseUNet, views: Literal[4, 8]) -> None:
    pre, post = pair(64, 96)
    found = Predictor(network, views)(pre, post), Predictor(network, views).logits(pre, post)
    images = [normalize(image) for image in (pre, post)]
    total = [torch.zeros(()), torch.zeros(())]
    for turns, mirrored in itertools.product(range(4), (False, True)):
        if views == 4 and turns % 2:
            continue
        seen = [(image.flip(-1) if mirrored else image).rot90(turns, (-2, -1)) for image in images]
        with torch.inference_mode():
            parts = [part.rot90(-turns, (-2, -1)) for part in network(*seen)]
        total = [old + (part.flip(-1) if mirrored else part) / views for old, part in zip(total, parts, strict=True)]
    for part, expected in zip(found[1], total, strict=True):
        assert_close(part, expected, LOGITS)
    assert found[0].damage.shape == (2, 64, 96)


def test_a_turned_pair_gets_the_turned_answer_also_where_sides_are_odd(network: SiameseUNet) -> None:
    predictor = Predictor(network, 8)
    pre, post = pair(64, 64)
    plain, turned = predictor.logits(pre, post), predictor.logits(pre.rot90(1, (-2, -1)), post.rot90(1, (-2, -1)))
    for part, expected in zip(turned, plain, strict=True):
        assert_close(part, expected.rot90(1, (-2, -1)), LOGITS)
    odd = predictor.logits(*pair(50, 61))
    assert [tuple(part.shape) for part in odd] == [(2, 2, 13, 16), (2, 4, 13, 16)]
    flat = torch.full((1, 3, 50, 61), 124, dtype=torch.uint8)
    prediction, probabilities = predictor.probabilities(flat, flat)
    assert prediction.damage.shape == probabilities.building.shape == (1, 50, 61)
