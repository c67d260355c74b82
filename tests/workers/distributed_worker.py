"""What test_distributed.py runs in several processes: `report OUT` or `fail`."""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from base.errors import InputError, errors_in_one_line
from model.train.distributed import join_world

# Neither float32 nor float64 holds it: a sum that passes through either comes out wrong.
LARGE = 2**53 + 1


def counts(rank: int) -> torch.Tensor:
    """[2, 5, 5] int64, other values on every rank."""
    return torch.arange(50).reshape(2, 5, 5) * (rank + 1) + LARGE


def report(out: Path) -> None:
    """The first attempt of torchrun loses a process; the second tells what its world is and exchanges."""
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if attempt == 1 and os.environ["RANK"] == "1":
        time.sleep(2)  # so that rank 0 looks for it before it is there, and must not find the lost process's address
    with join_world(60) as world:
        if attempt == 0 and world.rank == 1:
            sys.exit(3)
        own = counts(world.rank)
        total = world.reduce_sum(own)
        found = {
            "attempt": attempt,
            "world": [world.rank, world.size, world.local_rank, str(world.device), world.is_main],
            "threads": torch.get_num_threads(),
            "sum": total.tolist(),
            "own is kept": torch.equal(own, counts(world.rank)),
            "any": [world.any(False), world.any(world.rank == 1), world.any(True)],
            "gather": world.gather({"rank": world.rank}),
            "broadcast": world.broadcast([f"from {world.rank}"]),
        }
    found["left"] = not dist.is_initialized()
    (out / f"{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


def fail() -> None:
    """Rank 0 fails while an exchange is under way that rank 1, which waits for something else, never joins."""
    with errors_in_one_line(), join_world(600) as world:
        world.any(False)
        if world.is_main:
            dist.all_reduce(torch.zeros(3), async_op=True)
            raise InputError("scene 7 cannot be read")
        dist.recv(torch.zeros(3), src=0)


if __name__ == "__main__":
    if sys.argv[1] == "report":
        report(Path(sys.argv[2]))
    else:
        fail()
