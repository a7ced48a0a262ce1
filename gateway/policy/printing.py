"""Where a policy prints to, while a command's own output is for a program."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None)


@contextmanager
def on_standard_error() -> Iterator[None]:
    """What Lua code prints meanwhile goes to standard error."""
    with _printing_to(2):
        yield


@contextmanager
def nowhere() -> Iterator[None]:
    """What Lua code prints meanwhile is not seen."""
    with open(os.devnull, "wb") as devnull, _printing_to(devnull.fileno()):
        yield


@contextmanager
def _printing_to(descriptor: int) -> Iterator[None]:
    """Lua's standard output has a buffer of its own, that of the C library."""
    sys.stdout.flush()
    _LIBC.fflush(None)
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        _LIBC.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
