"""The trained network rewritten for inference: the same function in fewer operations and less memory.

Each batch norm is folded into its convolution, ReLUs and residual sums happen in the convolution's own pass over
memory, and the head's first convolution runs at each branch's own resolution. Where feature maps are large, the work
goes band by band, so that what one operation writes is still in the cache when the next one reads it.
docs/benchmarks.md has what each brings.
"""

import copy
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # also the base of batch norms that are synchronized over processes
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model.fast.winograd import WinogradConv
from model.hrnet import BasicBlock, Bottleneck, Head, HRNet, resize

Net = TypeVar("Net", bound=nn.Module)
STEM_ROWS = 128  # rows of the image: 9 MB between the stem's convolutions instead of 67 MB (1024 pixels wide)
STAGE1_ROWS = 32  # rows of stage 1's feature map: 8 MB instead of 67 MB
# The head's 15C hidden channels at full resolution would be 126 MB for a 1024 x 1024 image. This many of them, on this
# many rows of the logits, are 3 to 6 MB.
HEAD_CHANNELS, HEAD_ROWS = 96, 32
MANY = 128  # channels from which on Winograd's way is the faster one


def fold(model: Net) -> Net:
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
    """The parts of `Bottleneck`, which `FoldedStage1` puts together."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _folded(block.conv1, block.bn1, relu=True)
        self.conv2 = _folded(block.conv2, block.bn2, relu=True)
        self.conv3 = _folded(block.conv3, block.bn3)
        self.downsample = _fold(block.downsample)

    def widen(self, x: Tensor, inner: Tensor) -> Tensor:
        """The last convolution and the residual, on any rows of the block's input x, which may be overwritten."""
        return self.conv3.add_to(self.downsample(x), inner)


