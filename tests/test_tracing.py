"""What is kept for those who look on, and for those who ask later: bounded whatever happens, and exact about what is
missing.
"""

from __future__ import annotations

import json
from collections import deque
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import _fastpath as fp
from gateway.admin import display
from gateway.service.worker import Worker
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.states import END_OF_DATA
from gateway.tracing import onlooker as onlookers
from gateway.tracing import words
from gateway.tracing.onlooker import MOST_HELD, MOST_OF_SESSION, MOST_PENDING, Onlooker, View
from gateway.tracing.tracer import MOST_ONLOOKERS, Recent, TooMany, Tracer
from gateway.tracing.wanted import BadWish, Wanted
from gateway.tracing.witness import Session, Witness
from gateway.tracing.words import line_of

PEER = bytes((192, 0, 2, 7))
REFUSED = Reply(550, "5.7.1", "no", Reason.RELAY_DENIED)
ALL = Wanted()


def tracer() -> Tracer:
    return Tracer(3, lambda: 1_785_847_290_123_456_789, lambda: 12.5)


def session(number: int = 1) -> Session:
    return Session(f"session-{number}", PEER, "192.0.2.7:40000", "192.0.2.1:25", 10.0)


def begun(wanted: Wanted) -> tuple[Onlooker, Witness]:
    """Somebody looks on, and a session."""
    trace = tracer()
    looking = trace.look_on(wanted, lambda: None)
    trace.all_are_watched()
    witness = trace.witness(session())
    assert witness is not None
    return looking, witness


def told(looking: Onlooker) -> list[dict[str, Any]]:
    lines = b""
    while portion := looking.portion():
        lines += portion
    return [json.loads(line) for line in lines.splitlines()]


def said(looking: Onlooker) -> list[str]:
    return [event.get("command") or str(event.get("code", event["event"])) for event in told(looking)]


# --- a slow reader ----------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(1, 60_000), st.none()), max_size=60))
def test_every_line_is_sent_or_counted_as_missing_in_its_place(steps):
    looking = Onlooker(0, ALL, lambda: None)
    sent: list[dict[str, Any]] = []
    given_lines = 0
    for size in steps:
        if size is None:
            sent += [json.loads(line) for line in looking.portion().splitlines()]
        else:
            looking.take(line_of({"number": given_lines, "filling": "x" * size}))
            given_lines += 1
        assert looking._octets <= MOST_PENDING + 100
    sent += told(looking)
    expected = 0
    for event in sent:
        if event.get("event") == "dropped":
            expected += event["count"]
        else:
            assert event["number"] == expected
            expected += 1
    assert expected == given_lines


def test_whoever_waits_is_told_once_that_there_is_something():
    calls: list[None] = []
    looking = Onlooker(0, ALL, lambda: calls.append(None))
    looking.take(b"1\n")
    looking.take(b"2\n")
    assert (len(calls), looking.portion(), looking.portion()) == (1, b"1\n2\n", b"")
    looking.take(b"3\n")
    assert len(calls) == 2


# --- what has to wait until it is known to be wanted ------------------------------------------------------------------


def command(witness: Witness, verb: int, argument: bytes, reply: Reply = replies.MAIL_OK) -> None:
    witness.command(verb, argument)
    witness.replied(verb, reply, argument)


def test_a_refused_transaction_is_shown_from_the_connections_beginning_and_the_next_one_is_not():
    looking, witness = begun(Wanted(refused=True))
    witness.connected()
    command(witness, fp.MAIL, b"FROM:<a@b.example>")
    command(witness, END_OF_DATA, b"")
    assert said(looking) == ["watching"]
    command(witness, fp.MAIL, b"FROM:<c@d.example>")
    command(witness, fp.RCPT, b"TO:<e@f.example>", REFUSED)
    assert said(looking) == ["connected", "MAIL FROM:<c@d.example>", "250", "RCPT TO:<e@f.example>", "550"]
    command(witness, fp.RSET, b"")
    assert said(looking) == ["RSET", "250"]
    command(witness, fp.MAIL, b"FROM:<g@h.example>")
    assert said(looking) == []


def test_a_domain_is_found_however_it_is_spelt_and_only_as_a_recipients():
    looking, witness = begun(Wanted(domains=frozenset({"in.example"})))
    command(witness, fp.MAIL, b"FROM:<a@in.example>")
    command(witness, fp.RCPT, b"TO:<b@far.example>")
    assert said(looking) == ["watching"]
    command(witness, fp.RCPT, b'TO:<"in@far.example"@IN.Example> X=y', REFUSED)
    assert said(looking)[-2:] == ['RCPT TO:<"in@far.example"@IN.Example> X=y', "550"]


