"""HRNetV2: parallel branches from high to low resolution that exchange features after every module.

Module names and tensor layouts are those of the published Dual-HRNet checkpoint, so its weights load by name.
Source: Wang et al., https://arxiv.org/abs/1908.07919; Sun et al., https://arxiv.org/abs/1904.04514
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.architecture import Architecture


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual; channels stay as they are."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels, momentum=momentum)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a residual; the output has four times `planes` channels."""

    expansion = 4

    def __init__(self, channels: int, planes: int, momentum: float) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes, momentum=momentum)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes, momentum=momentum)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, momentum=momentum)
        self.downsample = (
            nn.Identity()
            if channels == out
            else nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out, momentum=momentum))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)).add_(self.downsample(x)), inplace=True)


class HighResolutionModule(nn.Module):
    """One module: basic blocks on each branch, then every branch receives the sum of all, resampled to its size."""

    def __init__(self, channels: Sequence[int], blocks: int, momentum: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(c, momentum) for _ in range(blocks))) for c in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(channels, source, target, momentum) for source in range(len(channels)))
            for target in range(len(channels))
        )

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return [self._fuse(xs, target) for target in range(len(xs))]

    def _fuse(self, xs: list[Tensor], target: int) -> Tensor:
        # Summed in the order of the branches, as the published code does: its logits then come out bit for bit.
        layers, size = cast(nn.ModuleList, self.fuse_layers[target]), xs[target].shape[-2:]
        parts = (
            layer(x) if i <= target else resize(layer(x), size)
            for i, (layer, x) in enumerate(zip(layers, xs, strict=True))
        )
        total = next(parts) + next(parts)
        for part in parts:
            total += part
        return F.relu(total, inplace=True)


class Head(nn.Sequential):
    """Four resolutions, upsampled and concatenated (15C channels), to logits at the finest: two 1x1 convolutions."""

    def __init__(self, branches: list[int], classes: int, momentum: float) -> None:
        channels = sum(branches)
        super().__init__(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels, momentum=momentum),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 1),
        )
        self.branches = branches

    def forward(self, xs: list[Tensor]) -> Tensor:
        """xs: one [B, C_i, h_i, w_i] for each branch; logits [B, classes, h_0, w_0]."""
        hidden, norm, relu, last = self
        # A sum over the branches that commutes with upsampling: 30 GFLOP become 4 on 1024 x 1024 at C = 32. In eval
        # mode the concatenation stays, with which published weights give the published logits bit for bit; inference
        # that has to be fast goes through model/fast/folding.py.
        y = self._by_branch(xs) if self.training else hidden(_concatenate(xs))
        return cast(Tensor, last(relu(norm(y))))

    def _by_branch(self, xs: list[Tensor]) -> Tensor:
        hidden = cast(nn.Conv2d, self[0])
        finest, *others = torch.split(hidden.weight, self.branches, dim=1)
        y = F.conv2d(xs[0], finest, hidden.bias)
        for x, weight in zip(xs[1:], others, strict=True):
            y = y.add_(resize(F.conv2d(x, weight), y.shape[-2:]))
        return y


