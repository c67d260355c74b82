"""What decides the tensors of Dual-HRNet, as validated data without torch."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class Architecture:
    """Everything that decides which tensors an HRNet holds and how they are applied; the defaults are HRNetV2-W32."""

    name: ClassVar[str] = "dual-hrnet"
    parts: ClassVar[tuple[str, ...]] = ("stem", "encoder", "localization", "damage")  # see `DualHRNet.part`
    coarsest: ClassVar[int] = 32  # pixels of a side that are one in the coarsest branch, over which batch norm is taken

    width: Annotated[int, Ge(1)] = 32  # channels of the finest branch, C
    stem_width: Annotated[int, Ge(1)] = 64
    stage1_width: Annotated[int, Ge(1)] = 64
    stage1_blocks: Annotated[int, Ge(1)] = 4
    modules: Annotated[Sequence[Annotated[int, Ge(1)]], Len(3, 3)] = (1, 4, 3)  # in stages 2, 3 and 4
    blocks: Annotated[int, Ge(1)] = 4  # of each branch in a module
    # "imagenet" is conv, BN, ReLU, twice. "published" is the forward of the published Dual-HRNet, on which its weights
    # depend: no ReLU after the first BN, and one before the second.
    stem_order: Literal["imagenet", "published"] = "imagenet"
    # 0.01 in the published code. The running statistics that evaluation uses lag behind the weights by about
    # 1 / momentum steps, so that a run of a few hundred steps needs a larger one.
    batch_norm_momentum: Annotated[float, Gt(0), Le(1)] = 0.01

    def channels(self, branches: int) -> list[int]:
        """Channels of the first `branches` branches: C, 2C, 4C, 8C."""
        return [self.width * 2**i for i in range(branches)]
