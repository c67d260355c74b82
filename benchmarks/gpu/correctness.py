"""Whether a device computes what the CPU computes: logits, loss, gradients, batch norm over processes, folding."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as SyncFunction

from benchmarks.gpu.subject import Scale, network, pairs, settings
from model.dual_hrnet import DualHRNet
from model.inference import Predictor, normalize
from model.losses import dual_loss

SIDE, BATCH = 256, 2


@dataclass(frozen=True)
class Check:
    """difference: largest one, over the largest number of what is expected. bound: what rounding explains.
    difference is None where it cannot be asked on this device.
    """

    name: str
    difference: float | None
    bound: float

    @property
    def holds(self) -> bool:
        """Also where it was not asked."""
        return self.difference is None or self.difference <= self.bound


def check(scale: Scale) -> Iterator[Check]:
    """One check after the other. float32 has 24 bits and TF32 11, bfloat16 8, through some 300 layers."""
    cpu = torch.device("cpu")
    reference, found = network(scale, cpu), network(scale)
    side = min(SIDE, scale.crop)
    expected = step(reference, side, half=False)
    with exact():
        got = step(found, side, half=False)
        for name, one, other, bound in zip(
            ("logits", "loss", "gradients"), got, expected, (1e-4, 1e-4, 1e-2), strict=True
        ):
            yield Check(f"float32 {name}, against the CPU", relative(one, other), bound)
    if scale.device.type == "cuda":
        got = step(network(scale), side, half=False)
        yield Check(
            "float32 logits as convolutions take it (TF32), against the CPU", relative(got[0], expected[0]), 2e-2
        )
        got = step(network(scale), side, half=True)
        yield Check("bfloat16 logits, against float32 on the CPU", relative(got[0], expected[0]), 2e-1)
        yield Check("bfloat16 loss, against float32 on the CPU", relative(got[1], expected[1]), 5e-2)
    with exact():
        plain, pre_post = network(scale).eval(), pairs(1, side, scale.device)[:2]
        with torch.inference_mode():
            logits = plain(*(normalize(image) for image in pre_post))
            folded = Predictor(plain).logits(*pre_post)
            yield Check("folded network, against the plain one", relative(flat(folded), flat(logits)), 1e-4)
        yield from check_processes(scale, side)


def check_processes(scale: Scale, side: int) -> Iterator[Check]:
    """The exchanges of training in a world of one, by the backend that the device has."""
    backend = "nccl" if scale.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        numbers = torch.arange(5.0, device=scale.device)
        dist.all_reduce(numbers)
        yield Check(f"{backend}: the sum of one process", relative(numbers.cpu(), torch.arange(5.0)), 0.0)
        if scale.device.type != "cuda":
            yield Check("native SyncBatchNorm, against batch norm", None, 1e-4)  # it refuses CPUs
            return
        expected, got = step(network(scale), side, half=False), step(synchronized(network(scale)), side, half=False)
        yield Check("native SyncBatchNorm: logits, against batch norm", relative(got[0], expected[0]), 1e-4)
        yield Check("native SyncBatchNorm: gradients, against batch norm", relative(got[2], expected[2]), 1e-2)
    finally:
        dist.destroy_process_group()


def step(model: DualHRNet, side: int, *, half: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, loss and gradients of a pass in training, each as one row of float32 on the CPU."""
    device = next(model.parameters()).device
    pre, post, mask = pairs(BATCH, side, device)
    model.train()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        logits = model(normalize(pre), normalize(post))
    loss = dual_loss(logits, mask, settings(model.architecture)).total
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
    return flat(logits).detach(), loss.detach().cpu().reshape(1), gradients


def synchronized(model: DualHRNet) -> DualHRNet:
    """With PyTorch's own SyncBatchNorm, made to exchange: alone in its world, it would not."""

    def forward(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
        result = SyncFunction.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, norm.momentum, dist.group.WORLD, 1
        )
        assert isinstance(result, Tensor)
        return result

    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))  # type: ignore[no-untyped-call]
    for module in converted.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.forward = forward.__get__(module)  # type: ignore[method-assign]
    assert isinstance(converted, DualHRNet)
    return converted


def flat(logits: tuple[Tensor, Tensor]) -> Tensor:
    """Both logits as one row on the CPU."""
    return torch.cat([part.float().cpu().flatten() for part in logits])


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest number expected; infinite where a number is not finite."""
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    return difference if difference == difference else float("inf")


@contextmanager
def exact() -> Iterator[None]:
    """float32 in all 24 bits."""
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
