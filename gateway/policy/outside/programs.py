"""`io.popen` and `os.execute`: programs that a policy starts, what they write and what they are given.

A program is a session and a process group of its own, and has nothing of the gateway's but its standard error and, in
mode 'w', its standard output. Whoever waits for one waits in the event loop; while the policy is loaded it is waited
for where it is called. When nobody wants any more what is waited for, all of the group is killed. One that is let go of
runs on, as it does in Lua, with a closed pipe.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from errno import EBADF, ESPIPE
from functools import partial
from typing import Any

from gateway.policy.kumo.values import Objects, binary, described, integer, number_in, string, text_of
from gateway.policy.outside.outside import Outside, Several

MOST_READ = 16 * 1024 * 1024  # octets at once
MOST_RUNNING = 1000
PATIENCE = 30.0  # seconds that a program may take while the policy is loaded
REAPED_AFTER = 1.0  # seconds: so often it is looked for the end of one that was let go of
_AT_ONCE = 65536  # octets: what a pipe holds (pipe(7))
_LONGEST_NUMBER = 200  # characters, as in Lua
FORMATS = ("n", "a", "l", "L")
_NUMBER = re.compile(rb"[+-]?(?:0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*(?:[pP][+-]?\d*)?|\d*\.?\d*(?:[eE][+-]?\d*)?)")
_CLOSED = "attempt to use a closed file"


class Program:
    """A program. pipe: what it writes or, with `writes`, reads; None once it is closed."""

    def __init__(self, outside: Outside, command: str, writes: bool) -> None:
        """Raises ValueError."""
        self.outside = outside
        self.writes = writes
        self.lock = asyncio.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: int | None = None
        self.received = bytearray()  # what nobody has asked for yet
        self.deadline = time.monotonic() + PATIENCE
        words = command.split()
        if outside.background.may_ask(f"the program {words[0] if words else command}"):
            self._start(command)
        else:
            self.pipe = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def __str__(self) -> str:
        return "file (closed)" if self.pipe is None else f"file ({id(self):#x})"

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.close()

    def _start(self, command: str) -> None:
        _let_go[:] = [process for process in _let_go if process.poll() is None]
        if len(_open) + len(_let_go) >= MOST_RUNNING:
            raise ValueError(f"popen: {MOST_RUNNING} programs are running already")
        ours, its = os.pipe2(os.O_CLOEXEC)
        if self.writes:
            ours, its = its, ours
        stdin, stdout = (its, None) if self.writes else (subprocess.DEVNULL, its)
        try:
            shell = [b"/bin/sh", b"-c", binary(command)]
            self.process = subprocess.Popen(shell, stdin=stdin, stdout=stdout, start_new_session=True)
        except (OSError, ValueError) as error:
            os.close(ours)
            raise ValueError(f"popen: {getattr(error, 'strerror', None) or error}") from None
        finally:
            os.close(its)
        os.set_blocking(ours, False)
        self.pipe = ours
        _open.add(self.process)

    def close(self) -> subprocess.Popen[bytes] | None:
        """Closes the pipe. The process, where it is not over."""
        pipe, self.pipe = self.pipe, None
        process, self.process = self.process, None
        if pipe is not None:
            os.close(pipe)
        if process is not None:
            _open.discard(process)
            if process.poll() is None:
                _let_go.append(process)
                with suppress(RuntimeError):  # while the policy is loaded there is no loop
                    _look_again(asyncio.get_running_loop(), process)
        return process

    async def filled(self) -> bool:
        """Whether it has written more; False at the end. Raises ValueError."""
        while True:
            if self.pipe is None:
                raise ValueError(_CLOSED)
            try:
                octets = os.read(self.pipe, _AT_ONCE)
            except BlockingIOError:
                await self._waited(self.process, self._until(self.pipe, select.POLLIN))
                continue
            self.received += octets
            if len(self.received) > MOST_READ:
                _kill(self.process)
                raise ValueError(f"it writes more than {MOST_READ >> 20} MiB")
            return bool(octets)

    async def write(self, octets: bytes) -> None:
        """Raises ValueError."""
        while octets:
            if self.pipe is None:
                raise ValueError(_CLOSED)
            try:
                octets = octets[os.write(self.pipe, octets) :]
            except BlockingIOError:
                await self._waited(self.process, self._until(self.pipe, select.POLLOUT))

    async def ended(self) -> Several:
        """What Lua's `close` returns, when the program is over."""
        process = self.close()
        if process is None:
            return Several((True, "exit", 0))
        pause = 0.001
        while (code := process.poll()) is None:
            await self._waited(process, self._pause(pause))
            pause = min(2 * pause, 0.05)
        return Several((None, "signal", -code) if code < 0 else (code == 0 or None, "exit", code))

    async def _waited(self, process: subprocess.Popen[bytes] | None, coming: Awaitable[None]) -> None:
        try:
            await coming
        except (asyncio.CancelledError, TimeoutError) as error:
            _kill(process)
            if isinstance(error, TimeoutError):
                raise ValueError(f"it takes more than {PATIENCE:.0f} seconds") from None
            raise

    async def _until(self, pipe: int, events: int) -> None:
        """Returns when something can be read or written. Raises TimeoutError."""
        if self.outside.loading():
            poll = select.poll()
            poll.register(pipe, events)
            if not poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000):
                raise TimeoutError
            return
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (
            (loop.add_reader, loop.remove_reader) if events == select.POLLIN else (loop.add_writer, loop.remove_writer)
        )
        add(pipe, _set, ready)
        try:
            await ready
        finally:
            remove(pipe)

    async def _pause(self, seconds: float) -> None:
        if not self.outside.loading():
            await asyncio.sleep(seconds)
        elif time.monotonic() > self.deadline:
            raise TimeoutError
        else:
            time.sleep(seconds)


