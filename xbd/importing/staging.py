"""How files come into a folder that others read: they gather in a hidden folder beside it and then move in.

The hidden folder (of `data/xbd`, `data/.xbd.import`) also holds what must be remembered between runs. It lies outside,
because DVC versions every file of a data folder, and git is told to leave it alone.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from base.errors import InputError, errors_name
from base.files import refuse_no_folder, write_file


class StagingError(InputError):
    """A folder that files cannot be moved to; names it, the finding and the remedy."""


def state_folder(out: Path) -> Path:
    """The hidden folder that belongs to `out`, on the same file system also where `out` is a link to another one."""
    out = out.resolve()
    return out.parent / f".{out.name}.import"


@contextmanager
def only_run(out: Path) -> Iterator[Path]:
    """Makes and gives the hidden folder, and keeps other runs away from it; the kernel forgets a killed holder.

    When the block ends without an error, everything is removed that runs which were given up have left. When it refuses
    its input (InputError), the hidden folder goes too, unless it remembers something.
    Raises InputError where another run is at work, or nothing could be moved into `out`.
    """
    refuse_no_folder(out)
    state = state_folder(out)
    if out.exists() and out.stat().st_dev != state.parent.stat().st_dev:
        raise StagingError(f"{out}: is a file system of its own, nothing can be moved there. Name a folder inside it.")
    made = [folder for folder in state.parents if not folder.exists()]
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StagingError(f"{out}: another import into it is running. Wait for its end.") from error
        write_file(state / ".gitignore", "*\n")
        try:
            yield state
        except InputError:
            _forget(state, made)
            raise
        for leftover in state.glob("*/"):
            shutil.rmtree(leftover)
        for leftover in state.glob(".*.partial"):
            leftover.unlink()


def _forget(state: Path, made: Sequence[Path]) -> None:
    """Removes a hidden folder that holds nothing to remember, and of the folders made for it those that are empty."""
    if {path.name for path in state.iterdir()} <= {"lock", ".gitignore"}:
        shutil.rmtree(state)
        with suppress(OSError):  # the first that holds something else ends it
            for folder in made:
                folder.rmdir()


@contextmanager
def gather(folder: Path, out: Path) -> Iterator[None]:
    """When the block ends, the files of `folder`, which it filled, move to `out`.

    `folder` goes away where the block refuses its input (InputError), and is kept for the next run where this one is
    killed or the disk is full.
    """
    try:
        yield
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if folder.exists():
        out.mkdir(parents=True, exist_ok=True)
        _move(folder, out)
        shutil.rmtree(folder)


def _move(source: Path, target: Path) -> None:
    """A folder moves by one rename where there is none yet, so that a whole split appears at once.

    Hidden files are half ones, which a killed run has left.
    """
    for child in sorted(source.glob("[!.]*")):
        if child.is_dir() and (target / child.name).is_dir():
            _move(child, target / child.name)
        else:
            child.rename(target / child.name)


def holds(path: Path, content: bytes) -> bool:
    """Whether a file is there with exactly this content."""
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no links across; makes the target's folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with errors_name(target):
            shutil.copyfile(source, target)
