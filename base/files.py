"""Files and folders that appear at once and complete, or not at all."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from base.access import denial
from base.errors import InputError, errors_name


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Gives the path of a file to write; when the block ends without an error, the file takes the place of `path`.

    The folder is made where it is missing. Errors of the block name the file, also those of a full disk.
    Raises InputError where `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file to write to. Choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with errors_name(partial):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file that appears at once and complete; text as UTF-8."""
    with new_file(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def new_folder(out: Path, is_ours: Callable[[Path], bool], *, resumable: bool = False) -> Iterator[Path]:
    """Gives a folder to fill; when the block ends without an error, it takes the place of `out`.

    is_ours: tells from a file's path, relative to `out`, whether an earlier run wrote it. A folder that holds
    anything else is never replaced, so that a mistyped output cannot cost a user data.
    resumable: what a run leaves in the folder that fails or is killed is given to the next one, hidden beside `out`
    until then; otherwise the folder is empty.
    Raises InputError where `out` is a file or holds a file that is not ours; OSError where it cannot be written.
    """
    refuse_to_replace_others(out, is_ours)
    if out.is_symlink():  # to another disk, perhaps: the folder is replaced there, and the link stays
        out = out.resolve()
    partial, replaced = out.parent / f".{out.name}.partial", out.parent / f".{out.name}.replaced"
    leftovers = [replaced] if resumable else [partial, replaced]
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir(parents=True, exist_ok=resumable)
        yield partial
        _give_usual_modes(partial)
        # Two renames, so that a kill in between leaves no `out` rather than half of one.
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    finally:
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)


def _give_usual_modes(folder: Path) -> None:
    """Gives files the mode that the umask gives, which some libraries do not: safetensors 0600, SQLite (and so GDAL's
    GeoPackages) at most 0644. What has a second name, such as in DVC's cache, keeps its mode.
    """
    usual = folder.stat().st_mode & 0o666  # the folder was made by the umask
    for path in folder.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and stat.S_IMODE(status.st_mode) != usual:
            with suppress(OSError):  # of another account, or on a disk without modes: the result is whole all the same
                path.chmod(usual)


def copy_anew(source: Path, to: Path) -> Path:
    """Copies the files below a folder, without what Python keeps beside code; returns `to`. Files and folders get the
    mode that the umask gives, whatever theirs is.
    """
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = to / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return to


def refuse_no_folder(out: Path) -> None:
    """Raises InputError where `out` is no folder and cannot become one: what a step should know before its work."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file, expected a folder to write to. Choose another output folder.")
    if denied := denial(there, writing=True):
        raise InputError(f"{there}: {denied}, or choose another output folder.")


def refuse_to_replace_others(out: Path, is_ours: Callable[[Path], bool]) -> None:
    """Raises InputError where `new_folder` would."""
    refuse_no_folder(out)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    foreign = [path for path in files if not is_ours(path)]
    if foreign:
        raise InputError(
            f"{out / foreign[0]}: would be deleted by writing {out} anew, expected an empty folder or an earlier "
            "output of this step. Choose another output folder."
        )
