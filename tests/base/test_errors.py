"""A Python that is too old is named before any work, in one line, by every command and by make."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from base.errors import OLDEST_PYTHON
from tests.conftest import ROOT, assert_one_line, environment

COMMANDS = (
    "components.sample --params params.yaml --out out",
    "components.fetch --version 0 --remote remote --out out",
    "components.prepare --params params.yaml --raw raw --out out",
    "components.train --params params.yaml --data data --out out",
    "components.evaluate --params params.yaml --data data --model model --out out",
    "components.register --params params.yaml --model model --metrics metrics --run run --out out",
    "components.promote --params params.yaml --data data",
    "components.predict --model model --images images --out out",
    "components.import_weights --checkpoint weight.pth --out out",
    "components.pytorchjob --params params.yaml --name name --image image --data data --out out",
    "pipeline compile --out out",
    "xbd.importing --archives archive --out out",
    "xbd.overview data",
)


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python says that it is 3.11.2, as Debian 12 has it."""
    (tmp_path / "sitecustomize.py").write_text('import sys\nsys.version_info = (3, 11, 2, "final", 0)\n')
    return environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_a_python_that_is_too_old(command: str, old: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    arguments = [sys.executable, "-m", *command.split()]
    result = subprocess.run(arguments, cwd=tmp_path / "work", env=old, capture_output=True, text=True)
    assert_one_line(result, "InputError", "found Python 3.11.2", "expected 3.11.4 or newer", "make install PYTHON=")
    assert list((tmp_path / "work").iterdir()) == []


def test_make_names_a_python_that_is_too_old_and_installs_nothing(old: dict[str, str], tmp_path: Path) -> None:
    here = tmp_path / "checkout"
    shutil.copytree(ROOT / "base", here / "base")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, here)
    old["PYTHONPATH"] = str(tmp_path)
    command = ["make", "--no-print-directory", "demo", f"PYTHON={sys.executable}"]
    result = subprocess.run(command, cwd=here, env=old, capture_output=True, text=True)
    assert result.returncode == 2
    line, stop = result.stderr.splitlines()
    assert line.startswith(f"InputError: {sys.executable}: found Python 3.11.2, expected 3.11.4 or newer.")
    assert "*** [Makefile:" in stop
    assert result.stdout == ""
    assert not (here / ".venv").exists()


def test_the_project_requires_the_python_that_its_commands_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = ".".join(map(str, OLDEST_PYTHON))
    assert project["requires-python"] == f">={oldest},<3.12"
