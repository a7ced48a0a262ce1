"""Runs: calls of event handlers, each an object that knows everything about its call.

Here handlers are called, timed and counted, and errors of Lua become Rejected or PolicyError. What an event's arguments
and results mean is engine.py's business, how values cross the border runtime.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Later
from gateway.mail.message import NULL_QUEUE
from gateway.policy.background import Background, CannotWait
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Evaluation, frozen
from gateway.policy.limits import DEFAULT_LIMITS
from gateway.policy.problems import PolicyError, Rejected
from gateway.policy.runtime import Fault, LuaFailure, inward

if TYPE_CHECKING:
    from gateway.policy.api import Handler
    from gateway.policy.messages.handle import MessageHandle
    from gateway.policy.runtime import LuaState

OTHER_EVENT = "filter_event"  # the metrics' label for events with a name of the policy's own
DURATION = {event: metrics.POLICY_EVENT_DURATION.slot(event) for event in metrics.EVENTS}
ERRORS = {event: metrics.POLICY_ERRORS.slot(event) for event in metrics.EVENTS}
REJECTS = {event: metrics.POLICY_REJECTS.slot(event) for event in metrics.EVENTS}

BRIEF = 200  # characters of what was read of a message
_NO_COROUTINE = (0, 0)

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
    does in the name of this run; nothing else about a call is known outside of its Run. loading: the policy is being
    loaded, and waiting holds everything up. traced: sessions have witnesses, who are told of what handlers answer.
    limits: of every run. replace_lua: called when the Lua state keeps memory that a handler has taken beyond its limit.
    """

    def __init__(
        self,
        lua: Callable[[], LuaState],
        handlers_of: Callable[[str], Sequence[Handler]],
        page: CounterPage,
        clock: Callable[[], float],
        background: Background,
    ) -> None:
        self.lua = lua
        self.handlers_of = handlers_of
        self.page = page
        self.clock = clock
        self.background = background
        self.running: Run | None = None
        self.loading = True
        self.traced = False
        self.limits = DEFAULT_LIMITS
        self.replace_lua: Callable[[], None] = lambda: None
        self._ready: list[Callable[[], None]] = []  # what has to wait until the code that runs is over

    def unstable(self) -> None:
        """What runs used something that has no stable answer."""
        run = self.running
        if run is not None and run.evaluation is not None:
            run.evaluation.stable = False

    def looked(self, method: str, arguments: list[Any], value: object) -> None:
        """What runs looked at a message; of interest where somebody notes what is read."""
        run = self.running
        if run is not None and run.evaluation is not None:
            given = ", ".join(repr(one) for one in arguments if one is not None)
            run.evaluation.reads.setdefault(f"msg:{method}({given})", _brief(value))

    def published(self) -> None:
        """For LuaHost.published."""
        run = self.running
        if run is not None:
            run.publishes = True

    def wait(self, later: Later) -> bool:
        """For LuaHost.wait."""
        if self.loading:
            try:
                self.background.finish(later)
            except CannotWait as error:
                raise Fault(str(error)) from None
            return False
        run = self.running
        if run is None or run.condemned:
            later.cancel()
            raise Fault("the event is over")
        run.waits_for = later
        return True

    def forget(self) -> None:
        """For LuaHost.forget."""
        run = self.running
        if run is not None and run.waits_for is not None:
            run.waits_for.cancel()
            run.waits_for = None

    def condemned(self) -> bool:
        """For LuaHost.condemned."""
        run = self.running
        return run is not None and (run.condemned or run.lua.limits.overdue or run.lua.limits.exceeded)

    def spawn(self, event: str, arguments: object) -> None:
        """Runs the handler of an event of the policy's own, when nothing else runs. Its failure is logged."""
        handlers = self.handlers_of(event)
        if not handlers:
            raise Fault(f"kumo.spawn_task: event '{event}' has no handler")
        run = Run(self, event)
        self.soon(lambda: run.begin(handlers, (self.lua().value(arguments),)))

    def call(self, lua: LuaState, number: int) -> None:
        """Finds a memoized value anew; its failure is what is found."""
        Run(self, "kumo.memoize").begin([Task(lua.refresh)], (number,))

    def soon(self, call: Callable[[], None]) -> None:
        """Calls back at once, or, from inside Lua code, when that is over."""
        if self.running is None:
            call()
        else:
            self._ready.append(call)

    def go_on(self) -> None:
        """Lua code is over, and whoever waits for its answer has it."""
        while self._ready and self.running is None:
            self._ready.pop(0)()

    def failed(self, event: str, text: str, traceback: str = "", bug: BaseException | None = None) -> PolicyError:
        """Counts and logs that a handler failed or returned something unusable; returns the exception to raise.

        bug: an exception of the gateway's own code, whose traceback belongs in the log.
        """
        self.page.add(ERRORS.get(event, ERRORS[OTHER_EVENT]))
        log.error("%s: %s%s", event, text, f"\n{traceback}" if traceback else "", exc_info=bug)
        return PolicyError(f"{event}: {text}")


