"""The trained network rewritten for inference: the same function in fewer operations and less memory.

Each batch norm is folded into its convolution, ReLUs and residual sums happen in the convolution's own pass over
memory, and the head's first convolution runs at each branch's own resolution. docs/benchmarks.md has what each brings.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model.dual_hrnet import DualHRNet
from model.hrnet import BasicBlock, Bottleneck, Head, HRNet, resize

# The head computes its 15C hidden channels in parts of this many: 12 MB for a 1024 x 1024 image, which the C library
# keeps and hands out again. All at once they are 126 MB, whose page faults cost more than the arithmetic.
HEAD_CHANNELS = 48


def fold(model: DualHRNet) -> DualHRNet:
    """A copy of the model in eval mode, whose forward gives the same logits up to float32 rounding.

    It cannot be trained, saved or moved to another device: its weights lie in the order that this device's
    convolutions want.
    """
    # The structure is copied, the tensors are not: what the folded network keeps of them is its own anyway.
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, tensors).eval()
    for name, child in model.named_children():
        model.add_module(name, _fold(child))
    return model


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in, and the ReLU that follows it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, *, relu: bool = False) -> None:
        super().__init__()
        self.stride, self.padding, self.relu = [stride] * 2, [weight.shape[-1] // 2] * 2, relu
        self.bias = bias
        # oneDNN takes ReLU and sum into the convolution. PyTorch reaches that through operators that torch.compile
        # uses; they have no public name, so the plain route stays beside them for every other device and build.
        self.fused = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if self.fused:
            # Once into oneDNN's own order, or every call would do it anew; the size is only a hint.
            shape = [1, weight.shape[1], 256, 256]
            arguments = (self.padding, self.stride, [1, 1], 1, shape)
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight.contiguous(), *arguments)
        else:
            self.weight = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of x [B, C, H, W], then ReLU where it has one."""
        if not self.fused:
            y = self._plain(x)
            return F.relu(y, inplace=True) if self.relu else y
        activation = "relu" if self.relu else "none"
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, *self._arguments(), activation, [], ""))

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """ReLU of total + the convolution of x; overwrites and returns total."""
        if not self.fused:
            total += self._plain(x)
            return F.relu(total, inplace=True)
        add = torch.ops.mkldnn._convolution_pointwise_.binary
        return cast(Tensor, add(total, x, *self._arguments(), "add", 1.0, "relu", [], ""))

    def _plain(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def _arguments(self) -> tuple[Tensor, Tensor | None, list[int], list[int], list[int], int]:
        return self.weight, self.bias, self.padding, self.stride, [1, 1], 1


class FoldedBasicBlock(nn.Module):
    """`BasicBlock`; overwrites its input, which no one else reads."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = _folded(block.conv1, block.bn1, relu=True)
        self.conv2 = _folded(block.conv2, block.bn2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2.add_to(x, self.conv1(x))


class FoldedBottleneck(nn.Module):
    """`Bottleneck`; overwrites its input, which no one else reads."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _folded(block.conv1, block.bn1, relu=True)
        self.conv2 = _folded(block.conv2, block.bn2, relu=True)
        self.conv3 = _folded(block.conv3, block.bn3)
        self.downsample = _fold(block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return self.conv3.add_to(self.downsample(x), y)


class FoldedHead(nn.Module):
    """`Head` without the concatenation: its first convolution is a sum over the branches and, being 1x1, commutes
    with bilinear upsampling. At a quarter of the resolution it does the work of 30 GFLOP in 4 (1024 x 1024, C = 32).
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        hidden, norm, _, last = head
        assert isinstance(hidden, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(last, nn.Conv2d)
        weight, bias = _fold_weights(hidden, norm)
        self.parts = nn.ModuleList()
        for rows in torch.split(torch.arange(len(weight)), HEAD_CHANNELS):
            finest, *others = torch.split(weight[rows], head.branches, dim=1)
            branches = [FoldedConv(finest, bias[rows]), *(FoldedConv(columns, None) for columns in others)]
            self.parts.append(nn.ModuleList([*branches, FoldedConv(last.weight.detach()[:, rows], None)]))
        self.bias = cast(Tensor, last.bias).detach().clone().view(1, -1, 1, 1)

    def forward(self, xs: list[Tensor]) -> Tensor:
        logits = self.bias
        for part in self.parts:
            finest, *others, last = cast(nn.ModuleList, part)
            total = finest(xs[0])
            for conv, x in zip(others, xs[1:], strict=True):
                total += resize(conv(x), total.shape[-2:])
            logits = logits + last(F.relu(total, inplace=True))
        return logits


def _fold(module: nn.Module) -> nn.Module:
    """The module with everything folded that is inside it, or what takes its place."""
    match module:
        case BasicBlock():
            return FoldedBasicBlock(module)
        case Bottleneck():
            return FoldedBottleneck(module)
        case Head():
            return FoldedHead(module)
    match list(module.children()):
        case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm, *rest] if isinstance(module, nn.Sequential):
            return _folded(conv, norm, relu=bool(rest))
    if isinstance(module, HRNet):
        _fold_stem(module)
    for name, child in list(module.named_children()):
        module.add_module(name, _fold(child))
    return module


def _fold_stem(net: HRNet) -> None:
    # In the published order a ReLU stands between the second convolution and its batch norm, which therefore stays.
    for number in (1, 2) if net.stem_order == "imagenet" else (1,):
        conv, norm = net.get_submodule(f"conv{number}"), net.get_submodule(f"bn{number}")
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        net.add_module(f"conv{number}", _folded(conv, norm))
        net.add_module(f"bn{number}", nn.Identity())
    if net.stem_order == "published":
        for name in ("conv2", "bn2"):
            net.add_module(name, copy.deepcopy(net.get_submodule(name)))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool = False) -> FoldedConv:
    return FoldedConv(*_fold_weights(conv, norm), conv.stride[0], relu=relu)


def _fold_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()
