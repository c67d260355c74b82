"""One line for all ranks: an error that every process of a training meets alike is said by the first of them.

An error that a rank meets alone is said by it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_line_for_all_ranks() -> Iterator[None]:
    """Stands around `errors_in_one_line`: where another rank has said the line, the process ends with 1 silently."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, str) and not may_say(end.code):
            sys.exit(1)
        raise


def may_say(line: str) -> bool:
    """Whether no other rank has asked this about the line."""
    if "RANK" not in os.environ:
        return True  # without torch, whose import would take longer than it takes to find most errors
    from model.train.distributed import is_first_to_say

    return is_first_to_say(line)
