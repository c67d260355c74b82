"""Dual-HRNet: one HRNet sees the scene before, one after the disaster; they exchange features before each stage.

Source: Koo et al., "Dual-HRNet for Building Localization and Damage Classification", section 2 and figure 1.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architecture import Architecture
from model.fast.folding import fold
from model.hrnet import HRNet, conv_bn_relu
from model.networks.pair_network import DualLogits, PairNetwork, check_pair
from model.weights import load_imagenet

__all__ = ["DualHRNet", "DualLogits"]
LOCALIZATION_CLASSES = 2  # background, building
DAMAGE_CLASSES = 4  # no damage, minor, major, destroyed; on building pixels only
STRIDE = Architecture.coarsest


class DualHRNet(PairNetwork):
    """The network of the paper. `DualHRNet(width=32)` has 59,535,494 parameters.

    Either pass an `Architecture` or single fields of it: `DualHRNet(width=18, modules=(1, 1, 1))`.
    """

    Settings = Architecture
    architecture: Architecture

    def __init__(self, architecture: Architecture | None = None, **fields: Any) -> None:
        super().__init__()
        self.architecture = replace(architecture or Architecture(), **fields)
        self.loc_net = HRNet(self.architecture, LOCALIZATION_CLASSES)
        self.cls_net = HRNet(self.architecture, DAMAGE_CLASSES)
        for stage in (1, 2, 3):
            channels = self.architecture.channels(stage + 1)
            for stream in ("loc", "cls"):
                self.add_module(
                    f"fuse_{stream}_stage{stage}",
                    nn.ModuleList(
                        conv_bn_relu(2 * c, c, 1, 1, self.architecture.batch_norm_momentum) for c in channels
                    ),
                )
        self._initialize()

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        """Logits at a quarter of the input's resolution, rounded up.

        pre, post: [B, 3, H, W] float, normalized (`model.inference.normalize`), of any size: images whose sides are
        not multiples of 32 are padded with zeros at the right and the bottom, and the logits are cut back.
        Raises ValueError where the shapes differ or are not those of images.
        """
        return self.with_features(pre, post)[0]

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """See `PairNetwork.with_features`; the features are the four branches of the damage stream."""
        check_pair(pre, post, "DualHRNet")
        height, width = pre.shape[-2:]
        if height % STRIDE or width % STRIDE:
            pre, post = (F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE)) for image in (pre, post))
        # One stream after the other up to here, and nothing kept: stage 1's output is the largest feature map.
        loc, cls = self.loc_net.entry(pre), self.cls_net.entry(post)
        loc, cls = self._fuse(2, loc, cls)
        loc, cls = self.loc_net.stage(2, loc), self.cls_net.stage(2, cls)
        for stage in (3, 4):
            loc, cls = self.loc_net.transition(stage, loc), self.cls_net.transition(stage, cls)
            loc, cls = self._fuse(stage, loc, cls)
            loc, cls = self.loc_net.stage(stage, loc), self.cls_net.stage(stage, cls)
        logits = self.loc_net.head(loc), self.cls_net.head(cls)
        return DualLogits(*(part[..., : -(-height // 4), : -(-width // 4)] for part in logits)), cls

    def for_inference(self) -> PairNetwork:
        """The network folded, see `model.fast.folding`; it cannot be trained, saved or moved to another device."""
        return fold(self)

    def part(self, name: str) -> list[nn.Module]:
        """localization, damage: all of one stream, with what it takes from the other; encoder: both streams but for
        their heads; stem: of both, up to stage 1.
        """
        streams = {"localization": ("loc",), "damage": ("cls",)}.get(name, ("loc", "cls"))
        left_out = {"encoder": ("last_layer",), "stem": ("transitions", "stage2", "stage3", "stage4", "last_layer")}
        fusion = [] if name == "stem" else [f"fuse_{stream}_stage{stage}" for stream in streams for stage in (1, 2, 3)]
        return [
            *map(self.get_submodule, fusion),
            *(
                module
                for stream in streams
                for key, module in self.get_submodule(f"{stream}_net").named_children()
                if key not in left_out.get(name, ())
            ),
        ]

    def load_pretrained(self, path: Path) -> str:
        """Takes an ImageNet HRNet into both streams, see `model.weights.load_imagenet`."""
        return load_imagenet(self, path).summary()

    def set_recompute(self, recompute: bool) -> None:
        """Trades a third more work in training for a fraction of the memory, see `HRNet`."""
        self.loc_net.recompute = self.cls_net.recompute = recompute

    def _fuse(self, stage: int, loc: list[Tensor], cls: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        both = [torch.cat(pair, dim=1) for pair in zip(loc, cls, strict=True)]
        fuse_loc = cast(nn.ModuleList, self.get_submodule(f"fuse_loc_stage{stage - 1}"))
        fuse_cls = cast(nn.ModuleList, self.get_submodule(f"fuse_cls_stage{stage - 1}"))
        return (
            [fuse(x) for fuse, x in zip(fuse_loc, both, strict=True)],
            [fuse(x) for fuse, x in zip(fuse_cls, both, strict=True)],
        )

    def _initialize(self) -> None:
        # He initialization, as in the ResNet blocks that HRNet is made of; torch's default is smaller by sqrt(6) in
        # standard deviation and leaves a network of this depth, trained from scratch, slow to start.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
