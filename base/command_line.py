"""How command lines are read, and how they end.

Their parser refuses an empty text as the value of an option, such as `--out "$UNSET"`: as a path, that is the working
directory, and as a name it is the default. `type=str` lets one pass.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Exit codes by which a process of the training asks to be started again, beside those of signals (128 + number).
PEERS_LOST = 141  # as of a process that a broken connection ended: 128 + SIGPIPE
HUNG = 142  # as of a process that an alarm ended: 128 + SIGALRM
# SIGINT, SIGABRT (NCCL ends so), SIGBUS (no shared memory is left), SIGKILL, SIGSEGV, SIGTERM. Nothing else becomes
# better by another try: not a wrong parameter, which is 1, nor an instruction that the processor lacks (SIGILL, 132).
RESTARTABLE = frozenset({130, 134, 135, 137, 139, PEERS_LOST, HUNG, 143})


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