def test_a_mail_command_within_a_transaction_begins_none():
    looking, witness = begun(Wanted(terse=True))
    command(witness, fp.MAIL, b"FROM:<a@b.example>")
    command(witness, fp.RCPT, b"TO:<c@d.example>")
    command(witness, fp.MAIL, b"FROM:<e@f.example>", replies.BAD_SEQUENCE)
    command(witness, END_OF_DATA, b"")
    assert [(event["sender"], event["recipients"]) for event in told(looking)[1:]] == [("a@b.example", ["c@d.example"])]


class Said:
    weight = 1000

    def line(self) -> bytes:
        raise AssertionError("nobody wants to hear it")


def test_what_is_held_back_is_bounded_for_a_session_and_for_all():
    looking, witness = begun(Wanted(refused=True))
    for _ in range(1000):
        command(witness, fp.NOOP, b"x" * 400)
    assert MOST_OF_SESSION - 1000 < looking.held[1] <= MOST_OF_SESSION
    command(witness, fp.RCPT, b"", REFUSED)
    events = told(looking)
    assert events[-1]["code"] == 550
    [dropped] = [event for event in events if event["event"] == "dropped"]
    assert len(events) - 2 + dropped["count"] == 2002  # but for "watching", and itself
    assert looking.held == [0, 0]
    views = [View(looking) for _ in range(300)]
    for view in views:
        for _ in range(100):
            view.take(Said())
    assert MOST_HELD - 1000 < looking.held[1] <= MOST_HELD
    for view in views:  # what came before leaves the transactions their own room
        view.begin()
        for _ in range(100):
            view.take(Said())
    assert MOST_HELD - 1000 < looking.held[0] <= MOST_HELD
    views[0].begin()
    assert looking.held[0] <= MOST_HELD - 32_000
    for view in views:
        view.end()
    assert looking.held == [0, 0]


@pytest.mark.parametrize("under_way", [False, True])
def test_a_session_that_is_over_holds_nothing(under_way):
    looking, witness = begun(Wanted(domains=frozenset({"in.example"})))
    command(witness, fp.MAIL, b"FROM:<a@b.example>")
    assert looking.held[0] > 0
    witness.closed(under_way)
    if under_way:
        witness.replied(END_OF_DATA, replies.MAIL_OK, b"")
    assert looking.held == [0, 0]


def test_a_fault_of_the_telling_is_not_the_sessions(caplog):
    looking, witness = begun(ALL)
    witness.replied(fp.NOOP, None, b"")  # type: ignore[arg-type]
    assert "cannot be told of any more" in caplog.text
    witness.connected()
    assert said(looking)[1:] == ["NOOP"]


def test_octets_that_are_no_text_are_told_all_the_same():
    looking, witness = begun(ALL)
    command(witness, fp.RCPT, b"TO:<\xff\xfe@in.example>", REFUSED)
    about = {"name": "smtp_server_ehlo", "handler": "init.lua:1", "read": {"key": "\udcff"}}
    witness.policy(about, object(), None, 0.001, frozenset())
    assert told(looking)[-1]["read"] == {"key": "?"}


def test_the_clients_secrets_are_taken_out_of_everything_however_short_they_are():
    looking, witness = begun(ALL)
    witness.conceal("e", "\0user\0e")
    witness.policy({"name": "x", "handler": "x:1", "read": {"e": "here"}}, None, ValueError("e"), 0.0, frozenset())
    event = told(looking)[-1]
    assert (event["error"], event["read"]) == ("***", {"***": "h***r***"})


# --- the last refusals ------------------------------------------------------------------------------------------------


def test_the_last_refusals_take_so_many_octets_and_no_more():
    recent = Recent(1000)
    for number in range(100):
        recent.add(line_of({"event": "refused", "peer_address": "192.0.2.7", "number": number}))
        assert sum(map(len, recent._lines)) <= 1000
    kept = [json.loads(line)["number"] for line in recent.of(ALL)]
    assert kept == list(range(100 - len(kept), 100))
    recent.add(b"x" * 1001)
    assert list(recent._lines) == []