class FoldedStem(nn.Module):
    """The two strided convolutions of `HRNet.entry`."""

    def __init__(self, net: HRNet) -> None:
        super().__init__()
        # In the published order a ReLU stands between the second convolution and its batch norm, which therefore stays.
        published = net.stem_order == "published"
        self.conv1 = _folded(net.conv1, net.bn1, relu=not published)
        self.conv2 = (
            FoldedConv(net.conv2.weight.detach(), None, 2, relu=True)
            if published
            else _folded(net.conv2, net.bn2, relu=True)
        )
        self.norm = nn.Sequential(copy.deepcopy(net.bn2), nn.ReLU(inplace=True)) if published else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W], H a multiple of 4, to [B, stem_width, H/4, W/4]."""
        bands = []
        for top in range(0, image.shape[-2], STEM_ROWS):
            # A row of the result sees three rows of the image above its own four, and none below them.
            start = max(0, top - 4)
            band = self.norm(self.conv2(self.conv1(image[:, :, start : top + STEM_ROWS])))
            bands.append(band[:, :, (top - start) // 4 :])
        return torch.cat(bands, dim=2)


class FoldedStage1(nn.Module):
    """Stage 1 and the transition to stage 2. Its map of 4 * stage1_width channels, the largest of the network, exists
    in bands only; the 3x3 convolutions between see their map of stage1_width channels whole.
    """

    def __init__(self, net: HRNet) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FoldedBottleneck(block) for block in cast(Iterable[Bottleneck], net.layer1))
        self.transition = _fold(cast(nn.ModuleList, net.transitions[0]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, stem_width, h, w], h a multiple of 8, to the two branches of stage 2; overwrites x."""
        bands = list(torch.split(x, STAGE1_ROWS, dim=2))
        blocks = [cast(FoldedBottleneck, block) for block in self.blocks]
        hidden = torch.cat([blocks[0].conv1(band) for band in bands], dim=2)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            inner = torch.split(block.conv2(hidden), STAGE1_ROWS, dim=2)
            outer, parts = [], []
            for band, part in zip(bands, inner, strict=True):
                outer.append(block.widen(band, part))
                if following is not None:
                    parts.append(following.conv1(outer[-1]))
            bands = outer
            if parts:
                hidden = torch.cat(parts, dim=2)
        branches = [self._enter(bands, number) for number in range(len(bands))]
        return [torch.cat(parts, dim=2) for parts in zip(*branches, strict=True)]

    def _enter(self, bands: list[Tensor], number: int) -> list[Tensor]:
        """The transition of a band, which sees one row of its neighbours; two above, so that strides stay aligned."""
        above = [band[:, :, -2:] for band in bands[max(0, number - 1) : number]]
        below = [band[:, :, :1] for band in bands[number + 1 : number + 2]]
        band = torch.cat([*above, bands[number], *below], dim=2)
        rows = bands[number].shape[2]
        branches = []
        for layer in cast(nn.ModuleList, self.transition):
            y = layer(band)
            scale = bands[number].shape[3] // y.shape[3]
            branches.append(y[:, :, 2 * len(above) // scale :][:, :, : rows // scale])
        return branches


class FoldedHRNet(HRNet):
    """`HRNet` with all of its parts folded."""

    def __init__(self, net: HRNet) -> None:
        nn.Module.__init__(self)
        self.stem, self.stage1 = FoldedStem(net), FoldedStage1(net)
        for name in ("transitions", "stage2", "stage3", "stage4", "last_layer"):
            self.add_module(name, _fold(net.get_submodule(name)))

    def entry(self, image: Tensor) -> list[Tensor]:
        return cast(list[Tensor], self.stage1(self.stem(image)))


class FoldedHead(nn.Module):
    """`Head` without the concatenation: its first convolution is a sum over the branches and, being 1x1, commutes
    with bilinear upsampling. At a quarter of the resolution it does the work of 30 GFLOP in 4 (1024 x 1024, C = 32).
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        hidden, norm, _, last = head
        assert isinstance(hidden, nn.Conv2d) and isinstance(norm, _BatchNorm) and isinstance(last, nn.Conv2d)
        weight, bias = _fold_weights(hidden, norm)
        finest, *others = torch.split(weight, head.branches, dim=1)
        self.coarse = nn.ModuleList(FoldedConv(columns, None) for columns in others)
        self.parts = [
            slice(int(rows[0]), int(rows[-1]) + 1) for rows in torch.split(torch.arange(len(weight)), HEAD_CHANNELS)
        ]
        self.finest = nn.ModuleList(FoldedConv(finest[part], bias[part]) for part in self.parts)
        self.last = nn.ModuleList(FoldedConv(last.weight.detach()[:, part], None) for part in self.parts)
        self.bias = cast(Tensor, last.bias).detach().clone().view(1, -1, 1, 1)

    def forward(self, xs: list[Tensor]) -> Tensor:
        # One row more above and below, repeated at the edges: what bilinear upsampling does there of itself.
        padded = [F.pad(x, (0, 0, 1, 1), "replicate") for x in xs[1:]]
        coarse = [conv(x) for conv, x in zip(self.coarse, padded, strict=True)]
        return torch.cat([self._band(xs[0], coarse, top) for top in range(0, xs[0].shape[-2], HEAD_ROWS)], dim=2)

    def _band(self, x: Tensor, coarse: list[Tensor], top: int) -> Tensor:
        """Logits of the rows from `top` on; coarse: hidden channels of the other branches, padded by a row."""
        x = x[:, :, top : top + HEAD_ROWS]
        rows, columns = x.shape[-2:]
        logits = self.bias
        for part, finest, last in zip(self.parts, self.finest, self.last, strict=True):
            total = finest(x)
            for y in coarse:
                scale = columns // y.shape[-1]
                window = y[:, part, top // scale : (top + rows) // scale + 2]
                window = window.contiguous(memory_format=torch.channels_last)
                total += resize(window, (rows + 2 * scale, columns))[:, :, scale:-scale]
            logits = logits + last(F.relu(total, inplace=True))
        return logits


def _fold(module: nn.Module) -> nn.Module:
    """The module with everything folded that is inside it, or what takes its place."""
    match module:
        case BasicBlock():
            return FoldedBasicBlock(module)
        case Head():
            return FoldedHead(module)
        case HRNet():
            return FoldedHRNet(module)
    match list(module.children()):
        case [nn.Conv2d() as conv, _BatchNorm() as norm, *rest] if isinstance(module, nn.Sequential):
            return _folded(conv, norm, relu=bool(rest))
    for name, child in list(module.named_children()):
        module.add_module(name, _fold(child))
    return module


def _folded(conv: nn.Conv2d, norm: _BatchNorm, *, relu: bool = False) -> FoldedConv | WinogradConv:
    weight, bias = _fold_weights(conv, norm)
    if weight.device.type == "cpu" and conv.stride[0] == 1 and weight.shape[2] == 3 and min(weight.shape[:2]) >= MANY:
        return WinogradConv(weight, bias, relu=relu)
    return FoldedConv(weight, bias, conv.stride[0], relu=relu)


def _fold_weights(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()
