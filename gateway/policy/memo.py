"""What kumo.memoize needs of the host: options, keys, the clock, and who waits for whom. The cache is memoize.lua's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.later import Later
from gateway.policy.decision_cache import Evaluation
from gateway.policy.options import BadOptions, Option, Schema, boolean, duration, integer, json_value, string
from gateway.policy.problems import Rejected
from gateway.policy.runs import Runs
from gateway.policy.runtime import Fault, LuaState, Waiting, is_function, kind_of

KEEP_ERRORS = 60.0  # seconds for which a failure is a result

MEMOIZE = Schema(
    {
        "name": Option(string, required=True),
        "ttl": Option(duration, required=True),
        "capacity": Option(integer(1), required=True),
        "invalidate_with_epoch": Option(boolean, default=False),
        "populate_timeout": Option(duration, default=120.0),
        "retry_on_populate_timeout": Option(boolean, default=False),
        "allow_stale_reads": Option(boolean, default=False),
    }
)


class _Population:
    """A value that is being found, and those who wait for that."""

    def __init__(self) -> None:
        self.waiting: list[_Waiter] = []


class _Waiter(Later):
    """Settled with True when the value is there, with False when the time is up."""

    def __init__(self, flight: _Population) -> None:
        super().__init__()
        self._flight = flight
        self.timer: Any = None
        flight.waiting.append(self)

    def cancel(self) -> None:
        super().cancel()
        self.leave()

    def leave(self) -> None:
        """Waits no more."""
        self.timer.cancel()
        if self in self._flight.waiting:
            self._flight.waiting.remove(self)

    def give_up(self) -> None:
        """The time is up."""
        self.leave()
        self.settle(False)


class Memo:
    """The functions that memoize.lua calls, for one Lua state. problem: takes a mistake in options down, or raises.

    What they are about goes to Lua as a number: an object for each call would be more than the collector can follow.
    """

    def __init__(self, lua: Callable[[], LuaState], runs: Runs, problem: Callable[[str], None]) -> None:
        self._lua = lua
        self._runs = runs
        self._problem = problem
        self._numbers = itertools.count(1)
        self._populations: dict[int, _Population] = {}
        self._readers: dict[int, Evaluation] = {}

    def functions(self) -> dict[str, Any]:
        """For LuaHost.memo."""
        return {
            "options": self._options,
            "same": lambda one, other: one == other,
            "key": self._key,
            "now": self._runs.clock,
            "keep_errors": KEEP_ERRORS,
            "failure": self._failure,
            "flight": self._flight,
            "land": self._land,
            "join": Waiting(self._join),
            "apart": self._apart,
            "together": self._together,
            "lasts_until": self._lasts_until,
            "refresh": self._refresh,
        }

    def _options(self, function: object = None, table: object = None) -> Any:
        if not is_function(function):
            raise Fault(f"kumo.memoize: expected a function and a table, got a {kind_of(function)}")
        try:
            options = MEMOIZE.read(self._lua().plain(table))
        except BadOptions as bad:
            self._problem(f"kumo.memoize: {bad}")
            return None
        return self._lua().value({**options, "mark": json.dumps(options, sort_keys=True)})

    def _key(self, *arguments: object) -> str:
        try:
            return json.dumps([json_value(self._lua().plain(argument)) for argument in arguments], sort_keys=True)
        except BadOptions as bad:
            raise Fault(f"kumo.memoize: an argument is {bad}") from None

    def _failure(self, problem: object) -> tuple[bool, object]:
        """Whether an error is kept as a result, and as what. A verdict is about who asked, and no result."""
        if isinstance(problem, Rejected):
            return False, problem
        return True, problem if isinstance(problem, str) else str(problem)

    def _flight(self) -> int:
        number = next(self._numbers)
        self._populations[number] = _Population()
        return number

    def _land(self, number: int) -> None:
        flight = self._populations.pop(number, None)  # two may have found the same value
        for waiter in () if flight is None else flight.waiting.copy():
            waiter.leave()
            waiter.settle(True)

    def _join(self, number: int, timeout: float) -> Later:
        waiter = _Waiter(self._populations[number])
        waiter.timer = self._runs.background.call_later(timeout, waiter.give_up)
        return waiter

    def _apart(self) -> int | None:
        """What a memoized function reads is not read by who calls it: the result has a lifetime of its own."""
        run = self._runs.running
        if run is None or run.evaluation is None:
            return None
        number = next(self._numbers)
        self._readers[number], run.evaluation = run.evaluation, None
        return number

    def _together(self, number: int | None) -> None:
        run = self._runs.running
        if run is not None and number is not None:
            run.evaluation = self._readers.pop(number)

    def _lasts_until(self, expires: float) -> None:
        run = self._runs.running
        if run is not None and run.evaluation is not None:
            run.evaluation.lasts_until(expires)

    def _refresh(self, number: int) -> None:
        self._runs.soon(partial(self._runs.call, self._lua(), number))
