"""Worlds of several processes for tests: by torchrun, as users start them, or forked from a process that has torch."""

import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from tests.servers.ports import free_port


def torchrun_command(script: Path, size: int, *arguments: str | Path, options: tuple[str, ...] = ()) -> list[str]:
    """A command that runs `script` in `size` processes of this machine, on a port of its own."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *options]
    return [*launch, str(script), *map(str, arguments)]


def torchrun(
    script: Path, size: int, *arguments: str | Path, environment: dict[str, str], options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs `script` in `size` processes to the end."""
    command = torchrun_command(script, size, *arguments, options=options)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def fork_world(
    size: int, run: Callable[..., None], *arguments: Any, port: int | None = None, errors: Path | None = None
) -> list[ForkProcess]:
    """Starts run(*arguments) in `size` processes that find each other as under torchrun, but for its store: rank 0 has
    it. Importing torch costs seconds in each process, forking none; for scripts that did nothing with torch before.

    port: of that store. errors: file for what they write to stderr.
    """
    port = port or free_port()
    gc.freeze()  # what is there already need not be searched for garbage, and so not be copied, by each of them
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_member, args=(rank, size, port, errors, run, arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def members(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables by which a process finds its world on this machine."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _member(
    rank: int, size: int, port: int, errors: Path | None, run: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(members(rank, size, port))
    if errors is not None:
        with errors.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    run(*arguments)
