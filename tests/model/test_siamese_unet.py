"""The siamese U-Net: what it reads where, and how much it computes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from model.dual_hrnet import DualHRNet
from model.networks.siamese_unet import SiameseUNet, SiameseUNetSettings
from model.weights import WeightsError
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
    assert sum(p.numel() for p in network.parameters()) == 22_692_550


def test_a_network_too_thin_for_torch_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"width\n.*greater than or equal to 8"):
        SiameseUNetSettings(width=4)


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


def resnet_18() -> dict[str, torch.Tensor]:
    """Random weights under the names of torchvision's ResNet-18, without the counters that nothing depends on."""
    generator, state = torch.Generator().manual_seed(0), {}

    def conv(name: str, channels: int, out: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, channels, kernel, kernel, generator=generator) / (9 * out) ** 0.5

    def norm(name: str, channels: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.1), ("running_mean", -0.1), ("running_var", 0.5)):
            state[f"{name}.{part}"] = torch.rand(channels, generator=generator) + low

    conv("conv1", 3, 64, 7)
    norm("bn1", 64)
    before = 64
    for level, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{level}.{block}"
            conv(f"{name}.conv1", before, channels, 3)
            norm(f"{name}.bn1", channels)
            conv(f"{name}.conv2", channels, channels, 3)
            norm(f"{name}.bn2", channels)
            if before != channels:
                conv(f"{name}.downsample.0", before, channels, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    return state


def features_by_hand(state: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of layer1 to layer4, from He et al., https://arxiv.org/abs/1512.03385, figure 3 and table 1."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = F.max_pool2d(F.relu(norm("bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3))), 3, 2, 1)
    levels = []
    for level in range(1, 5):
        for block in range(2):
            name, stride = f"layer{level}.{block}", 2 if level > 1 and block == 0 else 1
            y = F.relu(norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)))
            y = norm(f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
            if f"{name}.downsample.0.weight" in state:
                weight = state[f"{name}.downsample.0.weight"]
                x = norm(f"{name}.downsample.1", F.conv2d(x, weight, stride=stride))
            x = F.relu(x + y)
        levels.append(x)
    return levels


def test_a_resnet_of_imagenet_becomes_the_encoder(tmp_path: Path) -> None:
    state, path = resnet_18(), tmp_path / "resnet18.safetensors"
    save_file(state, path)
    network = SiameseUNet(SiameseUNetSettings(blocks=(2, 2, 2, 2))).eval()
    said = network.load_pretrained(path)
    assert said == "100 tensors of resnet18.safetensors loaded into the encoder; the decoder stays as initialised"
    x = image(3)
    found = network.stem(x)
    for level, expected in zip(network.levels, features_by_hand(state, x), strict=True):
        found = level(found)
        assert_close(found, expected, LOGITS)


@pytest.mark.parametrize(
    ("settings", "left_out", "finding"),
    [
        (SiameseUNetSettings(), "nothing", "missing: layer1.2.conv1.weight"),
        (SiameseUNetSettings(width=32, blocks=(2, 2, 2, 2)), "nothing", "100 misshapen: "),
        (SiameseUNetSettings(blocks=(2, 2, 2, 2)), "layer3.0.downsample.0.weight", "1 missing: layer3.0.downsample.0"),
    ],
    ids=["deeper", "narrower", "damaged"],
)
def test_a_backbone_of_another_size_is_refused_and_nothing_taken(
    settings: SiameseUNetSettings, left_out: str, finding: str, tmp_path: Path
) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file({name: tensor for name, tensor in resnet_18().items() if name != left_out}, path)
    network = SiameseUNet(settings)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        network.load_pretrained(path)
    assert finding in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
