"""The siamese U-Net: what it reads where, and how much it computes."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.dual_hrnet import DualHRNet
from model.networks.siamese_unet import SiameseUNet, SiameseUNetSettings
from tests.conftest import LOGITS, assert_close

SMALL = SiameseUNetSettings(width=8, blocks=(1, 1, 1, 1), decoder=8)


def image(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_buildings_are_read_from_before_and_damage_from_both() -> None:
    torch.manual_seed(0)
    network = SiameseUNet(SMALL).eval()
    before, after, other = (image(seed) for seed in range(3))
    plain, new_after, new_before = (network(*pair) for pair in ((before, after), (before, other), (other, after)))
    assert_close(plain.localization, new_after.localization, LOGITS)
    assert not torch.allclose(plain.localization, new_before.localization)
    assert not torch.allclose(plain.damage, new_after.damage)
    assert not torch.allclose(plain.damage, new_before.damage)


def test_both_images_go_through_the_same_weights() -> None:
    """Features of an image are the same whether it stands before or after."""
    network = SiameseUNet(SMALL).eval()
    before, after = image(0), image(1)
    pair, exchanged = (network._features(torch.cat(images)) for images in ((before, after), (after, before)))
    assert_close(pair, exchanged.flip(0), LOGITS)


def test_with_its_defaults_the_encoder_has_the_weights_of_a_resnet_34() -> None:
    network = SiameseUNet(SiameseUNetSettings())
    encoder = sum(p.numel() for part in (network.stem, network.levels) for p in part.parameters())
    # 21,797,672 in https://pytorch.org/vision/stable/models/resnet.html, less the 513,000 of its classifier.
    assert encoder == 21_284_672


def test_the_small_one_computes_a_fraction_of_the_small_dual_hrnet() -> None:
    counts = []
    for network in (
        SiameseUNet(SiameseUNetSettings(width=24, blocks=(1, 1, 1, 1), decoder=24)),
        DualHRNet(width=16, stem_width=32, stage1_width=16, stage1_blocks=1, modules=(1, 1, 1), blocks=2),
    ):
        with FlopCounterMode(display=False) as counter:
            network(image(0).repeat(2, 1, 1, 1), image(1).repeat(2, 1, 1, 1))
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.6 * counts[1]
