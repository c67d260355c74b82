"""A forked process is like a fresh one in what libraries keep from the start of a process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.commands import environment

SCRIPT = """
import os, tempfile, time
import numpy
print(tempfile.gettempdir(), time.strftime("%Z"), f"{os.umask(0):o}", numpy.random.random())
"""


def test_a_forked_process_has_its_own_environment_umask_and_random_numbers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    before = os.umask(0o027)
    try:
        found = [
            subprocess.run(
                [sys.executable, script], env=environment(TMPDIR=str(tmp_path), TZ="Asia/Tokyo"), text=True,
                stdout=subprocess.PIPE, check=True,
            ).stdout.split()
            for _ in range(2)
        ]  # fmt: skip
    finally:
        os.umask(before)
    assert [each[:3] for each in found] == [[str(tmp_path), "JST", "27"]] * 2
    assert found[0][3] != found[1][3]
