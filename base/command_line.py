"""The parser of every command line. It refuses an empty text as the value of an option, such as `--out "$UNSET"`: as a
path, that is the working directory, and as a name it is the default. `type=str` lets one pass.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Parser(argparse.ArgumentParser):
    """As argparse's, with options and commands that refuse an empty text."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("type", None, _text)
        self.register("type", Path, lambda value: Path(_text(value)))

    def add_subparsers(self, **settings: Any) -> Any:
        """As argparse's; the parser of a command looks at what follows its name."""
        commands = super().add_subparsers(**settings)
        commands.type = str
        return commands


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """The type of an option for a whole number in these bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"found {value}, expected a whole number from {lowest} to {highest}")
        return number

    return parse


def _text(value: str) -> str:
    if not value.strip():
        raise argparse.ArgumentTypeError("found an empty text, expected a value")
    return value
