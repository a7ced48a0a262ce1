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
    """What Lua code prints meanwhile goes to standard error. It has a buffer of its own, that of the C library."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        _LIBC.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
