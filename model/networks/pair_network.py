"""What every network of this project is: image pairs in, logits for localization and damage out.

`model.networks.by_name` lists the networks. Beside these two a network may offer the features that have defaults here;
one without them trains and predicts plainly, through the same training and the same `Predictor`.
"""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from annotated_types import Ge, Le
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from base.errors import InputError


class NetworkError(InputError):
    """A network that does not exist, or a feature that a network does not have."""


class DualLogits(NamedTuple):
    """localization: [B, 2, H/4, W/4]; damage: [B, 4, H/4, W/4]; raw logits."""

    localization: Tensor
    damage: Tensor


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class Temperatures:
    """What logits are divided by, so that a model is as often right as it is sure. Classes of pixels stay what
    they are; the grade of a building, for which probabilities of its pixels are added up, may become another.

    Source: Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, section 4.2.
    """

    localization: Annotated[float, Ge(0.01), Le(100)]
    damage: Annotated[float, Ge(0.01), Le(100)]


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class GradeOffsets:
    """What is added to the damage logits, in nats, so that a model grades as if other shares of the grades were to be
    expected than those of its training.

    Source: Menon et al., "Long-tail learning via logit adjustment", https://arxiv.org/abs/2007.07314, equation 9.
    """

    no_damage: Annotated[float, Ge(-1000), Le(1000)]
    minor_damage: Annotated[float, Ge(-1000), Le(1000)]
    major_damage: Annotated[float, Ge(-1000), Le(1000)]
    destroyed: Annotated[float, Ge(-1000), Le(1000)]

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in asdict(self).items())


class PairNetwork(nn.Module):
    """Base of the networks; each is built from an instance of its `Settings` alone, and keeps it as `architecture`.

    Settings: a frozen pydantic dataclass, all fields with defaults, that decides every tensor of the network. Its field
    `name` is the network's name in `model.networks.by_name`: `name: Literal["NAME"] = "NAME"`.
    A network that takes batch norm over images made smaller says by how much, so that crops which would leave one value
    are refused when parameters are read: `coarsest: ClassVar[int] = 32`. One of which training can keep parts as they
    are names them: `parts: ClassVar[tuple[str, ...]] = ("encoder",)`.
    """

    Settings: ClassVar[Any]
    architecture: Any  # of the class Settings
    # Both are applied by `Predictor` alone: what `forward` gives, and training sees, is without them.
    temperatures: Temperatures | None = None  # None where nobody calibrated the model
    grade_offsets: GradeOffsets | None = None  # None where it grades by the shares of its training

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        """Logits at a quarter of the input's resolution, rounded up.

        pre, post: [B, 3, H, W] float, normalized (`model.inference.normalize`), of any size.
        Raises ValueError where the shapes differ or are not those of images.
        """
        raise NotImplementedError

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """The logits of `forward`, and what the damage is read from: what enters the last layers, the head of damage.

        The features are maps [B, C, h, w], float, as fine as the logits or, in the following ones, coarser by whole
        numbers, as the network has them: rows and columns that it pads images with are there. None of a network that
        offers none.
        """
        return self(pre, post), []

    def for_inference(self) -> "PairNetwork":
        """A copy in eval mode for prediction, whose forward gives the same logits up to float32 rounding.

        A network may return something faster, which cannot be trained or saved.
        """
        return copy.deepcopy(self).eval()

    def set_recompute(self, recompute: bool) -> None:
        """Whether training keeps a fraction of the activations and computes the others twice; raises NetworkError."""
        if recompute:
            raise NetworkError(f"train.recompute: {self.architecture.name} cannot recompute. Set it to false.")

    def part(self, name: str) -> list[nn.Module]:
        """The modules of one of the parts that `Settings` names, for `train.freeze`; parts may share modules."""
        raise NotImplementedError

    def load_pretrained(self, path: Path) -> str:
        """Takes over the weights of another network, as `train.pretrained` names them; returns a line for the log.

        Raises NetworkError where the network knows no such weights, InputError where these do not fit.
        """
        raise NetworkError(
            f"train.pretrained: {path}: {self.architecture.name} starts from no weights of others. Set it to null."
        )


def check_pair(pre: Tensor, post: Tensor, network: str) -> None:
    """Raises ValueError, which names the network, where the two are not image batches of one shape."""
    if pre.shape != post.shape or pre.ndim != 4 or pre.shape[1] != 3:
        raise ValueError(
            f"{network}: pre {tuple(pre.shape)} and post {tuple(post.shape)}, expected two tensors of one shape "
            "[B, 3, H, W]."
        )
