"""What the command lines of all steps share: the parameter arguments, and errors as one line."""

import argparse
from pathlib import Path

from base.errors import errors_in_one_line
from components.params import Params, load_params

__all__ = ["errors_in_one_line", "read_params", "step_parser"]


def step_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with --params and --recipe."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{name}", description=description)
    parser.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="or its content as JSON (default: %(default)s)"
    )
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="overrides of it, such as recipes/cpu.yaml")
    return parser


def read_params(arguments: argparse.Namespace) -> Params:
    """The validated parameters that the parsed arguments name; raises ParamsError."""
    return load_params(arguments.params, arguments.recipe)