class HRNet(nn.Module):
    """Backbone and head of one stream. `DualHRNet` calls its parts in turn, because it fuses between the stages.

    Input [B, 3, H, W] normalized float; H and W multiples of 32; logits [B, classes, H/4, W/4].
    recompute: in training, keep only what enters each block of stage 1, each module and the head, and compute what is
    inside once more in the backward pass: about a third more work for a fraction of the memory.
    """

    recompute = False

    def __init__(self, architecture: Architecture, classes: int) -> None:
        super().__init__()
        a, momentum = architecture, architecture.batch_norm_momentum
        self.stem_order = a.stem_order
        self.conv1 = conv3x3(3, a.stem_width, stride=2)
        self.bn1 = nn.BatchNorm2d(a.stem_width, momentum=momentum)
        self.conv2 = conv3x3(a.stem_width, a.stem_width, stride=2)
        self.bn2 = nn.BatchNorm2d(a.stem_width, momentum=momentum)

        wide = a.stage1_width * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            *(Bottleneck(a.stem_width if i == 0 else wide, a.stage1_width, momentum) for i in range(a.stage1_blocks))
        )
        self.transitions = nn.ModuleList(
            [
                _transition([wide], a.channels(2), momentum),
                _transition(a.channels(2), a.channels(3), momentum),
                _transition(a.channels(3), a.channels(4), momentum),
            ]
        )
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(HighResolutionModule(a.channels(n), a.blocks, momentum) for _ in range(count)))
            for n, count in zip((2, 3, 4), a.modules, strict=True)
        )
        self.last_layer = Head(a.channels(4), classes, momentum)

    def entry(self, image: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to the branches of stage 2: two strided convolutions, stage 1 and its transition."""
        if self.stem_order == "published":
            x = F.relu(self.conv2(self.bn1(self.conv1(image))), inplace=True)
            x = F.relu(self.bn2(x), inplace=True)
        else:
            x = F.relu(self.bn1(self.conv1(image)), inplace=True)
            x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        for block in self.layer1:
            x = cast(Tensor, self._run(block, x))
        return self.transition(2, [x])

    def transition(self, stage: int, xs: list[Tensor]) -> list[Tensor]:
        """Branches of the stage before to the branches of `stage` (2, 3 or 4): one more, at half the resolution."""
        layers = cast(nn.ModuleList, self.transitions[stage - 2])
        return [layer(xs[min(i, len(xs) - 1)]) for i, layer in enumerate(layers)]

    def stage(self, stage: int, xs: list[Tensor]) -> list[Tensor]:
        """All modules of `stage` (2, 3 or 4)."""
        for module in (self.stage2, self.stage3, self.stage4)[stage - 2]:
            xs = self._run(module, xs)
        return xs

    def head(self, xs: list[Tensor]) -> Tensor:
        """Logits [B, classes, H/4, W/4] from the four branches."""
        return cast(Tensor, self._run(self.last_layer, xs))

    def _run(self, module: nn.Module, x: Any) -> Any:
        if self.recompute and self.training:
            return checkpoint(
                module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _no_statistics(module))
            )
        return module(x)


@contextmanager
def _no_statistics(module: nn.Module) -> Iterator[None]:
    """Keeps the running statistics as they are, or a recomputed forward would count its batch twice."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum, cast(Tensor, norm.num_batches_tracked).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(count)


def _concatenate(xs: list[Tensor]) -> Tensor:
    return torch.cat([xs[0], *(resize(x, xs[0].shape[-2:]) for x in xs[1:])], dim=1)


def conv3x3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with padding 1 and no bias, as everywhere in HRNet."""
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resampling [B, C, h, w] to [B, C, *size], align_corners=False."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def conv_bn_relu(channels: int, out: int, kernel: int, stride: int, momentum: float) -> nn.Sequential:
    """Convolution without bias, BN, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out, momentum=momentum),
        nn.ReLU(inplace=True),
    )


def _transition(before: Sequence[int], after: Sequence[int], momentum: float) -> nn.ModuleList:
    """Layers from the branches `before` to `after`; the new branch halves the resolution of the last one."""
    layers: list[nn.Module] = []
    for i, out in enumerate(after):
        if i >= len(before):
            layers.append(nn.Sequential(conv_bn_relu(before[-1], out, 3, 2, momentum)))
        elif before[i] != out:
            layers.append(conv_bn_relu(before[i], out, 3, 1, momentum))
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


def _exchange(channels: Sequence[int], source: int, target: int, momentum: float) -> nn.Module:
    """The path of one branch's features into another: 1x1 upwards, strided 3x3 steps downwards, nothing in place."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[target], 1, bias=False),
            nn.BatchNorm2d(channels[target], momentum=momentum),
        )
    inner = [conv_bn_relu(channels[source], channels[source], 3, 2, momentum) for _ in range(target - source - 1)]
    last = nn.Sequential(
        conv3x3(channels[source], channels[target], stride=2), nn.BatchNorm2d(channels[target], momentum=momentum)
    )
    return nn.Sequential(*inner, last)
