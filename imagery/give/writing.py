"""Writing what map programs read: what libraries raise of a full disk, as one error of ours."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio.errors import RasterioError

from base.errors import InputError
from imagery.read.vectors import WRITE_ERRORS


class OutputError(InputError):
    """Results that cannot be written, or not as asked for."""


@contextmanager
def write_errors(out: Path) -> Iterator[None]:
    """Turns what the libraries raise of a full disk into an OutputError with the first thing that GDAL complained of,
    which it otherwise prints.
    """
    complaints = _Complaints()
    logger = logging.getLogger("rasterio")
    logger.addHandler(complaints)
    try:
        yield
    except (RasterioError, sqlite3.Error, OSError, *WRITE_ERRORS) as error:
        reason = " ".join((complaints.messages or [str(error)])[0].split()).rstrip(".")
        raise OutputError(
            f"{out}: cannot be written ({reason}). Make room on the disk, or choose another output folder."
        ) from error
    finally:
        logger.removeHandler(complaints)


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
