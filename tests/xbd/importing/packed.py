"""Archives of raw data, and their import as the tests run it."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.conftest import (
    environment,
)
from xbd.importing import archive
from xbd.importing.archive import import_archives

FLOOD = "train/images/tiny-flood_00000001_post_disaster.png"


def pack(folder: Path, path: Path, *members: str) -> Path:
    """A .tar.gz of the given members of a folder, all by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member in members or sorted(child.name for child in folder.iterdir()):
            tar.add(folder / member, member)
    return path


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def run(*arguments: str | Path, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """`python -m xbd.importing` in a process of its own."""
    command = [sys.executable, "-m", "xbd.importing", *map(str, arguments)]
    known = {"env": environment(), "capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command, cwd=cwd, **(known | options))  # type: ignore[call-overload, no-any-return]


def silent(*sources: Path, out: Path) -> list[archive.Imported]:
    return import_archives(sources, out, verify=False, tell=lambda line: None)


def hidden(out: Path) -> set[str]:
    """What stands in the hidden folder beside the raw data."""
    return {path.name for path in (out.parent / f".{out.name}.import").iterdir()}
