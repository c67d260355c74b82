"""Command lines under test: their environment, how they are run, and how they may end."""

import importlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.paths import ROOT


def environment(**extra: str) -> dict[str, str]:
    """Environment of command lines under test: ours on the path, no MLflow of the machine, one thread or as many
    as these tests have.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "true"}
    return {"OMP_NUM_THREADS": "1"} | kept | quiet | {"PYTHONPATH": str(ROOT), "PATH": path} | extra


def program(code: str) -> list[str]:
    """A command that runs this Python code; more may follow. Unlike `python -c` it is forked: see fork_server.py."""
    path = Path(tempfile.mkdtemp(), "program.py")
    path.write_text(code, encoding="utf-8")
    return [sys.executable, str(path)]


def run_step(name: str, *arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m components.NAME` in a process of its own, with `cwd` as working directory."""
    command = [sys.executable, "-m", f"components.{name}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=300)


def succeed(name: str, *arguments: str | Path, cwd: Path, **extra: str) -> str:
    """Runs a step that must succeed; returns its stdout."""
    result = run_step(name, *arguments, cwd=cwd, **extra)
    assert result.returncode == 0, result.stderr
    return result.stdout


def step_here(name: str) -> Callable[[Sequence[str]], None]:
    """The command line of a step in this process, where the command itself is not what is tested: in a process of its
    own, every step imports for seconds. The step's settings for MLflow: see `using`.
    """
    main: Callable[[Sequence[str]], None] = importlib.import_module(f"components.{name}").main

    def run(arguments: Sequence[str]) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            main(arguments)
        finally:
            signal.signal(signal.SIGTERM, handler)  # train takes it for itself

    return run


def succeed_here(name: str, *arguments: str | Path) -> str:
    """Runs a step in this process, see `step_here`; returns its stdout."""
    with redirect_stdout(io.StringIO()) as said:
        step_here(name)([str(argument) for argument in arguments])
    return said.getvalue()


def assert_one_line(result: subprocess.CompletedProcess[str], *named: str) -> None:
    """The command failed, and said so in a single line that names each of `named`."""
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in named:
        assert part in result.stderr, result.stderr


def exit_line(main: Callable[[Sequence[str]], None], *arguments: str | Path) -> str:
    """The one line with which a command ends; Python prints it to stderr and exits with 1."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str)
    assert "\n" not in caught.value.code
    return caught.value.code


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for it, a minute at most."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def runs(process: int) -> bool:
    """Whether the process is there and no zombie, which only waits for someone to ask for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False
