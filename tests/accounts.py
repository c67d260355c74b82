"""This process as an account like any other: root may read and write whatever its mode says."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

VERSION = 0x20080522  # of the kernel's interface: two words of 32 capabilities each
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which modes do not count, see capabilities(7).
ABOVE_MODES = 1 << 1 | 1 << 2


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """In the block the modes of files count for this thread, also that of root: who tests may run as either."""
    before = _read()
    _write([before[0] & ~ABOVE_MODES, *before[1:]])
    try:
        yield
    finally:
        _write(before)


def _header() -> "ctypes.Array[ctypes.c_uint32]":
    return (ctypes.c_uint32 * 2)(VERSION, 0)


def _read() -> list[int]:
    """Effective, permitted and inheritable, twice."""
    words = (ctypes.c_uint32 * 6)()
    _call("capget", words)
    return list(words)


def _write(words: list[int]) -> None:
    _call("capset", (ctypes.c_uint32 * 6)(*words))


def _call(name: str, words: "ctypes.Array[ctypes.c_uint32]") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(_header(), words):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
