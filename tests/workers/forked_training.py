"""The step train in several processes for tests that need what these train and say, but not torchrun itself: they are
forked from one that has imported for all. `forked_training.py SIZE RUNS`, the latter as `trained` writes them.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from tests.commands import environment
from tests.servers.ports import free_port
from tests.stores import ready_store
from tests.workers.worlds import fork_world

Run = Sequence[str | Path]  # a file for what the processes say to stderr, and the arguments of train


def trained(size: int, *runs: Run, cwd: Path) -> list[list[int]]:
    """Runs train with the arguments of each run in turn, in `size` processes; returns the exit codes of their ranks."""
    ready_store(cwd)
    command = [sys.executable, __file__, str(size), json.dumps([list(map(str, run)) for run in runs])]
    result = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    codes: list[list[int]] = json.loads(result.stdout.splitlines()[-1])
    return codes


def main(size: int, runs: Sequence[Sequence[str]]) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from components.train import main as train

    for name in ("torch._dynamo", "components.tracking.runs", "model.train.training"):
        importlib.import_module(name)  # which train, and torch's optimizers, do at first use
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # as under torchrun the store outlives the processes
    codes = []
    for log, *arguments in runs:
        port = free_port()
        store = TCPStore("127.0.0.1", port, None, True, timedelta(seconds=60), wait_for_workers=False)
        processes = fork_world(size, train, arguments, port=port, errors=Path(log))
        for process in processes:
            process.join()
        codes.append([process.exitcode for process in processes])
        del store
    print(json.dumps(codes))


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
