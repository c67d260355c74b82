"""`python -m components.launch`: exit codes by which an operator knows whether to start the pods again."""

import subprocess
import sys
from pathlib import Path

import pytest

from base.command_line import HUNG, RESTARTABLE
from tests.commands import environment

ENDS = {
    "import sys; sys.exit('a wrong parameter')": 1,
    "import sys; sys.exit(3)": 3,
    "import os; os.kill(os.getpid(), 9)": 137,
    "import os; os.kill(os.getpid(), 6)": 134,
    f"import os; os._exit({HUNG})": HUNG,
    # An instruction that the processor lacks, and a code that no signal has: the next try would end as this one.
    "import os; os.kill(os.getpid(), 4)": 1,
    "import os; os._exit(255)": 1,
}


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How torchrun ended where its process ran this code; all at once, as each takes seconds to start."""
    folder = tmp_path_factory.mktemp("scripts")
    running = {}
    for number, code in enumerate(ENDS):
        script: Path = folder / f"{number}.py"
        script.write_text(code, encoding="utf-8")
        command = [sys.executable, "-m", "components.launch", "--standalone", "--nproc-per-node=1", str(script)]
        fresh = sys.executable if number == 0 else None  # one of them in an interpreter that has imported nothing yet
        running[code] = subprocess.Popen(command, executable=fresh, env=environment(), stderr=subprocess.DEVNULL)
    return {code: process.wait(240) for code, process in running.items()}


@pytest.mark.endurance
@pytest.mark.parametrize(("code", "expected"), ENDS.items())
def test_only_what_another_try_may_mend_asks_for_one(codes: dict[str, int], code: str, expected: int) -> None:
    assert codes[code] == expected


def test_no_restartable_code_is_below_128_where_kubeflow_never_restarts() -> None:
    assert min(RESTARTABLE) > 128
    assert HUNG in RESTARTABLE
