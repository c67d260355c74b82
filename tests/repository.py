"""Copies of the repository, and what git and DVC do in them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.commands import environment
from tests.paths import ROOT


def source_files() -> list[str]:
    """Files of the repository, those that are not committed yet included, without the tests."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and not name.startswith("tests/")]


def copy_repository(folder: Path) -> Path:
    """Copies the files of the repository, without its history and its data."""
    for name in source_files():
        if (ROOT / name).is_file():  # a deleted file is listed until it is staged
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def commit(repository: Path) -> None:
    """Commits everything that git does not ignore."""
    author = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "--message", "test"], cwd=repository, check=True)


def run_dvc(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs a DVC command in a process of its own."""
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**extra), capture_output=True, text=True, timeout=300)


def dvc(folder: Path, *arguments: str, **extra: str) -> str:
    """Output of a DVC command that must succeed."""
    result = run_dvc(folder, *arguments, **extra)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def stages_run(log: str) -> list[str]:
    """Stages that `dvc repro` ran, by its output."""
    return re.findall(r"Running stage '(\w+)'", log)
