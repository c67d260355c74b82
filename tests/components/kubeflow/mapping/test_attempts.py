"""A command that is tried again: how often, what is said of its end, and what ends with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.kubeflow.mapping.attempts import attempt
from tests.commands import program


def test_a_command_that_succeeds_runs_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert attempt(program(f"open({str(log)!r}, 'a').write('x')"), 3) == ""
    assert log.read_text() == "x"


def test_a_command_that_succeeds_at_last_has_no_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = f"""
import pathlib, sys
log = pathlib.Path({str(tmp_path / "log")!r})
log.write_text((log.read_text() if log.exists() else "") + "x")
print("to people", flush=True)
sys.exit("PlanError: the disk is\\x1b full" if log.read_text() != "xxx" else 0)
"""
    assert attempt(program(code), 3) == ""
    said = capfd.readouterr()
    assert said.out == "to people\n" * 3
    assert [line for line in said.err.splitlines() if line.startswith("attempt")] == [
        "attempt 1 of 3 failed: PlanError: the disk is\\x1b full",
        "attempt 2 of 3 failed: PlanError: the disk is\\x1b full",
    ]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('PlanError: a\\n')", "PlanError: a"),
        ("raise SystemExit(7)", "it ended with exit code 7 without a word."),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL. Its memory may have been too small."),
        ("import os; os.kill(os.getpid(), 11)", "it was ended by SIGSEGV."),
    ],
)
def test_the_reason_is_what_the_last_attempt_said_or_how_it_ended(code: str, why: str) -> None:
    assert attempt(program(code), 2) == why


def test_who_is_asked_to_stop_ends_what_it_started(tmp_path: Path) -> None:
    code = f"""
import sys
from base.errors import Preempted
from components.kubeflow.mapping.attempts import attempt
try:
    attempt([sys.executable, "-c", "import os, time; open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid())); "
             "time.sleep(600)"], 3)
except Preempted as error:
    print(error)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert said.startswith("asked to stop.")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
