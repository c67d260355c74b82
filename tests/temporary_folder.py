"""A folder of the test session for all that its processes leave in the machine's temporary folder, removed at the end;
pytest's own, with what the failed tests left, stays where it is.
"""

import os
import shutil
import tempfile
import time
from multiprocessing.util import Finalize
from pathlib import Path

WORKER = "PYTEST_XDIST_WORKER"  # xdist sets it in its workers, which have the folder of the process that starts them
ROOT_OF_PYTEST = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure() -> None:
    if WORKER not in os.environ:
        os.environ.setdefault(ROOT_OF_PYTEST, tempfile.gettempdir())
        # A short name: those of Unix sockets have 108 characters at most.
        folder = tempfile.mkdtemp(prefix="t-")
        os.chmod(folder, 0o711)  # PostgreSQL has a folder below, and a user of its own
        os.environ["TMPDIR"] = folder
        Finalize(None, _remove, (folder,), exitpriority=-1000)  # in this process alone; multiprocessing has one below
    tempfile.tempdir = None  # asked anew


def _remove(folder: str) -> None:
    """Twice where need be: what ends with the session may still write."""
    for pause in (0, 1):
        time.sleep(pause)
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
