"""Handlers: a policy's Lua state with its registered event handlers, loaded and run.

Here errors of Lua become Rejected or PolicyError, are logged and counted, and calls are timed. What an event's
arguments and results mean is engine.py's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy import events
from gateway.policy.api import MISSING_MODULES, VERSION, Api, Handler
from gateway.policy.decision_cache import Evaluation
from gateway.policy.message_methods import MessageMethods
from gateway.policy.objects import Objects
from gateway.policy.problems import PolicyError, PolicyProblems, Problem, Rejected
from gateway.policy.runtime import Fault, Host, LuaFailure, LuaState
from gateway.policy.source import PolicySource

KUMOMTA_PATHS = ("/opt/kumomta/share", "/opt/kumomta/etc/policy")

LOADING_TIME = 30.0  # seconds that top level and init may take together

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


class Handlers:
    """One Lua state, the handlers that its policy registered, and what it declared (`api`)."""

    def __init__(self, source: PolicySource, page: CounterPage, clock: Callable[[], float]) -> None:
        self._source = source
        self._page = page
        self._clock = clock
        self._objects = Objects(lambda: self.lua)
        self.api = Api()
        self.lua = self.api.lua = LuaState(self._host())

    def _host(self) -> Host:
        directory = str(PurePath(self._source.path).parent)
        templates = [f"{path}/{file}" for path in (directory, *KUMOMTA_PATHS) for file in ("?.lua", "?/init.lua")]
        messages = MessageMethods(lambda: self.lua, self._objects.unstable)
        return Host(
            version=VERSION,
            package_path=";".join([*templates, "./?.lua", "./?/init.lua"]),
            functions=self.api.functions(),
            missing_modules=MISSING_MODULES,
            exposed={**self._objects.exposed(), **messages.exposed()},
            read=self._read,
            unstable=self._objects.unstable,
            protected=self.api.protect,
        )

    def _read(self, path: str) -> bytes | None:
        self._objects.unstable()
        return self._source.load(path)

    # --- loading ------------------------------------------------------------------------------------------

    def load(self, *, validating: bool) -> None:
        """Runs the policy's top level and its init handlers. Raises PolicyProblems with everything that is wrong.

        validating: run validate_config handlers too, with `_VALIDATING_CONFIG` set.
        """
        if validating:
            self.lua.set_global("_VALIDATING_CONFIG", True)
        self.lua.watch(partial(self._keep_to, self._clock() + LOADING_TIME))
        if self._survives(None, lambda: self.lua.call(self.lua.load(self._source.path, self._source.main))):
            self._run_all(events.PRE_INIT)
            self._run_all(events.INIT)
            if validating:
                self._run_all(events.VALIDATE_CONFIG)
                if self.api.validation_failed:
                    self.api.problems.append(Problem(self._source.path, 0, "validate_config says that it failed"))
            self._check_filters()
        self.lua.watch(None)
        self.api.loading = False
        if self.api.problems:
            raise PolicyProblems(self.api.problems)

    def _keep_to(self, deadline: float) -> None:
        if self._clock() > deadline:
            file, line = self.lua.where()
            raise Fault(f"{file}:{line}: the policy takes more than {LOADING_TIME:.0f} seconds to load")

    def _run_all(self, event: str) -> None:
        for handler in self.api.handlers.get(event, ()):
            if not self._survives(event, lambda handler=handler: self.lua.call(handler.function)):  # type: ignore[misc]
                return

    def _survives(self, event: str | None, run: Callable[[], object]) -> bool:
        self.api.event = event
        try:
            run()
        except LuaFailure as failure:
            self.api.problems.append(Problem.from_lua(failure.text, self._source.path))
            return False
        finally:
            self.api.event = None
        return True

    def _check_filters(self) -> None:
        for event, file, line in self.api.filter_events:
            if event not in self.api.handlers:
                self.api.problems.append(Problem(file, line, f"filter_event '{event}' has no handler"))

    # --- running ------------------------------------------------------------------------------------------

    def call(self, event: str, *arguments: object) -> Any:
        """Runs a single event's handler; returns its first result, None if it has none or there is no handler.

        Raises Rejected or PolicyError.
        """
        registered = self.api.handlers.get(event)
        if not registered:
            return None
        results = self._run(event, registered[0], arguments)
        return results[0] if results else None

    def call_chain(self, event: str, *arguments: object) -> Any:
        """Runs an event's handlers until one returns something, were it an explicit nil; returns that.

        Raises Rejected or PolicyError.
        """
        for handler in self.api.handlers.get(event, ()):
            results = self._run(event, handler, arguments)
            if results:
                return results[0]
        return None

    def evaluate(self, event: str, evaluation: Evaluation, *arguments: object) -> Any:
        """Like `call`, noting in `evaluation` what the handler looks at."""
        self._objects.evaluation = evaluation
        try:
            return self.call(event, *arguments)
        finally:
            self._objects.evaluation = None

    def _run(self, event: str, handler: Handler, arguments: tuple[object, ...]) -> tuple[Any, ...]:
        started = self._clock()
        self.api.event = event
        try:
            return self.lua.call(handler.function, *arguments)
        except LuaFailure as failure:
            if isinstance(failure.cause, Rejected):
                self._page.add(REJECTS.get(event, REJECTS[OTHER_EVENT]))
                raise failure.cause from None
            bug = failure.cause if not isinstance(failure.cause, Fault) else None
            raise self.failed(event, failure.text, failure.traceback, bug) from failure.cause
        finally:
            self.api.event = None
            self._page.observe(DURATION.get(event, DURATION[OTHER_EVENT]), self._clock() - started)

    def failed(self, event: str, text: str, traceback: str = "", bug: BaseException | None = None) -> PolicyError:
        """Counts and logs that a handler failed or returned something unusable; returns the exception to raise.

        bug: an exception of the gateway's own code, whose traceback belongs in the log.
        """
        self._page.add(ERRORS.get(event, ERRORS[OTHER_EVENT]))
        log.error("%s: %s%s", event, text, f"\n{traceback}" if traceback else "", exc_info=bug)
        return PolicyError(f"{event}: {text}")