def test_a_refusal_of_any_size_is_kept_short():
    trace = tracer()
    trace.refused(
        Reply(550, "5.7.1", "x" * 100_000, Reason.POLICY_REJECT), session_id="s", peer_address="192.0.2.7", ehlo="x",
        meta={f"key{number}": "x" * 100_000 for number in range(1000)}, hidden=frozenset({"key1"}),
        command="RCPT " + "x" * 100_000, sender="x" * 100_000, recipients=["x" * 100_000] * 20,
    )  # fmt: skip
    [line] = trace.recent.of(ALL)
    assert len(line) < 32_000
    assert json.loads(line)["known"]["key1"] == "***"


def test_only_so_many_look_on():
    trace = tracer()
    looking = [trace.look_on(ALL, lambda: None) for _ in range(MOST_ONLOOKERS)]
    with pytest.raises(TooMany):
        trace.look_on(ALL, lambda: None)
    trace.leave(looking[0])
    trace.look_on(ALL, lambda: None)


def test_who_looks_on_hears_once_that_nothing_is_missed_from_here_on():
    trace = tracer()
    first = trace.look_on(ALL, lambda: None)
    assert said(first) == []
    trace.all_are_watched()
    second, third = (trace.look_on(ALL, lambda: None) for _ in range(2))
    trace.leave(first)
    trace.leave(third)
    trace.all_are_watched()
    trace.all_are_watched()
    assert (said(first), said(second), said(third)) == (["watching"], ["watching"], [])


def test_a_worker_says_that_it_watches_when_the_last_open_session_has_been_told():
    """However long it is away between two batches of them: what a session does meanwhile must not be missed."""
    said: list[str] = []
    turns: deque[Any] = deque()
    worker: Any = SimpleNamespace(
        _services=Mock(), _to_watch=[], _roster=Mock(), _loop=SimpleNamespace(call_soon=turns.append)
    )
    worker._services.tracer.all_are_watched = lambda: said.append("watching")
    worker._roster.all.return_value = [SimpleNamespace(watch=lambda: said.append("told")) for _ in range(250)]
    worker._watch_some = lambda: Worker._watch_some(worker)
    Worker._watch(worker, True)
    assert 0 < said.count("told") < 250
    while turns:
        turns.popleft()()
    assert said == ["told"] * 250 + ["watching"]


def test_nobody_tells_of_a_session_that_nobody_wants():
    trace = tracer()
    assert trace.witness(session()) is None
    looking = trace.look_on(Wanted.read([("peer", "198.51.100.0/24")]), lambda: None)
    assert trace.witness(session()) is None
    other = trace.look_on(Wanted.read([("peer", "192.0.2.0/24")]), lambda: None)
    witness = trace.witness(session())
    assert witness is not None
    trace.leave(looking)
    assert trace.witness(session(), witness) is witness
    trace.leave(other)
    assert trace.witness(session(), witness) is None


# --- wishes -----------------------------------------------------------------------------------------------------------


def test_wishes_are_read_as_they_are_written():
    wanted = Wanted.read([("peer", "10.0.0.0/8"), ("peer", "::1"), ("to", "<x@IN.example>"), ("refused", "1")])
    assert Wanted.read(wanted.pairs()) == wanted
    assert (wanted.domains, wanted.refused, wanted.terse) == ({"in.example"}, True, False)
    assert wanted.has_peer(bytes((10, 1, 1, 1))) and not wanted.has_peer(PEER)


@pytest.mark.parametrize("wish", [("peer", "x"), ("to", ".."), ("to", ""), ("refused", "yes"), ("colour", "1")])
def test_a_wish_that_is_none_is_refused(wish):
    with pytest.raises(BadWish, match=wish[0]):
        Wanted.read([wish])


def test_bounds_are_in_proportion():
    assert onlookers.PORTION <= MOST_PENDING // 2  # so that what is missing is told before all is sent


@pytest.mark.parametrize(
    ("result", "in_json", "for_a_person"),
    [
        ((None, None), [None, None], "no objection"),
        ((551, None), ["551", None], "551, nil"),
        (None, None, "no objection"),
        (["a", "b"], ["a", "b"], "a, b"),
    ],
)
def test_what_a_handler_returns_is_told_as_lua_has_it(result, in_json, for_a_person):
    event = json.loads(words.line_of(words.policy({"name": "mine"}, result, None, 0.0, frozenset())))
    assert event["result"] == in_json
    assert f"policy mine: {for_a_person} (" in display.line_of({"event": "policy", **event})
