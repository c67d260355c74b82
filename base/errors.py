"""What ends a step without a bug in it: errors that users cause, which every command line prints as one line, and
preemption.
"""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from base.access import denial

# The first whose tarfile has filters (PEP 706); pyproject.toml requires the same.
OLDEST_PYTHON = (3, 11, 4)


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the thing, the finding, the expectation, the remedy."""

    exit_code = 1


class Preempted(Exception):
    """A step was asked to stop, and has kept what the same command needs to go on."""


def require_python() -> None:
    """Raises InputError where this Python is older than the project can do with."""
    if sys.version_info < OLDEST_PYTHON:
        found, oldest = (".".join(map(str, version[:3])) for version in (sys.version_info, OLDEST_PYTHON))
        raise InputError(
            f"{sys.executable}: found Python {found}, expected {oldest} or newer. Install a newer Python 3.11, remove "
            ".venv, and run `make install PYTHON=PATH`, with the path of the new one."
        )


def printable(text: str) -> str:
    """The text in one line that a terminal shows as it is, whatever a file put into it."""
    line = " ".join(text.split())
    return line if line.isprintable() else ascii(line)[1:-1]


def shortly(error: Exception) -> str:
    """The kind of an error and its words, in one short line; those of Python may repeat a whole file."""
    return f"{type(error).__name__}: {textwrap.shorten(printable(str(error)), 200, placeholder=' ...')}"


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns what the user can mend into one line on stderr and exit code 1, or that of the error; our bugs keep their
    traceback. Every command line runs in it, so that each of them begins with `require_python`.
    """
    try:
        require_python()
        yield
    except InputError as error:
        line = f"{type(error).__name__}: {error}"
        if error.exit_code == 1:
            sys.exit(line)
        print(line, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"{type(error).__name__}: {error.filename}: {_remedied(error)}")


def _remedied(error: OSError) -> str:
    if isinstance(error, PermissionError) and isinstance(error.filename, str):
        path = Path(error.filename)
        if found := denial(path) or denial(path, writing=True):
            return found
    return f"{error.strerror}. Check the path, its owner and the disk."


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Gives errors of the block the file they happened to: read() and write() fail on a full disk without a name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


if __name__ == "__main__":
    with errors_in_one_line():
        pass
