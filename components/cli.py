"""What the command lines of all steps share: the parameter arguments, and errors as one line."""

import argparse

from base.command_line import Parser
from base.errors import errors_in_one_line
from components.params import Params, add_recipes, load_params

__all__ = ["errors_in_one_line", "read_params", "step_parser"]


def step_parser(name: str, description: str | None) -> Parser:
    """A parser with --params and --recipe."""
    parser = Parser(prog=f"python -m components.{name}", description=description)
    text = "or its content as JSON (default: %(default)s)"
    parser.add_argument("--params", type=str, default="params.yaml", metavar="FILE", help=text)
    add_recipes(parser)
    return parser


def read_params(arguments: argparse.Namespace) -> Params:
    """The validated parameters that the parsed arguments name; raises ParamsError."""
    return load_params(arguments.params, *arguments.recipes)