def _brief(value: object) -> object:
    """What was read of a message, for people."""
    if value is None or isinstance(value, bool | int | float):
        return frozen(value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}… ({len(text)} characters)"


class Task:
    """A function of Lua that is called as a handler is."""

    def __init__(self, function: Any) -> None:
        self.function = function


class Run(Later):
    """One call of an event's handlers. Its answer is what `finish` makes of what they return, or Rejected or
    PolicyError.

    event: its name, None for the policy's top level. evaluation: what notes what is read, None where nothing does.
    publishes: something was left to the fleet that its handlers would tell others. condemned: it has to end, and
    nothing that its handler is prepared for may keep it. waits_for: what it stands still for.
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
        None. takes_all: set it where finish is to receive all results instead, as a tuple. handle: of the message that
        the handlers hold; taken from them at the end.
        """
        Later.__init__(self)
        self.event = event
        self.evaluation = evaluation
        self.condemned = False
        self.waits_for: Later | None = None
        self.lua = runs.lua()
        self._runs = runs
        self._finish = finish
        self._handle = handle
        self._handlers: Sequence[Handler | Task] = ()
        self._arguments: tuple[object, ...] = ()
        self.takes_all = False
        self.publishes = False
        self._called = 0  # so many of the handlers
        self._coroutine = _NO_COROUTINE
        self._began = 0.0
        self._waited = 0.0
        self._suspended_at = 0.0
        self._timer: Any = None
        self._is_cancelled = False

    def begin(self, handlers: Sequence[Handler | Task], arguments: tuple[object, ...]) -> None:
        """Calls the handlers until one returns something, were it an explicit nil."""
        self._handlers = handlers
        self._arguments = arguments
        self._began = self._runs.clock()
        if handlers:
            self._runs.soon(self._call_next)
        else:
            self._conclude(None)

    def cancel(self) -> None:
        """Nobody wants the answer any more: the handler ends where it waits."""
        Later.cancel(self)
        self._is_cancelled = True
        if not self.done and self.waits_for is not None:
            self._end_waiting("nobody waits for its answer any more")

    def _call_next(self) -> None:
        handler = self._handlers[self._called]
        self._called += 1
        self._coroutine = self.lua.coroutine()
        self._enter((handler.function, *self._arguments))

    def _enter(self, arguments: tuple[object, ...]) -> None:
        """Lua code runs until its end or until it waits."""
        runs, lua = self._runs, self.lua
        limits = lua.limits
        runs.running = self
        limits.begin(runs.limits.memory, self._coroutine[1])
        try:
            outcome = lua.resume(self._coroutine[0], arguments)
        finally:
            overdue = limits.end()
            runs.running = None
        if not outcome[0]:
            self._fail(lua.failure(outcome[1], None), overdue)
        elif outcome[1] is not True:
            self._suspend()
        else:
            lua.idle.append(self._coroutine)
            if not outcome[2]:
                self._fail(lua.failure(outcome[3], lua.trace()), overdue)
            elif len(outcome) == 3 and self._called < len(self._handlers):
                self._call_next()
                return
            elif self.takes_all:
                self._conclude(outcome[3:])
            else:
                self._conclude(outcome[3] if len(outcome) > 3 else None)
        runs.go_on()

    def _conclude(self, result: object) -> None:
        if self._finish is None:
            self._close()
            self.settle(None)
            return
        try:
            value = self._finish(result)
        except (Rejected, PolicyError, Fault) as raised:
            error = self._runs.failed(str(self.event), str(raised)) if isinstance(raised, Fault) else raised
            self._close(None, error)
            self.fail(error)
        else:
            self._close(value)
            self.settle(value)

    def _fail(self, failure: LuaFailure, overdue: bool) -> None:
        event = str(self.event)
        runs = self._runs
        if overdue:
            place = inward(self.lua.limits.place.decode("latin-1"))
            failure = LuaFailure(f"{place}it takes too much processor time", failure.traceback)
        elif self.lua.limits.exceeded:
            failure = LuaFailure(f"it needs more than {runs.limits.memory >> 20} MiB of memory", failure.traceback)
            self._recover()
        error: Exception
        if isinstance(failure.cause, Rejected):
            runs.page.add(REJECTS.get(event, REJECTS[OTHER_EVENT]))
            error = failure.cause
        elif self._is_cancelled:
            error = PolicyError(failure.text)
        else:
            bug = failure.cause if not isinstance(failure.cause, Fault) else None
            error = runs.failed(event, failure.text, failure.traceback, bug)
        self._close(None, error)
        self.fail(error)

    def _close(self, value: object = None, error: Exception | None = None) -> None:
        if self._handle is not None:
            if self.publishes:
                self._keep(self._handle)
            self._handle.message = None
        event = str(self.event)
        runs = self._runs
        took = runs.clock() - self._began
        runs.page.observe(DURATION.get(event, DURATION[OTHER_EVENT]), took)
        if runs.traced:
            self._tell(event, value, error, took)

    def _keep(self, handle: MessageHandle) -> None:
        """What is only published and then discarded would be gone here, where nothing is published: the fleet gets it,
        and does both.
        """
        message = handle.message
        if message is not None and message.meta.get("queue") == NULL_QUEUE:
            del message.meta["queue"]
            log.info("%s: not discarded, but left to the fleet with what the policy publishes", message.id)

    def _tell(self, event: str, value: object, error: Exception | None, took: float) -> None:
        """Tells the witness of the session it was asked for, if there is one."""
        handler = self._handlers[self._called - 1] if self._called else None
        place = "" if handler is None or isinstance(handler, Task) else f"{handler.file}:{handler.line}"
        about: dict[str, object] = {"name": event, "handler": place}
        if self.evaluation is not None:
            about |= {"domain": inward(str(self._arguments[0])), "read": self.evaluation.reads}
        for argument in self._arguments:
            if isinstance(argument, ConnMeta) and argument.witness is not None:
                argument.witness.policy(about, value, error, took, argument.secret)

    def _recover(self) -> None:
        """Gives back what was too much; a state that holds on to it is replaced."""
        lua = self.lua
        before = lua.limits.used
        lua.collect()
        kept = lua.limits.used
        log.warning("Lua memory: %d MiB, %d MiB after a collection", before >> 20, kept >> 20)
        if kept > lua.base + self._runs.limits.memory // 2:
            self._runs.replace_lua()

    # --- waiting ------------------------------------------------------------------------------------------

    def _suspend(self) -> None:
        later = self.waits_for
        assert later is not None
        runs = self._runs
        self._suspended_at = runs.clock()
        if self._suspended_at - self._began - self._waited > runs.limits.processor_time:
            self._end_waiting("it takes too much processor time")
            return
        patience = max(0.0, runs.limits.wait - self._waited)
        self._timer = runs.background.call_later(patience, self._overdue)
        if later.done:
            runs.soon(self._go_on)
        else:
            later.then(self._arrived)

    def _arrived(self) -> None:
        self._runs.soon(self._go_on)

    def _go_on(self) -> None:
        later = self.waits_for
        if later is None:
            return  # it was ended meanwhile
        try:
            ok, values = True, self.lua.values(later.result())
        except Exception as error:
            ok, values = False, (error,)
        self._resume(ok, *values)

    def _resume(self, ok: bool, *values: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.waits_for = None
        self._waited += self._runs.clock() - self._suspended_at
        self._enter((ok, *values))

    def _overdue(self) -> None:
        if self.waits_for is not None:
            self._end_waiting(f"it waited for more than {self._runs.limits.wait:g} seconds")

    def _end_waiting(self, why: str) -> None:
        assert self.waits_for is not None
        self.waits_for.cancel()
        self.condemned = True
        self._runs.soon(partial(self._resume, False, Fault(why)))