# Processes whose end nobody has seen yet; their programs may be gone.
_open: set[subprocess.Popen[bytes]] = set()
_let_go: list[subprocess.Popen[bytes]] = []


def _look_again(loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes]) -> None:
    """Until it is over, so that nothing is left of it."""
    if process.poll() is None:
        loop.call_later(REAPED_AFTER, _look_again, loop, process)
    elif process in _let_go:
        _let_go.remove(process)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    """Ends a process that nobody has seen the end of, with all that it has started."""
    if process is not None and process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def open_program(outside: Outside, command: Any, mode: Any = None) -> Program:
    """A program of the shell, started: with `'r'` (the default) to read what it writes, with `'w'` to write to it"""
    way = "r" if mode is None else string(mode, "popen")
    if way not in ("r", "w"):
        raise ValueError(f"popen: invalid mode '{way}'")
    return Program(outside, string(command, "popen"), way == "w")


def execute(outside: Outside, command: Any = None) -> Any:
    """Runs a program of the shell, with nothing to read, until its end; returns what `close` does"""
    if command is None:
        return True
    program = Program(outside, string(command, "execute"), True)
    return _alone(program, program.ended)


def kind_of_file(_: Outside, value: Any) -> str | None:
    """`'file'` or `'closed file'` for what `io.popen` gave"""
    if isinstance(value, Program):
        return "closed file" if value.pipe is None else "file"
    return None


# --- methods ----------------------------------------------------------------------------------------------------------


def _alone(program: Program, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What is done, one after the other; at once while the policy is loaded."""
    if not program.outside.loading():
        return _in_turn(program, work)
    try:
        work().send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits in an event loop, which does not run yet")


async def _in_turn(program: Program, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with program.lock:
        return await work()


def _read(program: Program, *formats: Any) -> Any:
    _check_open(program)
    if program.writes:
        return _refused(EBADF)
    asked = [_format(one) for one in formats] or ["l"]
    return _alone(program, partial(_all_of, program, asked))


def _format(given: Any) -> str | int:
    if isinstance(given, str):
        name = given.removeprefix("*")[:1]
        if name in FORMATS:
            return name
        with suppress(ValueError):
            return integer(given, "read")
    elif isinstance(given, int | float):
        return integer(given, "read")
    raise ValueError(f"read: invalid format {described(given) if not isinstance(given, str) else repr(given)}")


async def _all_of(program: Program, formats: list[str | int]) -> Any:
    found: list[Any] = []
    for one in formats:
        found.append(await _one_of(program, one))
        if found[-1] is None:
            break
    return Several(found) if len(found) > 1 else found[0]


async def _one_of(program: Program, one: str | int) -> Any:
    received = program.received
    if one == "n":
        return await _number(program)
    if one == "a":
        while await program.filled():
            pass
        return text_of(_taken(received, len(received)))
    if isinstance(one, int):
        while len(received) < max(1, one) and await program.filled():
            pass
        return text_of(_taken(received, max(0, one))) if received else None
    searched = 0
    while (end := received.find(b"\n", searched)) < 0:
        searched = len(received)
        if not await program.filled():
            return text_of(_taken(received, searched)) if received else None
    line = _taken(received, end + 1)
    return text_of(line if one == "L" else line[:-1])


async def _number(program: Program) -> int | float | None:
    received = program.received
    while not received.lstrip() and await program.filled():
        pass
    _taken(received, len(received) - len(received.lstrip()))
    while (found := _NUMBER.match(received)) and found.end() == len(received) <= _LONGEST_NUMBER:
        if not await program.filled():
            break
    text = _taken(received, min(_LONGEST_NUMBER, found.end() if found else 0)).decode()
    return number_in(text)


def _taken(received: bytearray, size: int) -> bytes:
    octets = bytes(received[:size])
    del received[:size]
    return octets


def _write(program: Program, *values: Any) -> Any:
    _check_open(program)
    if not program.writes:
        return _refused(EBADF)
    octets = b"".join(binary(string(value, "write")) for value in values)
    return _alone(program, partial(_written, program, octets))


async def _written(program: Program, octets: bytes) -> Any:
    try:
        await program.write(octets)
    except OSError as error:
        return _refused(error.errno or 0)
    return program


def _refused(number: int) -> Several:
    return Several((None, os.strerror(number), number))


def _check_open(program: Program) -> None:
    if program.pipe is None:
        raise ValueError(_CLOSED)


def _close(program: Program) -> Any:
    _check_open(program)
    return _alone(program, program.ended)


def _flush(program: Program) -> Program:
    """Nothing is kept back."""
    _check_open(program)
    return program


def _seek(program: Program) -> Several:
    _check_open(program)
    return _refused(ESPIPE)


def _setvbuf(program: Program) -> bool:
    _check_open(program)
    return True


OF_IO: dict[str, Callable[..., Any]] = {"popen": open_program, "type": kind_of_file}
OF_OS: dict[str, Callable[..., Any]] = {"execute": execute}
OBJECTS: Objects = {
    Program: (
        {
            "read": _read,
            "lines": _read,
            "write": _write,
            "close": _close,
            "flush": _flush,
            "seek": _seek,
            "setvbuf": _setvbuf,
        },
        {},
    )
}
WAITING = frozenset(
    {"io.popen", "os.execute", *(f"Program:{name}" for name in ("read", "lines", "write", "close", "seek"))}
)
REPEATED = frozenset({"Program:lines"})  # a function for loops, which does this each time
