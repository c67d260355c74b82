"""The one family of errors that users cause; every command line prints them as one line, without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the thing, the finding, the expectation, the remedy."""


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns what the user can mend into one line on stderr and exit code 1; our bugs keep their traceback."""
    try:
        yield
    except InputError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"{type(error).__name__}: {error.filename}: {error.strerror}. Check the path, its owner and the disk.")


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Gives errors of the block the file they happened to: read() and write() fail on a full disk without a name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
