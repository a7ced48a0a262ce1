"""`kumo.fs.open`: files that are read and written in threads; while the policy is loaded, where they are called."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import IO, Any

from gateway.policy.kumo.values import Objects, binary, integer, string, text_of
from gateway.policy.outside.outside import Outside

MOST_READ = 64 * 1024 * 1024  # octets at once
WHENCE = {"set": os.SEEK_SET, "cur": os.SEEK_CUR, "end": os.SEEK_END}
# by mode: how the file is opened, and for what
MODES = {
    "r": (os.O_RDONLY, "rb"),
    "w": (os.O_RDWR | os.O_CREAT | os.O_TRUNC, "r+b"),
    "a": (os.O_RDWR | os.O_CREAT | os.O_APPEND, "r+b"),
    "r+": (os.O_RDWR | os.O_CREAT, "r+b"),
    "w+": (os.O_RDWR | os.O_CREAT | os.O_TRUNC, "r+b"),
    "a+": (os.O_RDWR | os.O_CREAT | os.O_APPEND, "r+b"),
}


class AsyncFile:
    """An open file. One operation at a time."""

    def __init__(self, outside: Outside, path: str, mode: str) -> None:
        """Raises ValueError."""
        self.outside = outside
        self.lock = asyncio.Lock()
        flags, kind = MODES[mode]
        try:
            self.file: IO[bytes] = os.fdopen(os.open(path, flags | os.O_CLOEXEC, 0o666), kind)
        except OSError as error:
            raise ValueError(f"open: {path}: {error.strerror}") from None

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self.file.close()


def open_file(outside: Outside, path: Any, mode: Any = None) -> AsyncFile | Coroutine[Any, Any, AsyncFile]:
    """A file, opened for `'r'` (the default), `'w'`, `'a'`, `'r+'`, `'w+'` or `'a+'`"""
    name = "r" if mode is None else string(mode, "open").replace("b", "")
    if name not in MODES:
        raise ValueError(f"open: '{mode}' is none of {', '.join(MODES)}")
    work = partial(AsyncFile, outside, string(path, "open"), name)
    return work() if outside.loading() else outside.in_thread(work)


def _read(file: AsyncFile, size: Any = None) -> Any:
    most = MOST_READ + 1 if size is None else integer(size, "read")
    if not 0 <= most <= MOST_READ + 1:
        raise ValueError(f"read: expected a size from 0 to {MOST_READ}")

    def work() -> str:
        octets = file.file.read(most)
        if len(octets) > MOST_READ:
            raise ValueError(f"read: the file has more than {MOST_READ >> 20} MiB left")
        return text_of(octets)

    return _done(file, "read", work)


def _write(file: AsyncFile, octets: Any) -> Any:
    content = binary(string(octets, "write"))

    def work() -> None:
        file.file.write(content)

    return _done(file, "write", work)


def _seek(file: AsyncFile, whence: Any = None, position: Any = None) -> Any:
    if isinstance(whence, int | float) and position is None:
        whence, position = None, whence
    start = "cur" if whence is None else string(whence, "seek")
    if start not in WHENCE:
        raise ValueError(f"seek: '{start}' is none of {', '.join(WHENCE)}")
    offset = 0 if position is None else integer(position, "seek")
    return _done(file, "seek", lambda: file.file.seek(offset, WHENCE[start]))


def _flush(file: AsyncFile) -> Any:
    return _done(file, "flush", file.file.flush)


def _close(file: AsyncFile) -> Any:
    return _done(file, "close", file.file.close)


def _done(file: AsyncFile, function: str, work: Callable[[], Any]) -> Any:
    def checked() -> Any:
        try:
            return work()
        except OSError as error:
            raise ValueError(f"{function}: {error.strerror or error}") from None

    return checked() if file.outside.loading() else _alone(file, checked)


async def _alone(file: AsyncFile, work: Callable[[], Any]) -> Any:
    async with file.lock:
        return await file.outside.in_thread(work)


FUNCTIONS: dict[str, Callable[..., Any]] = {"open": open_file}
OBJECTS: Objects = {
    AsyncFile: ({"read": _read, "write": _write, "seek": _seek, "flush": _flush, "close": _close}, {}),
}
WAITING = frozenset({"fs.open", *(f"AsyncFile:{name}" for name in ("read", "write", "seek", "flush", "close"))})
