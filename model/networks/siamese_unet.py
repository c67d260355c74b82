"""A siamese U-Net: one ResNet and one decoder, with the same weights, see the scene before and the scene after.

The localization is read from the features of before, the damage from those of both. The first place of xView2 trained
networks of this kind (https://github.com/DIUx-xView/xView2_first_place); Gerard et al., https://arxiv.org/abs/2401.17271,
take one of them apart, keep most of its score, and find that neither generalizes to places that it has not seen.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Len
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from model.hrnet import conv3x3, conv_bn_relu, resize
from model.networks.pair_network import DualLogits, PairNetwork, check_pair
from model.weights import WeightsError, misfits, read_state

BACKBONE = re.compile(r"(conv1|bn1|layer\d+)\.")  # in an ImageNet file; its classifier is not used
EXAMPLE = "timm/resnet34.a1_in1k"


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class SiameseUNetSettings:
    """What decides the tensors of the network; with the defaults the encoder is a ResNet-34."""

    parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "localization", "damage")  # see `SiameseUNet.part`

    name: Literal["siamese-unet"] = "siamese-unet"
    # Channels at a quarter of the resolution; twice as many at each half of it. With fewer than 8, PyTorch 2.13 writes
    # beside its memory in the backward pass of a 1x1 convolution of stride 2, channels last, on a CPU.
    width: Annotated[int, Ge(8)] = 64
    blocks: Annotated[Sequence[Annotated[int, Ge(1)]], Len(4, 4)] = (3, 4, 6, 3)  # residual blocks at each resolution
    decoder: Annotated[int, Ge(1)] = 64  # channels of the decoder at a quarter of the resolution
    batch_norm_momentum: Annotated[float, Gt(0), Le(1)] = 0.1


class SiameseUNet(PairNetwork):
    """See above. `SiameseUNet(SiameseUNetSettings())` has 22,692,550 parameters, 21,284,672 of them a ResNet-34's."""

    Settings = SiameseUNetSettings
    architecture: SiameseUNetSettings

    def __init__(self, architecture: SiameseUNetSettings) -> None:
        super().__init__()
        self.architecture = a = architecture
        momentum = a.batch_norm_momentum
        channels = [a.width * 2**level for level in range(4)]
        self.stem = nn.Sequential(conv_bn_relu(3, a.width, 7, 2, momentum), nn.MaxPool2d(3, 2, 1))
        before = [a.width, *channels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                _Block(before[level], channels[level], 1 if level == 0 else 2, momentum),
                *(_Block(channels[level], channels[level], 1, momentum) for _ in range(a.blocks[level] - 1)),
            )
            for level in range(4)
        )
        # From coarse to fine: what is upsampled is made as thin as the level below before it is added.
        thin = [min(c, a.decoder * 2**n) for n, c in enumerate(channels)]
        self.lateral = nn.ModuleList(nn.Conv2d(c, out, 1) for c, out in zip(channels, thin, strict=True))
        self.thinner = nn.ModuleList(nn.Conv2d(thin[n + 1], thin[n], 1) for n in range(3))
        self.smooth = nn.ModuleList(conv_bn_relu(thin[n], thin[n], 3, 1, momentum) for n in range(3))
        self.localization = nn.Sequential(conv_bn_relu(thin[0], thin[0], 3, 1, momentum), nn.Conv2d(thin[0], 2, 1))
        self.damage = nn.Sequential(conv_bn_relu(2 * thin[0], thin[0], 3, 1, momentum), nn.Conv2d(thin[0], 4, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        """See `PairNetwork.forward`; sides that are not multiples of 32 are padded as in Dual-HRNet."""
        return self.with_features(pre, post)[0]

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """See `PairNetwork.with_features`; the features are those of before and then those of after, in one map."""
        check_pair(pre, post, "SiameseUNet")
        height, width = pre.shape[-2:]
        both = F.pad(torch.cat([pre, post]), (0, -width % 32, 0, -height % 32))
        before, after = self._features(both).chunk(2)
        features = torch.cat([before, after], 1)
        logits = self.localization(before), self.damage(features)
        return DualLogits(*(part[..., : -(-height // 4), : -(-width // 4)] for part in logits)), [features]

    def part(self, name: str) -> list[nn.Module]:
        """encoder: the ResNet; decoder: what makes features of it; localization, damage: the heads."""
        own = {"encoder": ["stem", "levels"], "decoder": ["lateral", "thinner", "smooth"]}.get(name, [name])
        return [self.get_submodule(key) for key in own]

    def load_pretrained(self, path: Path) -> str:
        """Takes a ResNet-18 or ResNet-34 of ImageNet, as torchvision and timm name their tensors, into the encoder.

        Raises WeightsError, and leaves the network untouched, where the file is none, or of another size.
        """
        state, own = read_state(path), self.state_dict()
        ours = {_resnet_name(name): name for name in own if name.startswith(("stem.", "levels."))}
        expected = {theirs: tuple(own[name].shape) for theirs, name in ours.items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items() if BACKBONE.match(name)}
        if what := misfits(expected, found, 3):
            raise WeightsError(
                f"{path}: does not fit the network: {what}. Take a ResNet-18 with train.network width 64 and blocks "
                f"[2, 2, 2, 2], or a ResNet-34 with [3, 4, 6, 3], such as {EXAMPLE}."
            )
        loaded = [theirs for theirs in ours if theirs in state]
        with torch.no_grad():
            for theirs in loaded:
                own[ours[theirs]].copy_(state[theirs])
        return f"{len(loaded)} tensors of {path.name} loaded into the encoder; the decoder stays as initialised"

    def _features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], H and W multiples of 32, to [B, decoder, H/4, W/4]."""
        x: Tensor = self.stem(images)
        sides: list[Tensor] = []
        for level, lateral in zip(self.levels, self.lateral, strict=True):
            x = level(x)
            sides.append(lateral(x))
        x = sides.pop()
        for thinner, smooth in zip(reversed(self.thinner), reversed(self.smooth), strict=True):
            side = sides.pop()
            x = smooth(side + resize(thinner(x), side.shape[-2:]))
        return x


def _resnet_name(name: str) -> str:
    """What torchvision calls a tensor of the encoder: conv1, bn1, layer1.0.conv1 and so on."""
    name = re.sub(r"^stem\.0\.0\.", "conv1.", re.sub(r"^stem\.0\.1\.", "bn1.", name))
    return re.sub(r"^levels\.(\d)", lambda match: f"layer{int(match[1]) + 1}", name)


class _Block(nn.Module):
    """The basic block of a ResNet; the shortcut is a 1x1 convolution where the size or the channels change."""

    def __init__(self, channels: int, out: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(channels, out, stride), nn.BatchNorm2d(out, momentum=momentum)
        self.conv2, self.bn2 = conv3x3(out, out), nn.BatchNorm2d(out, momentum=momentum)
        same = stride == 1 and channels == out
        self.downsample = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out, momentum=momentum)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(self.downsample(x)), inplace=True)
