"""Later: an answer that may take its time, and the steps that wait for one.

Whoever is asked for something that may take time (a handler of the policy, a courier, the log writer) returns a Later.
Whoever needs several such answers one after the other writes them down as a generator that yields each Later, gets its
answer back, and returns the outcome; Steps drives it, and is a Later itself. An answer that is there already costs no
wait and no recursion, however many follow each other. No event loop, no thread and no clock here: everything happens on
the thread that settles the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from gateway._fastpath import step

# A generator of steps: yields what it waits for, is sent the answer, and returns the outcome, which is no Later.
Waits: TypeAlias = "Generator[Later, Any, Any]"


class Later:
    """One answer: a value or an exception, there already or to come. It is given once and has one waiter.

    done: the answer is there. failed: it is an exception.
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiter: Callable[[], None] | None = None

    def settle(self, value: Any) -> None:
        """Gives the answer; whoever waits goes on before this returns."""
        self._value = value
        self._give()

    def fail(self, error: BaseException) -> None:
        """Gives an exception as the answer."""
        self._error = error
        self.failed = True
        self._give()

    def result(self) -> Any:
        """The answer. Raises what was given to `fail`."""
        assert self.done
        if self._error is not None:
            raise self._error
        return self._value

    def then(self, waiter: Callable[[], None]) -> None:
        """Calls `waiter` when the answer is there, which it must not be yet."""
        assert not self.done
        assert self._waiter is None
        self._waiter = waiter

    def cancel(self) -> None:
        """Nobody waits any more: an answer that still comes is dropped. Who can stop working on it overrides this."""
        self._waiter = None

    def _give(self) -> None:
        assert not self.done
        self.done = True
        waiter = self._waiter
        self._waiter = None
        if waiter is not None:
            waiter()


def answered(value: Any) -> Later:
    """An answer that is there."""
    later = Later()
    later.done = True
    later._value = value
    return later


class Steps(Later):
    """The answer of a generator of steps, which it drives from answer to answer: what the generator returns, or the
    exception that leaves it.

    waits_for: what it stands still for, None while it runs and when it is over.
    """

    def __init__(self, steps: Waits) -> None:
        """Nothing happens before go_on()."""
        self.done = False
        self.failed = False
        self._value = None
        self._error = None
        self._waiter = None
        self.waits_for: Later | None = None
        self._steps = steps

    def go_on(self) -> None:
        """Begins, or goes on with the answer that is there; returns at the next one that is not, or at the end."""
        later = self.waits_for
        self.waits_for = None
        try:
            item = _onward(self._steps, later)
        except Exception as error:
            self.fail(error)
            return
        if isinstance(item, Later):
            self._wait(item)
        else:
            self.settle(item)

    def __call__(self) -> None:
        """It waits for answers itself."""
        self.go_on()

    def cancel(self) -> None:
        """Ends the steps where they stand: nobody wants the outcome any more."""
        Later.cancel(self)
        if self.waits_for is not None:
            self.waits_for.cancel()
            self.waits_for = None
        self._steps.close()

    def _wait(self, later: Later) -> None:
        self.waits_for = later
        later.then(self)


def _onward(steps: Waits, later: Later | None) -> Any:
    """Gives the generator each answer that is there, this one first; returns what it waits for, or its outcome."""
    item = step(steps, None) if later is None else _next(steps, later)
    while isinstance(item, Later):
        later = item
        if not later.done:
            break
        item = _next(steps, later)
    return item


def _next(steps: Waits, later: Later) -> Any:
    """Gives the generator its answer; returns what it waits for next, or its outcome."""
    if later._error is None:
        return step(steps, later._value)
    try:
        return steps.throw(later._error)
    except StopIteration as end:
        return end.value


def outcome_or_steps(steps: Waits) -> Any:
    """The outcome of steps all of whose answers are there; else the Steps, which wait.

    Raises what leaves the steps before they wait.
    """
    item = _onward(steps, None)
    if not isinstance(item, Later):
        return item
    answer = Steps(steps)
    answer._wait(item)
    return answer


def begun(steps: Waits) -> Steps:
    """Steps that have been begun."""
    answer = Steps(steps)
    answer.go_on()
    return answer
