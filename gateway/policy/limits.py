"""Limits: how much a handler may use, and the thread that ends those that compute for too long.

How Lua code is ended is the compiled kernels' business (fastpath/lua.pxi), what the caller learns runs.py's.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from weakref import WeakSet

from gateway._fastpath import LuaLimits

PERIOD = 0.1  # seconds from one look at what runs to the next


@dataclass(frozen=True, slots=True)
class HandlerLimits:
    """What one call of an event's handlers may use: seconds of processor time, seconds of waiting, octets of memory."""

    processor_time: float = 1.0
    wait: float = 30.0
    memory: int = 64 * 1024 * 1024


DEFAULT_LIMITS = HandlerLimits()


class Watchdog:
    """One thread for all Lua states of a process, which have to belong to the thread that calls `watch`.

    It looks every so often whether the same code still runs, and by the processor's clock since when.
    """

    def __init__(self) -> None:
        self._states: WeakSet[Watched] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, state: Watched) -> None:
        """From now on."""
        with self._lock:
            self._states.add(state)
        if self._thread is None or not self._thread.is_alive():  # it does not survive a fork
            self._thread = threading.Thread(target=self._run, name="lua-watchdog", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD)
            with self._lock:
                states = list(self._states)
            for state in states:
                state.look()


class Watched:
    """A Lua state under the watchdog's eyes. allowance: seconds of processor time for what runs."""

    def __init__(self, limits: LuaLimits) -> None:
        self.allowance = DEFAULT_LIMITS.processor_time
        self._limits = limits
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._serial = 0
        self._since = 0.0

    def look(self) -> None:
        """Ends what has run for too long."""
        limits = self._limits
        if not limits.running:
            return
        now = time.clock_gettime(self._clock)
        if limits.serial != self._serial:
            self._serial = limits.serial
            self._since = now
        elif now - self._since >= self.allowance and not limits.overdue:
            limits.stop()


WATCHDOG = Watchdog()
