"""What the command lines of all steps share: the parameter arguments, and errors as one line."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.params import Params, load_params
from xbd.errors import InputError


def step_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with --params and --recipe."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{name}", description=description)
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="params.yaml")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="overrides of it, such as recipes/cpu.yaml")
    return parser


def read_params(arguments: argparse.Namespace) -> Params:
    """The validated parameters that the parsed arguments name; raises ParamsError."""
    return load_params(arguments.params, arguments.recipe)


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
