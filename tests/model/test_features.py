"""What networks offer beside logits: the features that the damage is read from."""

from typing import Any

import pytest
import torch

from model.dual_hrnet import DualHRNet
from model.inference import Predictor, normalize
from model.networks.siamese_unet import SiameseUNet, SiameseUNetSettings
from tests.conftest import LOGITS, SMALL, assert_close
from tests.tiny_network import Tiny, TinySettings

SIAMESE = SiameseUNetSettings(width=8, blocks=(1, 1, 1, 1), decoder=8)
BUILDS: dict[str, Any] = {
    "dual-hrnet": lambda: DualHRNet(**SMALL),
    "siamese-unet": lambda: SiameseUNet(SIAMESE),
}
SHAPES = {
    "dual-hrnet": [(1, 4, 24, 32), (1, 8, 12, 16), (1, 16, 6, 8), (1, 32, 3, 4)],
    "siamese-unet": [(1, 16, 24, 32)],
}


def images() -> torch.Tensor:
    """Of sides that are no multiples of 32: 96 x 128 with what they are padded with."""
    return torch.randint(0, 256, (2, 1, 3, 90, 101), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.fixture(params=BUILDS)
def network(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return BUILDS[request.param]().eval()


@torch.inference_mode()
def test_features_are_what_the_head_of_damage_reads(network: Any) -> None:
    logits, features = network.with_features(*(normalize(image) for image in images()))
    assert [tuple(part.shape) for part in features] == SHAPES[network.architecture.name]
    head = network.cls_net.head if isinstance(network, DualHRNet) else lambda maps: network.damage(*maps)
    assert_close(head(features)[..., :23, :26], logits.damage, LOGITS)
    assert_close(network(*(normalize(image) for image in images())).damage, logits.damage, LOGITS)


def test_the_network_for_inference_has_the_same_features_whatever_the_views(network: Any) -> None:
    with torch.inference_mode():
        expected = network.with_features(*(normalize(image) for image in images()))[1]
    one, eight = (Predictor(network, views).with_features(*images())[1] for views in (1, 8))
    for part, other, own in zip(one, eight, expected, strict=True):
        assert torch.equal(part, other)
        assert_close(part, own, LOGITS)


def test_a_network_without_features_says_so() -> None:
    pre, post = images()
    predictor = Predictor(Tiny(TinySettings()).eval())
    logits, features = predictor.with_features(pre, post)
    assert features == [] and torch.equal(logits.damage, predictor.logits(pre, post).damage)
