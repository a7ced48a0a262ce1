"""Runs: calls of event handlers, each an object that knows everything about its call.

Here handlers are called, timed and counted, and errors of Lua become Rejected or PolicyError. What an event's arguments
and results mean is engine.py's business, how values cross the border runtime.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Later
from gateway.policy.decision_cache import Evaluation
from gateway.policy.problems import PolicyError, Rejected
from gateway.policy.runtime import Fault, LuaFailure

if TYPE_CHECKING:
    from gateway.policy.api import Handler
    from gateway.policy.message_methods import MessageHandle
    from gateway.policy.runtime import LuaState

OTHER_EVENT = "filter_event"  # the metrics' label for events with a name of the policy's own
DURATION = {event: metrics.POLICY_EVENT_DURATION.slot(event) for event in metrics.EVENTS}
ERRORS = {event: metrics.POLICY_ERRORS.slot(event) for event in metrics.EVENTS}
REJECTS = {event: metrics.POLICY_REJECTS.slot(event) for event in metrics.EVENTS}

log = logging.getLogger("gateway.policy")


class OncePerMinute(logging.Filter):
    """Lets the same message through once a minute, by the records' own clock."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.created - self._last.get(message, float("-inf")) < 60:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[message] = record.created
        return True


log.addFilter(OncePerMinute())


class Runs:
    """Calls the handlers of one policy.

    running: the run whose Lua code is being executed, None while none is. What a policy's code does to the gateway, it
    does in the name of this run; nothing else about a call is known outside of its Run.
    """

    def __init__(self, lua: Callable[[], LuaState], page: CounterPage, clock: Callable[[], float]) -> None:
        self.lua = lua
        self.page = page
        self.clock = clock
        self.running: Run | None = None

    def unstable(self) -> None:
        """What runs used something that has no stable answer."""
        run = self.running
        if run is not None and run.evaluation is not None:
            run.evaluation.stable = False

    def failed(self, event: str, text: str, traceback: str = "", bug: BaseException | None = None) -> PolicyError:
        """Counts and logs that a handler failed or returned something unusable; returns the exception to raise.

        bug: an exception of the gateway's own code, whose traceback belongs in the log.
        """
        self.page.add(ERRORS.get(event, ERRORS[OTHER_EVENT]))
        log.error("%s: %s%s", event, text, f"\n{traceback}" if traceback else "", exc_info=bug)
        return PolicyError(f"{event}: {text}")


class Run(Later):
    """One call of an event's handlers. Its answer is what `finish` makes of what they return, or Rejected or
    PolicyError.

    event: its name, None for the policy's top level. evaluation: what notes what is read, None where nothing does.
    protected: how many pcalls deep the handler is.
    """

    def __init__(
        self,
        runs: Runs,
        event: str | None,
        finish: Callable[[Any], Any] | None = None,
        evaluation: Evaluation | None = None,
        handle: MessageHandle | None = None,
    ) -> None:
        """finish: receives the first result, None if there is none, and may raise PolicyError; without it the answer is
        None. handle: of the message that the handlers hold; taken from them at the end.
        """
        super().__init__()
        self.event = event
        self.evaluation = evaluation
        self.protected = 0
        self._runs = runs
        self._finish = finish
        self._handle = handle

    def begin(self, handlers: Sequence[Handler], arguments: tuple[object, ...]) -> None:
        """Calls the handlers until one returns something, were it an explicit nil."""
        try:
            results: tuple[Any, ...] = ()
            for handler in handlers:
                results = self._call(handler, arguments)
                if results:
                    break
            value = None
            if self._finish is not None:
                value = self._finish(results[0] if results else None)
        except (Rejected, PolicyError) as error:
            self._close()
            self.fail(error)
        else:
            self._close()
            self.settle(value)

    def _call(self, handler: Handler, arguments: tuple[object, ...]) -> tuple[Any, ...]:
        event = str(self.event)
        runs = self._runs
        started = runs.clock()
        runs.running = self
        try:
            return runs.lua().call(handler.function, *arguments)
        except LuaFailure as failure:
            if isinstance(failure.cause, Rejected):
                runs.page.add(REJECTS.get(event, REJECTS[OTHER_EVENT]))
                raise failure.cause from None
            bug = failure.cause if not isinstance(failure.cause, Fault) else None
            raise runs.failed(event, failure.text, failure.traceback, bug) from failure.cause
        finally:
            runs.running = None
            runs.page.observe(DURATION.get(event, DURATION[OTHER_EVENT]), runs.clock() - started)

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.message = None
