"""Variants measured side by side: each in a fresh process of its own, one at a time, in turns.

A turn of a variant is preceded by a float32 matrix product in the same process, because a machine's speed drifts: a
rate is stated as nominal GFLOP per second over that of the product (sgemm).
"""

import multiprocessing as mp
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

Work = Callable[[], object]
SIDE, PRODUCTS = 1024, 100


@dataclass(frozen=True)
class Turn:
    """wall and cpu in seconds; sgemm in GFLOP/s; peak memory of the process so far in GB; what the work returned."""

    wall: float
    cpu: float
    sgemm: float
    peak: float
    result: float


def side_by_side(variants: Mapping[str, Callable[[], Work]], turns: int = 5) -> dict[str, list[Turn]]:
    """Runs each variant `turns` times, alternating; a variant is a picklable function that returns the work.

    Each process does its work once before it is measured.
    """
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, variant in variants.items():
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(variant, theirs), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    found: dict[str, list[Turn]] = {name: [] for name in variants}
    for _ in range(turns):
        for name, pipe in pipes.items():
            pipe.send(True)
            found[name].append(pipe.recv())
    for process in processes:
        process.kill()
    return found


def table(found: dict[str, list[Turn]], gflop: float | None = None) -> str:
    """Medians as a Markdown table; CPU ratios are to the first variant, turn by turn. gflop: nominal work of a turn."""
    rate = "" if gflop is None else " nominal rate / sgemm |"
    lines = [f"| variant | wall s | CPU s | CPU, first / this | peak GB |{rate}", "|" + "---|" * (5 + bool(rate))]
    first = next(iter(found.values()))
    for name, turns in found.items():
        wall, cpu, _, peak, _ = (statistics.median(column) for column in zip(*map(astuple, turns), strict=True))
        ratio = statistics.median(a.cpu / b.cpu for a, b in zip(first, turns, strict=True))
        line = f"| {name} | {wall:.3g} | {cpu:.3g} | {ratio:.2f} | {peak:.2f} |"
        if gflop is not None:
            line += f" {statistics.median(gflop / turn.wall / turn.sgemm for turn in turns):.2f} |"
        lines.append(line)
    sgemm = statistics.median(turn.sgemm for turns in found.values() for turn in turns)
    cores = torch.get_num_threads()
    return "\n".join(
        [
            *lines,
            "",
            f"sgemm {sgemm:.0f} GFLOP/s, {cores} threads, torch {torch.__version__}, "
            f"Python {platform.python_version()}, {len(first)} turns",
        ]
    )


def _serve(variant: Callable[[], Work], pipe: Connection) -> None:
    work = variant()
    work()
    square = torch.randn(SIDE, SIDE)
    pipe.send(True)
    while pipe.recv():
        start = time.perf_counter()
        for _ in range(PRODUCTS):
            square @ square
        sgemm = 2e-9 * PRODUCTS * SIDE**3 / (time.perf_counter() - start)
        start, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        # Not ru_maxrss, which a new process inherits from the one that started it.
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e6
        pipe.send(Turn(wall, cpu, sgemm, peak, result if isinstance(result, float) else 0.0))
