"""Which counters the fleet bumps for what an upstream answered. The families themselves are in gateway/metrics."""

from __future__ import annotations

from collections.abc import Iterable

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import Failure, Stage
from gateway.smtp.exchange import Exchange

OPENED = metrics.UPSTREAM_OPENED.slot()
OPEN = metrics.UPSTREAM_OPEN.slot()
WAITING = metrics.UPSTREAM_WAITING.slot()
DURATION = metrics.RELAY_DURATION.slot()
FAILURES = {failure: metrics.UPSTREAM_FAILURES.slot(failure.value) for failure in Failure}

_COUNTED: list[Stage] = [stage for stage in Stage if stage not in (Stage.QUIT, Stage.IDLE)]
_SLOTS = metrics.UPSTREAM_REPLIES.slots
_REPLIES = {
    (stage, digit): _SLOTS.get((stage.value, f"{digit}xx"), metrics.NOWHERE)
    for stage in _COUNTED
    for digit in range(2, 6)
}
_INVALID = {stage: _SLOTS.get((stage.value, "invalid"), metrics.NOWHERE) for stage in _COUNTED}
# by the reply's first digit; no reply starts with 0 or 1
_MAIL, _RCPT, _DATA, _END_OF_DATA = (
    [_REPLIES.get((stage, digit), metrics.NOWHERE) for digit in range(6)]
    for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA)
)


def count_exchange(page: CounterPage, exchange: Exchange) -> None:
    """The answers of an exchange, complete or not."""
    _count(page, _MAIL, exchange.mail)
    for answer in exchange.rcpts:
        _count(page, _RCPT, answer)
    _count(page, _DATA, exchange.data)
    if exchange.verdicts is None:
        _count(page, _END_OF_DATA, exchange.verdict)
    else:
        for answer in exchange.verdicts:
            _count(page, _END_OF_DATA, answer)


def _count(page: CounterPage, slots: list[int], answer: tuple[int, bytes] | None) -> None:
    if answer is not None:
        code = answer[0]
        page.add(slots[code // 100])


def count_others(page: CounterPage, answered: Iterable[tuple[Stage, int]]) -> None:
    """The answers outside exchanges."""
    for stage, code in answered:
        slot = _REPLIES.get((stage, code // 100))
        if slot is not None:
            page.add(slot)


def count_failure(page: CounterPage, session: ClientSession) -> None:
    """A connection that failed."""
    if session.failure is not None:
        page.add(FAILURES[session.failure])
    if session.failure is Failure.PROTOCOL and session.failed_at in _INVALID:
        page.add(_INVALID[session.failed_at])
