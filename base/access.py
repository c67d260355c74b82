"""Which right to a file this account lacks, in the words of an error: what belongs to another is not damaged."""

import os
import pwd
import stat
from pathlib import Path


def unreadable(path: Path, error: OSError, otherwise: str) -> str:
    """What is wrong with a file that could not be read, and what to do: how an error goes on behind the file's name.

    otherwise: what follows "cannot be read (REASON)" where it is neither a right that is missing nor a folder.
    """
    if isinstance(error, PermissionError) and (found := denial(path)):
        return found
    if isinstance(error, IsADirectoryError):
        return "is a folder, expected a file. Give the path of a file."
    return f"cannot be read ({error.strerror or error}){otherwise}"


def denial(path: Path, *, writing: bool = False) -> str:
    """Why this account may not read the file or folder, or not write to it, and the remedy; empty where it may."""
    real = Path(os.path.realpath(path))
    what, wanted, right = ("written", os.W_OK, "w") if writing else ("read", os.R_OK, "r")
    denied = f"may not be {what} by this account:"
    for folder in reversed(real.parents):
        if not _may(folder, os.X_OK):
            return f"{denied} the folder {folder} {_owned(folder, 'x')}"
    if writing and os.path.exists(real) and os.statvfs(real).f_flag & os.ST_RDONLY:
        return f"{denied} its file system is mounted read-only. Have it mounted for writing"
    if os.path.isdir(real):
        return "" if _may(real, wanted | os.X_OK) else f"{denied} it {_owned(real, f'{right}x')}"
    if not _may(real, wanted):
        return f"{denied} it {_owned(real, right)}"
    if writing and not _may(real.parent, os.W_OK):
        return f"{denied} the folder {real.parent} {_owned(real.parent, 'wx')}"
    return ""


def _may(path: Path, wanted: int) -> bool:
    return os.access(path, wanted, effective_ids=True) or not os.path.exists(path)


def _owned(path: Path, rights: str) -> str:
    status = path.stat()
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    mode = stat.S_IMODE(status.st_mode)
    return f"has mode {mode:04o}, owner {owner}. Have its owner run: chmod a+{rights} {path}"
