"""The outbox: one turn of an event loop, written together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.net.outbox import Outbox, Writer


class Connection(Writer):
    def __init__(self, written: list[str], name: str, fails: bool = False) -> None:
        self.written = written
        self.name = name
        self.fails = fails

    def write_out(self) -> None:
        if self.fails:
            raise RuntimeError("broken")
        self.written.append(self.name)


def test_writers_are_called_in_their_order_at_the_end_of_the_turn() -> None:
    later: list[Callable[[], None]] = []
    written: list[str] = []
    outbox = Outbox(later.append)
    for name in "abc":
        outbox.add(Connection(written, name))
    assert written == []
    later.pop()()
    assert written == ["a", "b", "c"]
    assert later == []


def test_what_is_added_while_writing_has_a_turn_of_its_own() -> None:
    later: list[Callable[[], None]] = []
    written: list[str] = []
    outbox = Outbox(later.append)

    class Adding(Connection):
        def write_out(self) -> None:
            super().write_out()
            outbox.add(Connection(written, "second"))

    outbox.add(Adding(written, "first"))
    later.pop()()
    assert written == ["first"]
    later.pop()()
    assert written == ["first", "second"]


def test_one_broken_writer_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    later: list[Callable[[], None]] = []
    written: list[str] = []
    outbox = Outbox(later.append)
    outbox.add(Connection(written, "a", fails=True))
    outbox.add(Connection(written, "b"))
    later.pop()()
    assert written == ["b"]
    assert "internal error while writing" in caplog.text


def test_what_nobody_waits_for_comes_behind_the_writes() -> None:
    later: list[Callable[[], None]] = []
    written: list[str] = []
    outbox = Outbox(later.append)
    outbox.afterwards(lambda: written.append("record"))
    outbox.add(Connection(written, "reply"))
    assert len(later) == 1
    later.pop()()
    assert written == ["reply", "record"]


def test_something_that_fails_afterwards_does_not_hold_up_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    later: list[Callable[[], None]] = []
    done: list[str] = []
    outbox = Outbox(later.append)
    outbox.afterwards([].pop)
    outbox.afterwards(lambda: done.append("b"))
    later.pop()()
    assert done == ["b"]
    assert "internal error after writing" in caplog.text
