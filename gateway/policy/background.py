"""Background: what a policy may wait for outside of Lua: time, coroutines of asyncio, work in threads.

The only module of the policy that knows an event loop. Everything here returns a Later; nothing waits, but for
`finish`, while a policy is being loaded and nobody else is there to be kept waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypeVar

from gateway.later import Later, answered
from gateway.quotas import Quotas

T = TypeVar("T")

MOST_THREADS = 16
UNANSWERED = "no answer, for check asks nobody"
A_LONG_TIME = 200 * 365 * 86400.0  # seconds: longer than any duration of a policy


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

    loop: its event loop; without one, one is made when it is needed, and `finish` ends it. quotas: what all processes
    count together, where there are others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, quotas: Quotas | None = None) -> None:
        self.quotas = quotas
        self._loop = loop
        self._is_own = loop is None
        self._kept: dict[str, tuple[Any, Callable[[Any], Awaitable[None]]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def alone(cls, quotas: Quotas | None = None) -> Self:
        """With an event loop that lasts until `end`, and runs while somebody waits in `finish`."""
        return cls(asyncio.new_event_loop(), quotas)

    def end(self) -> None:
        """The end of the event loop and of all that goes on in it; what is still waited for never comes."""
        if self._loop is not None:
            self._loop.run_until_complete(self._end())
            self._loop.close()
            self._loop = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def may_ask(self, whom: str) -> bool:
        """Whether somebody outside of this machine may be asked; if not, an empty answer stands in. whom: as it may be
        shown. Raises Unanswered where there is to be none.
        """
        del whom
        return True

    @property
    def is_rehearsal(self) -> bool:
        """Whether nothing that handlers do is meant."""
        return False

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

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Threads for what may block: not the event loop's, in which names of the fleet are looked up."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MOST_THREADS, "policy")
        return self._threads

    def kept(self, name: str, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> T:
        """What lives as long as the event loop does: made when it is asked for first, and closed at the end."""
        if name not in self._kept:
            self._kept[name] = make(), close
        found: T = self._kept[name][0]
        return found

    async def close(self) -> None:
        """Closes what is kept."""
        kept, self._kept = self._kept, {}
        for something, close in kept.values():
            await close(something)

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
                self.end()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.close()


class Unanswered(ValueError):
    """Nobody answers, because nobody was asked."""


class Idle(Background):
    """For handlers that are only tried. Once it is `idle`, time passes at once, what works on this machine works where
    it is called, and nobody else is asked anything: they answer emptily or, with `away`, not at all. asked: is told of
    each question, with whom it is for, as it may be shown.
    """

    idle = False
    away = False

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, quotas: Quotas | None = None) -> None:
        super().__init__(loop, quotas)
        self.asked: Callable[[str], None] = lambda _: None
        self._passed = 0.0

    def clock(self) -> float:
        """Seconds, for policies."""
        return self.loop.time() + self._passed

    def age(self) -> None:
        """So much time passes that nothing is kept any more."""
        self._passed += A_LONG_TIME

    def may_ask(self, whom: str) -> bool:
        if not self.idle:
            return True
        self.asked(whom)
        if self.away:
            raise Unanswered(f"{whom}: {UNANSWERED}")
        return False

    @property
    def is_rehearsal(self) -> bool:
        return self.idle

    def sleep(self, seconds: float) -> Later:
        return answered(None) if self.idle else super().sleep(seconds)

    def task(self, coroutine: Coroutine[Any, Any, Any]) -> Later:
        later = super().task(coroutine)
        if self.idle:
            self.finish(later)
        return later
