"""Background: what a policy may wait for outside of Lua: time, coroutines of asyncio, work in threads.

The only module of the policy that knows an event loop. Everything here returns a Later; nothing waits, but for
`finish`, while a policy is being loaded and nobody else is there to be kept waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gateway.later import Later


class CannotWait(Exception):
    """There is no way to wait here: the event loop is running already."""


class _Timed(Later):
    """An answer that comes with time."""

    def __init__(self) -> None:
        super().__init__()
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.timer is not None:
            self.timer.cancel()


class _Promised(Later):
    """An answer that asyncio comes to."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        super().__init__()
        self._task = task
        task.add_done_callback(self._finished)

    def cancel(self) -> None:
        super().cancel()
        self._task.cancel()

    def _finished(self, task: asyncio.Future[Any]) -> None:
        if task.cancelled():
            if not self.done:
                self.fail(CannotWait("it was cancelled"))
            return
        error = task.exception()
        if error is not None:
            self.fail(error)
        else:
            self.settle(task.result())


class Background:
    """What one process waits for.

    loop: its event loop; without one, one is made when it is needed, and `finish` ends it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._is_own = loop is None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls back when the time has passed; the handle has `cancel`."""
        return self.loop.call_later(seconds, callback)

    def sleep(self, seconds: float) -> Later:
        """None, when the time has passed."""
        later = _Timed()
        later.timer = self.loop.call_later(seconds, partial(later.settle, None))
        return later

    def task(self, coroutine: Coroutine[Any, Any, Any]) -> Later:
        """The result of a coroutine of asyncio, which runs meanwhile; it is cancelled when nobody waits any more."""
        return _Promised(self.loop.create_task(coroutine))

    def thread(self, function: Callable[[], Any]) -> Later:
        """The result of a function that may block; it is called in a thread, and must touch nothing of the policy."""
        return _Promised(self.loop.run_in_executor(None, function))

    def finish(self, later: Later) -> None:
        """Returns when the answer is there. Raises CannotWait in a process that is busy serving others."""
        if later.done:
            return
        if self.loop.is_running():
            later.cancel()
            raise CannotWait("there is no time to wait while the policy is loaded again")
        arrived: asyncio.Future[None] = self.loop.create_future()
        later.then(partial(arrived.set_result, None))
        try:
            self.loop.run_until_complete(arrived)
        finally:
            if self._is_own:
                self.loop.close()
                self._loop = None
