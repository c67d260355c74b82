"""What test_pulse.py runs: a stand-in for training, in which one rank gets stuck in one of several ways.

`pulse_worker.py OUT` forks a world for every scene, all at once, and writes what each said and how it ended;
`pulse_worker.py SCENE` is one process of such a world, for torchrun.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from base.errors import errors_in_one_line
from model.train.distributed import World, join_world
from model.train.pulse import Pulse
from tests.workers.worlds import fork_world

TIMEOUT = 6.0  # a tenth of it between two looks: 18 processes on two cores need more than a blink
STUCK_AT = 5  # steps


def stop() -> None:
    """As a frozen container or a debugger does it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def wait() -> None:
    """As a read from a file server that is gone would."""
    threading.Event().wait()


def sleeping_reader(world: World, pulse: Pulse) -> None:
    """Rank 1 waits for data that does not come."""
    steps(world, pulse, before=wait, stuck=1)


def stopped_process(world: World, pulse: Pulse) -> None:
    """Rank 1 is stopped after it got as far as the others will."""
    steps(world, pulse, after=stop, stuck=1)


def stopped_store(world: World, pulse: Pulse) -> None:
    """Rank 0 is stopped."""
    steps(world, pulse, before=stop, stuck=0)


def lost_exchange(world: World, pulse: Pulse) -> None:
    """All ranks wait, each as far as the others."""
    steps(world, pulse, after=wait, stuck=None)


def error(world: World, pulse: Pulse) -> None:
    """Rank 1 fails by itself."""
    if world.rank == 1:
        raise KeyError("scene 7")
    steps(world, pulse, stuck=None)


def uneven_work(world: World, pulse: Pulse) -> None:
    """Nothing is wrong: rank 1 has far more to validate, and longer than the timeout."""
    for _ in range(3):
        pulse.beat()
        world.any(False)
    for _ in range(40 * world.rank):
        pulse.alive()
        time.sleep(TIMEOUT / 20)
    pulse.beat()


def steps(
    world: World,
    pulse: Pulse,
    stuck: int | None,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Training: read a batch, run forward (a beat), exchange."""
    for step in range(1000):
        caught = step == STUCK_AT and (stuck is None or world.rank == stuck)
        if caught:
            before()
        pulse.beat()
        if caught:
            after()
        world.reduce_sum(torch.ones(1))


SCENES = (sleeping_reader, stopped_process, stopped_store, lost_exchange, error, uneven_work)
STOPPED = {"stopped_process": 1, "stopped_store": 0}  # the ranks that do not end of themselves


def run(scene: Callable[[World, Pulse], None]) -> None:
    with errors_in_one_line(), join_world(60) as world, Pulse(world, TIMEOUT) as pulse:
        scene(world, pulse)


def main(out: Path) -> None:
    worlds = {scene.__name__: fork_world(3, run, scene, errors=out / f"{scene.__name__}.txt") for scene in SCENES}
    for name, processes in worlds.items():
        for rank, process in enumerate(processes):
            if rank != STOPPED.get(name):
                process.join(60)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        (out / f"{name}.json").write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    by_name = {scene.__name__: scene for scene in SCENES}
    if sys.argv[1] in by_name:
        run(by_name[sys.argv[1]])
    else:
        main(Path(sys.argv[1]))
