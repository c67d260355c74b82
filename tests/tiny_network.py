"""A network beside the project's own: the least that one is."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from model.networks.pair_network import DualLogits, PairNetwork, check_pair


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class TinySettings:
    """What decides the tiny network."""

    name: Literal["tiny"] = "tiny"
    channels: Annotated[int, Ge(1)] = 4


class Tiny(PairNetwork):
    """The least that a network is: two convolutions, no feature beside."""

    Settings = TinySettings

    def __init__(self, architecture: TinySettings) -> None:
        super().__init__()
        self.architecture = architecture
        self.features = nn.Conv2d(6, architecture.channels, 4, stride=4)
        self.norm = nn.BatchNorm2d(architecture.channels)
        self.heads = nn.Conv2d(architecture.channels, 2 + 4, 1)

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        check_pair(pre, post, "Tiny")
        padding = (0, -pre.shape[-1] % 4, 0, -pre.shape[-2] % 4)
        both = nn.functional.pad(torch.cat([pre, post], 1), padding)
        return DualLogits(*self.heads(self.norm(self.features(both)).relu()).split([2, 4], 1))
