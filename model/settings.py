"""What decides a network and a training run, as validated data; without torch, so that a `--help` stays quick."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt, MultipleOf
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class Architecture:
    """Everything that decides which tensors an HRNet holds and how they are applied.

    The defaults are HRNetV2-W32. stem_order is "imagenet" (conv, BN, ReLU, twice) or "published": the published
    Dual-HRNet forward has no ReLU after the first BN and one before the second, and its weights depend on it.
    batch_norm_momentum is 0.01 in the published code; a run of a few hundred steps needs a larger one, because the
    running statistics that evaluation uses lag behind the weights by about 1 / momentum steps.
    """

    width: Annotated[int, Ge(1)] = 32
    stem_width: Annotated[int, Ge(1)] = 64
    stage1_width: Annotated[int, Ge(1)] = 64
    stage1_blocks: Annotated[int, Ge(1)] = 4
    modules: Annotated[Sequence[Annotated[int, Ge(1)]], Len(3, 3)] = (1, 4, 3)
    blocks: Annotated[int, Ge(1)] = 4
    stem_order: Literal["imagenet", "published"] = "imagenet"
    batch_norm_momentum: Annotated[float, Gt(0), Le(1)] = 0.01

    def channels(self, branches: int) -> list[int]:
        """Channels of the first `branches` branches: C, 2C, 4C, 8C."""
        return [self.width * 2**i for i in range(branches)]


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class TrainSettings:
    """The `train` section of params.yaml: the paper's recipe (section 3) and what it leaves open.

    pretrained: weights of an ImageNet HRNet for both streams: a file, or owner/name on the Hugging Face hub, or null.
    device_batch_size: pairs in one pass of a process through the network, over which both losses are taken, and over
    which and the same pass of all other processes batch norm is; the gradients of global_batch_size pairs are
    accumulated for each step of the optimizer. recompute: keep a fraction of
    the activations and compute the others twice. precision: "auto" is bfloat16 where a GPU computes, with losses and
    weights in float32, and float32 on a CPU. deterministic: refuse operations whose results vary from run to run.
    optimizer: "sgd" with momentum is the paper's; "adamw" gets a network without pretrained weights on its way in
    fewer steps. crops_per_scene: random crops of each scene in an epoch; the paper takes one. damage_focus: share of
    the crops that are placed around damage; misalignment: pixels by which post is shifted at most. Both are 0 in the
    paper, and defined by `SceneCrops`. damage_weight: the paper's alpha. damage_cross_entropy: share of cross-entropy
    that is added to the damage loss; 0 is the paper's. class_weights: factors of the damage grades in both losses, or
    null. validate_every: in epochs; 0 never validates and keeps the last weights instead of the best. workers:
    processes that read crops beside each training process. patience: validations without a better score after which
    training ends; 0 never ends it early. checkpoint_every: steps between checkpoints within an epoch, beside the one
    after each epoch; 0 for none. keep_checkpoints: how many of the newest, beside the best. hang_timeout: seconds
    without progress after which a run of several processes ends. profile: trace a few steps.
    """

    network: Architecture
    pretrained: str | None
    seed: Annotated[int, Ge(0)]
    epochs: Annotated[int, Ge(1)]
    global_batch_size: Annotated[int, Ge(1)]
    device_batch_size: Annotated[int, Ge(1)]
    crop_size: Annotated[int, Ge(32), MultipleOf(32)]
    crops_per_scene: Annotated[int, Ge(1)]
    optimizer: Literal["sgd", "adamw"]
    scale: Annotated[Sequence[Annotated[float, Gt(0), Le(4)]], Len(2, 2)]
    damage_focus: Annotated[float, Ge(0), Le(1)]
    misalignment: Annotated[int, Ge(0)]
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    weight_decay: Annotated[float, Ge(0)]
    poly_power: Annotated[float, Ge(0)]
    damage_weight: Annotated[float, Ge(0)]
    damage_cross_entropy: Annotated[float, Ge(0)]
    class_weights: Annotated[Sequence[Annotated[float, Ge(0)]], Len(4, 4)] | None
    validate_every: Annotated[int, Ge(0)]
    workers: Annotated[int, Ge(0)]
    recompute: bool
    precision: Literal["auto", "float32", "bfloat16"]
    deterministic: bool
    patience: Annotated[int, Ge(0)]
    checkpoint_every: Annotated[int, Ge(0)]
    keep_checkpoints: Annotated[int, Ge(1)]
    hang_timeout: Annotated[int, Ge(1)]
    profile: bool
