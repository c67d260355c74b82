"""Files of tensors: what is wrong with one that cannot be read, in the words of an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from base.access import unreadable
from base.errors import InputError, printable


@contextmanager
def reading_tensors(path: Path, error: type[InputError], remedy: str) -> Iterator[None]:
    """Has the block, which reads a file of safetensors, raise `error` where that cannot be read."""
    try:
        with path.open("rb"):  # safetensors says of any file that it cannot open that it is not there
            yield
    except OSError as found:
        raise error(f"{path}: {unreadable(path, found, f'. {remedy}')}") from found
    except SafetensorError as found:
        raise error(f"{path}: cannot be read ({printable(str(found))}). {remedy}") from found
