"""A command that is tried again where it fails or is killed, and that says in the end why it failed.

Kubeflow cannot do this for a shard: `set_retry` starts no task again whose process failed, `ignore_upstream_failure` is
about what follows a task and not about its neighbours in a loop, and Argo ends a loop, with all shards that are still
at work, when one of its tasks fails (https://github.com/kubeflow/pipelines/issues/7330). So the task does it, and ends
well whatever came of its shard.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from base.errors import Preempted, printable


def attempt(command: Sequence[str], times: int) -> str:
    """Runs the command until it ends with 0, at most so many times; returns "", or why the last attempt failed.

    What it prints is printed. A SIGTERM to this process ends it, too, and raises Preempted.
    """
    why = ""
    for number in range(1, times + 1):
        why = _attempt(command)
        if not why:
            break
        print(f"attempt {number} of {times} failed: {why}", file=sys.stderr, flush=True)
    return why


def _attempt(command: Sequence[str]) -> str:
    last = deque[str](maxlen=1)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process, _ending(process):
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.strip():
                last.append(printable(line))
        code = process.wait()
    if not code:
        return ""
    if code < 0:
        name = signal.Signals(-code).name
        remedy = " Its memory may have been too small." if -code == signal.SIGKILL else ""
        return f"it was ended by {name}.{remedy}"
    return last[0] if last else f"it ended with exit code {code} without a word."


@contextmanager
def _ending(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Ends the process with this one."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Preempted("asked to stop. The next attempt goes on with the windows that are done.")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
        signal.signal(signal.SIGTERM, before)
