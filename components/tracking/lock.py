"""The versions that the lock names, for whoever installs a registered model."""

import re
from collections.abc import Mapping
from pathlib import Path

from base.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (ROOT / "requirements-image.txt", ROOT / "requirements.txt")  # the image has only the first
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)")


class LockError(InputError):
    """The lock is missing or does not name a package."""


def read_lock() -> dict[str, str]:
    """Versions by package of the image's lock, or else of the development's; raises LockError."""
    for path in LOCKS:
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            return {found[1].lower(): found[2] for line in lines if (found := PIN.match(line))}
    raise LockError(f"{LOCKS[0]}: is missing. Bring the lock of the repository back.")


def pin(name: str, lock: Mapping[str, str]) -> str:
    """`name==version` by the lock; raises LockError."""
    if name not in lock:
        raise LockError(f"{LOCKS[0]}: names no version of {name}. Make the lock again: make lock.")
    return f"{name}=={lock[name]}"
