"""What test_sync_batch_norm.py runs in worlds of 2 and 4 processes; every rank leaves its results in a file."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers and checkpoints import it at first use: here once, before the processes fork
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.dual_hrnet import DualHRNet
from model.train.distributed import World, join_world
from model.train.sync_batch_norm import SyncBatchNorm2d, convert
from tests.workers.worlds import fork_world

SIZES = (2, 4)
CHANNELS = 5
STEPS = 3


@dataclass(frozen=True)
class Case:
    """A batch norm, and the input on which it is compared; rank i has the i-th of `images`, and so on in turn."""

    images: Sequence[int] = (2,)
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    offset: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def images_of(self, rank: int) -> int:
        return self.images[rank % len(self.images)]

    def norm(self, kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
        """A layer with weight and bias of their own; bfloat16 is the type of the input under autocast only."""
        norm = kind(CHANNELS, **self.options)
        torch.manual_seed(3)
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
        return norm.to(torch.float64 if self.dtype == torch.float64 else torch.float32)

    def batch(self, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Input and gradient of the output, of all ranks together: [B, CHANNELS, 6, 7]."""
        torch.manual_seed(100 + step)
        shape = (sum(self.images_of(rank) for rank in range(size)), CHANNELS, 6, 7)
        # Every channel, and every image, with a mean and a spread of its own: ranks have different statistics.
        spread = torch.rand(shape[0], CHANNELS, 1, 1) + 0.5
        input = torch.randn(shape) * spread + torch.randn(shape[0], CHANNELS, 1, 1) + self.offset
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        grad = torch.randn(shape).to(self.dtype)
        return input.to(self.dtype, memory_format=layout), grad.to(memory_format=layout)


CASES = {
    "float32": Case(),
    "float64": Case(dtype=torch.float64, channels_last=False),
    "unequal": Case(images=(3, 1), dtype=torch.float64),
    "plain layout": Case(channels_last=False, images=(1, 4)),
    "cumulative": Case(images=(3, 1), dtype=torch.float64, options={"momentum": None}),
    "not affine": Case(dtype=torch.float64, options={"affine": False}),
    "no running statistics": Case(dtype=torch.float64, options={"track_running_stats": False}),
    "large mean": Case(offset=4096.0),
    "autocast": Case(dtype=torch.bfloat16),
}


def train_steps(norm: nn.BatchNorm2d, case: Case, size: int, own: slice) -> dict[str, Tensor]:
    """A few steps in training on the images `own` of each batch; then eval mode."""
    norm.train()
    for step in range(STEPS):
        input, grad = (part[own].detach() for part in case.batch(size, step))
        input.requires_grad_()
        norm.zero_grad()
        half = case.dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            output = norm(input)
        output.backward(grad)
    assert input.grad is not None
    results = {"output": output.detach(), "input_grad": input.grad}
    results |= {f"{name}_grad": part.grad for name, part in norm.named_parameters() if part.grad is not None}
    results |= {name: buffer.clone() for name, buffer in norm.named_buffers()}
    if norm.track_running_stats:  # without, eval mode takes the statistics of its own batch, as torch's layers do
        results["eval"] = norm.eval()(input.detach()).detach()
    return results


def network(recompute: bool) -> DualHRNet:
    torch.manual_seed(5)
    fields: dict[str, Any] = {"width": 4, "stem_width": 8, "stage1_width": 4, "stage1_blocks": 1, "blocks": 1}
    model = DualHRNet(**fields, modules=(1, 1, 1)).double()
    model.set_recompute(recompute)
    return model


def network_step(model: nn.Module, images: Tensor, target: Tensor) -> None:
    """One step of SGD on the mean loss; images: [2, B, 3, 64, 64], target: [B, 6, 16, 16]."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    logits = model.train()(*images)
    F.mse_loss(torch.cat(tuple(logits), dim=1), target).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def network_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(6)
    return torch.randn(2, 4, 3, 64, 64).double(), torch.randn(4, 6, 16, 16).double()


def network_results(world: World, recompute: bool) -> dict[str, Tensor]:
    """State of the network after a step in which every rank has its share of the four pairs."""
    model = convert(network(recompute), world)
    images, target = (
        part.chunk(world.size, dim)[world.rank] for part, dim in zip(network_batch(), (1, 0), strict=True)
    )
    network_step(DistributedDataParallel(model, forward_sync_buffers=False), images, target)
    return model.state_dict()


def run(out: Path) -> None:
    torch.set_num_threads(1)
    with join_world(60) as world:
        results: dict[str, dict[str, Tensor]] = {}
        for name, case in CASES.items():
            start = sum(case.images_of(rank) for rank in range(world.rank))
            own = slice(start, start + case.images_of(world.rank))
            results[name] = train_steps(case.norm(SyncBatchNorm2d), case, world.size, own)
        for recompute in (False, True):
            results[f"network, recompute {recompute}"] = network_results(world, recompute)
        torch.save(results, out / f"{world.size}-{world.rank}.pt")


if __name__ == "__main__":
    for size in SIZES:
        processes = fork_world(size, run, Path(sys.argv[1]))
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * size
