"""What it costs to train in many processes: a step on the same batch by 1 to 16 processes of this CPU.

python -m benchmarks.scaling

The processes share the cores, so that the arithmetic of a step is the same whatever their number, and what is added is
the overhead: of synchronized batch norm, and of the gradients' exchange.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.dual_hrnet import DualHRNet
from model.train.distributed import World, join_world
from model.train.sync_batch_norm import convert

WORLDS = (1, 2, 4, 8, 16)
BATCH, SIDE, WIDTH = 16, 64, 8
STEPS = 3


def measure(world: World) -> dict[str, float]:
    """Median seconds of a step without any exchange, with synchronized batch norm, and with the gradients' too.

    The three take turns, so that what else the machine does meets all of them.
    """
    torch.manual_seed(0)
    images = torch.randn(2, BATCH // world.size, 3, SIDE, SIDE)
    plain, synchronized = (DualHRNet(width=WIDTH, stem_width=16, stage1_width=8) for _ in range(2))
    steps = {"alone": plain, "batch norm": convert(synchronized, world)}
    if world.size > 1:
        steps["batch norm and gradients"] = DistributedDataParallel(
            convert(copy.deepcopy(plain), world), forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(STEPS + 1):
        for name, model in steps.items():
            seconds[name].append(_step(model, images, world))
    return {name: median(times[1:]) for name, times in seconds.items()}


def _step(model: nn.Module, images: torch.Tensor, world: World) -> float:
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    world.any(False)  # all start together
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    sum(part.square().mean() for part in model(*images)).backward()
    optimizer.step()
    world.any(False)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; with --worker, measures as one of several processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args(argv).worker:
        with join_world(600) as world:
            found = measure(world)
            if world.is_main:
                print(json.dumps(found))
        return
    print("| processes | no exchange, ms | + batch norm | + gradients | all / no exchange |\n|" + "---|" * 5)
    for size in WORLDS:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        command += ["-m", "benchmarks.scaling", "--worker"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        times = [1e3 * value for value in json.loads(output.splitlines()[-1]).values()]
        alone, norm, both = times if size > 1 else [times[0]] * 3  # one process exchanges nothing
        print(f"| {size} | {alone:.0f} | {norm - alone:+.0f} | {both - norm:+.0f} | {both / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
