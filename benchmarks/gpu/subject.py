"""What is measured: the paper's network and its training step, without anything around them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.architecture import Architecture
from model.dual_hrnet import DualHRNet
from model.inference import normalize
from model.losses import dual_loss
from model.settings import TrainSettings

# Paper, section 4 of the network: 181 GFLOP forward for a pair of 512²; backward is twice that.
FORWARD_GFLOP = 181.0
SMALL = Architecture(width=4, stem_width=8, stage1_width=4, stage1_blocks=1, modules=(1, 1, 1), blocks=1)


@dataclass(frozen=True)
class Scale:
    """How large the measurements are. network: that of `DualHRNet`; crop, image: pixels of a side in training and in
    inference; batches: pairs in a pass; workers: of the loader; rate: side of the matrix product; seconds: of each
    measurement.
    """

    device: torch.device
    network: Architecture = field(default_factory=Architecture)
    crop: int = 512
    image: int = 1024
    batches: tuple[int, ...] = (2, 8, 16)
    workers: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    rate: int = 8192
    seconds: float = 3.0

    @property
    def gflop(self) -> float:
        """Forward, for a pair of 512²; 0 where the network is not the paper's."""
        return FORWARD_GFLOP if self.network == Architecture() else 0.0


def settings(network: Architecture, **changes: Any) -> TrainSettings:
    """The paper's settings, as far as a step of training needs them."""
    given: dict[str, Any] = {
        "network": network, "pretrained": None, "seed": 0, "epochs": 1, "global_batch_size": 2, "device_batch_size": 2,
        "crop_size": 512, "crops_per_scene": 1, "optimizer": "sgd", "scale": (0.8, 1.2), "damage_focus": 0.0,
        "misalignment": 0, "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "poly_power": 0.9,
        "damage_weight": 1.0, "damage_cross_entropy": 0.0, "class_weights": None, "validate_every": 0, "workers": 0,
        "recompute": False, "precision": "auto", "deterministic": False, "patience": 0, "checkpoint_every": 0,
        "keep_checkpoints": 1, "hang_timeout": 600, "profile": False,
    }  # fmt: skip
    return TrainSettings(**given | changes)


def network(scale: Scale, device: torch.device | None = None) -> DualHRNet:
    """The same weights each time."""
    torch.manual_seed(0)
    return DualHRNet(scale.network).to(device or scale.device)


def pairs(count: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """pre, post: uint8 [count, 3, side, side]; mask: uint8 [count, side, side], nine tenths of it background."""
    generator = torch.Generator().manual_seed(1)
    pre, post = torch.randint(0, 256, (2, count, 3, side, side), dtype=torch.uint8, generator=generator)
    grades = torch.randint(1, 5, (count, side // 8, side // 8), dtype=torch.uint8, generator=generator)
    built = torch.rand(grades.shape, generator=generator) < 0.1
    mask = (grades * built).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return pre.to(device), post.to(device), mask.to(device)


def trainer(scale: Scale, batch: int, *, half: bool, recompute: bool, channels_last: bool, compiled: bool) -> Any:
    """A training step of `batch` pairs of scale.crop², as a function without arguments."""
    model = network(scale).train()
    model.set_recompute(recompute)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    run: Callable[..., Any] = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, weight_decay=5e-4, fused=True)
    pre, post, mask = pairs(batch, scale.crop, scale.device)
    given = settings(scale.network)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(scale.device.type, dtype=torch.bfloat16, enabled=half):
            logits = run(*(normalize(image).contiguous(memory_format=layout) for image in (pre, post)))
        dual_loss(logits, mask, given).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def seconds_a_call(call: Callable[[], object], scale: Scale) -> float:
    """Mean over the calls of `scale.seconds`, two at least, after two that are not counted."""
    for _ in range(2):
        call()
    synchronize(scale.device)
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < scale.seconds:
        call()
        synchronize(scale.device)
        count += 1
    return (time.perf_counter() - start) / count


def synchronize(device: torch.device) -> None:
    """Waits for what the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
