"""How busy one GPU is that several processes share, each with shards of one map, as pods do with a share of a GPU.

python -m benchmarks.shared_gpu --raw XBD [--side 12288] [--shards 16] [--processes 2 4]

The network is the stand-in of benchmarks.imagery_cpu. First it takes no time, and the CPU-seconds of all shards tell
how many cores a GPU needs. Then it sleeps for each window as long as a GPU would work, stretched by these cores over
those of this machine, and only in one process at a time. The share of the time that somebody sleeps is how busy the GPU
would be: from the first window to the last one, and of all the time, from when the first process begins its first shard
until the last one has written its last. Plan and merge are not in it: they need no GPU.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing.synchronize import Barrier, Lock
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.imagery_cpu import StandIn
from benchmarks.imagery_growth import mosaic
from imagery.settings import Reading, Windows
from imagery.shards.plan import Plan, read_plan
from imagery.shards.planning import PlannedModel, make_plan
from imagery.shards.predicting import predict_shard
from imagery.shards.stored import name_of
from model.dual_hrnet import DualLogits
from model.inference import Origin, Predictor

NAME = "a stand-in"


class Cost(NamedTuple):
    """Of a process: CPU-seconds without those of the stand-in, windows that were not empty, and when the first of them
    began and the last ended, in seconds of one clock.
    """

    cpu: float
    windows: int
    first: float
    last: float


class SharedStandIn(StandIn):
    """A stand-in that sleeps while no other process's does."""

    def __init__(self, turn: Lock, seconds: float) -> None:
        super().__init__()
        self.turn, self.of_a_window = turn, seconds
        self.windows, self.used = 0, 0.0
        self.first, self.last = float("inf"), 0.0

    def for_inference(self) -> "SharedStandIn":
        """Itself: a lock cannot be copied."""
        return self

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """As the stand-in's; only one process at a time has the GPU."""
        start = time.thread_time()
        found = super().with_features(pre, post)
        self.used += time.thread_time() - start
        with self.turn:
            self.first = min(self.first, time.monotonic())
            time.sleep(self.of_a_window * len(pre))
            self.last = time.monotonic()
        self.windows += len(pre)
        return found


def predict(plan: Plan, numbers: Sequence[int], out: Path, network: SharedStandIn) -> None:
    """Predicts shards of the plan, one after the other."""
    for number in numbers:
        predict_shard(
            plan, number, lambda: (Predictor(network), NAME), Path, out / name_of(number), out / f"tiles-{number}",
            batch=1, workers=1,
        )  # fmt: skip


def work(
    folder: Path, numbers: Sequence[int], out: Path, seconds: float, turn: Lock, ready: Barrier, costs: Any
) -> None:
    """A process."""
    torch.set_num_threads(1)
    network = SharedStandIn(turn, seconds)
    plan = read_plan(folder)
    ready.wait()
    start = time.process_time()
    predict(plan, numbers, out, network)
    costs.put(Cost(time.process_time() - start - network.used, network.windows, network.first, network.last))


def run(folder: Path, plan: Plan, processes: int, seconds: float) -> tuple[Cost, float]:
    """All shards, by so many processes; what they cost together, and the seconds on the clock."""
    context = multiprocessing.get_context("spawn")
    turn, ready, costs = context.Lock(), context.Barrier(processes + 1), context.Queue()
    with tempfile.TemporaryDirectory() as out:
        own = []
        for first in range(processes):
            numbers = range(first, len(plan.shards), processes)
            given = folder, numbers, Path(out), seconds, turn, ready, costs
            own.append(context.Process(target=work, args=given))
        for process in own:
            process.start()
        ready.wait(300)
        start = time.perf_counter()
        for process in own:
            process.join()
        wall = time.perf_counter() - start
    if any(process.exitcode for process in own):
        raise SystemExit("a process failed")
    found: list[Cost] = [costs.get() for _ in own]
    total = sum(one.cpu for one in found), sum(one.windows for one in found)
    return Cost(*total, min(one.first for one in found), max(one.last for one in found)), wall


def plan_of(folder: Path, shards: int) -> Plan:
    """The plan of the pair in the folder, written there, too."""

    def load() -> PlannedModel:
        return PlannedModel(NAME, NAME, NAME, Origin(), None, None, {"calibrated": False, "adjusted": False})

    with redirect_stdout(StringIO()):
        plan = make_plan(
            load, [str(folder / "pre.tif")], [str(folder / "post.tif")], Path, shards, reading=Reading(),
            windows=Windows(), features=True, names={"before": ["pre.tif"], "after": ["post.tif"]},
        )  # fmt: skip
    plan.write(folder / "plan.json")
    return plan


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the cores that a GPU needs, and how busy it is with them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--side", type=int, default=12288, help="pixels of a side (%(default)s)")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="that share the GPU")
    parser.add_argument("--gpu-ms", type=float, default=2.1, help="milliseconds of a window on a GPU (%(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="of this machine (%(default)s)")
    a = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = sorted(a.raw.glob("*/images/*_pre_disaster.png"))
        mosaic(images, folder / "pre.tif", a.side, 0)
        mosaic([Path(str(path).replace("_pre_", "_post_")) for path in images], folder / "post.tif", a.side, 0.5)
        plan = plan_of(folder, a.shards)
        cost, _ = run(folder / "plan.json", plan, a.cores, 0.0)
        of_a_window = cost.cpu / cost.windows
        cores = 1000 * of_a_window / a.gpu_ms
        print(
            f"{cost.windows} windows of {a.shards} shards: {cost.cpu:.1f} CPU s, {1000 * of_a_window:.0f} ms a window"
        )
        print(f"{cores:.0f} cores for a GPU of {a.gpu_ms:g} ms a window", flush=True)
        print(
            "| processes | sleep of a window | CPU s | s | busy between first and last | of all |\n" + 6 * "|---" + "|"
        )
        for processes in a.processes:
            sleep = of_a_window / a.cores
            own, wall = run(folder / "plan.json", plan, processes, sleep)
            busy = [f"{100 * sleep * own.windows / seconds:.0f} %" for seconds in (own.last - own.first, wall)]
            row = [str(processes), f"{1000 * sleep:.0f} ms", f"{own.cpu:.1f}", f"{wall:.0f}", *busy]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
