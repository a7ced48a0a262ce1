"""From answers to outcomes, and a job's way through several exchanges: as values, without a connection."""

from __future__ import annotations

from typing import Any

import pytest

from gateway._fastpath import content_of
from gateway.config import EgressPath, UpstreamTls
from gateway.couriers.fleet import outcome
from gateway.couriers.fleet.job import Dispatcher, Job
from gateway.handover import Batch, HandOver, RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.address import parse_address
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import Failure
from gateway.smtp.exchange import Exchange
from gateway.smtp.replies import Reason
from gateway.smtp.response import Response

SENDER = parse_address("a@x.example")
CONTENT = content_of(b"Subject: x\r\n\r\nhello\r\n")
# at the lower edges of their classes
OK, GO, YES = (200, b"200 2.1.0 ok\r\n"), (354, b"354 go\r\n"), (200, b"200 2.0.0 queued\r\n")
NO, LATER, FULL = (500, b"500 5.1.1 no\r\n"), (400, b"400 4.2.1 later\r\n"), (452, b"452 4.5.3 too many\r\n")
NOT_SENT = Response.from_reply(replies.UPSTREAM_NOT_SENT)


def addresses(count: int) -> list[Any]:
    return [parse_address(f"r{n}@y.example") for n in range(count)]


def exchange(*rcpts: Any, mail: Any = OK, data: Any = None, verdict: Any = None, of: int = 0, **flags: Any) -> Exchange:
    """An exchange for as many recipients as there are answers, or `of`."""
    divisible = flags.pop("divisible", False)
    made = Exchange(SENDER, addresses(of or len(rcpts)), CONTENT, divisible=divisible)
    made.mail, made.data, made.verdict = mail, data, verdict
    made.rcpts.extend(rcpts)
    made.accepted = sum(code == 200 for code, _ in rcpts)
    for name, value in flags.items():
        setattr(made, name, value)
    return made


def told(settled: RecipientOutcome | None) -> Any:
    if settled is None:
        return None
    return settled.status.name, settled.response.code, settled.response.command, settled.reason


DELIVERED = ("DELIVERED", 200, ".\r\n", None)
REFUSED, DEFERRED = Reason.UPSTREAM_REFUSED, Reason.UPSTREAM_DEFERRED


def rcpt(place: int) -> str:
    return f"RCPT TO:<r{place}@y.example>\r\n"


MAIL = "MAIL FROM:<a@x.example>\r\n"


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (exchange(OK, data=GO, verdict=YES), [DELIVERED]),
        (exchange(OK, OK, data=GO, verdict=YES), [DELIVERED, DELIVERED]),
        (exchange(NO, OK, data=GO, verdict=YES), [("PERMANENT", 500, rcpt(0), REFUSED), DELIVERED]),
        (exchange(OK, NO, data=GO, verdict=YES), [DELIVERED, ("PERMANENT", 500, rcpt(1), REFUSED)]),
        (exchange(OK, data=GO, verdict=NO), [("PERMANENT", 500, ".\r\n", REFUSED)]),
        (exchange(OK, data=GO, verdict=LATER), [("TRANSIENT", 400, ".\r\n", DEFERRED)]),
        (exchange(OK, data=NO), [("PERMANENT", 500, "DATA\r\n", REFUSED)]),
        (exchange(OK, data=LATER), [("TRANSIENT", 400, "DATA\r\n", DEFERRED)]),
        (
            exchange(NO, OK, data=LATER),
            [("PERMANENT", 500, rcpt(0), REFUSED), ("TRANSIENT", 400, "DATA\r\n", DEFERRED)],
        ),
        (exchange(NO, NO), [("PERMANENT", 500, rcpt(0), REFUSED), ("PERMANENT", 500, rcpt(1), REFUSED)]),
        (exchange(OK, OK, mail=NO), [("PERMANENT", 500, MAIL, REFUSED)] * 2),
        (exchange(of=2, mail=LATER), [("TRANSIENT", 400, MAIL, DEFERRED)] * 2),
        (exchange(OK, verdict=YES, chunked=True), [("DELIVERED", 200, "BDAT 21 LAST\r\n", None)]),
        (exchange(OK, verdict=NO, chunked=True), [("PERMANENT", 500, "BDAT 21 LAST\r\n", REFUSED)]),
        (exchange(NO, verdict=YES, chunked=True), [("PERMANENT", 500, rcpt(0), REFUSED)]),
        (exchange(OK, FULL, data=GO, verdict=YES, postponed=(1,)), [DELIVERED, None]),
        (exchange(OK, FULL, data=GO, verdict=NO, postponed=(1,)), [("PERMANENT", 500, ".\r\n", REFUSED), None]),
        (
            exchange(OK, FULL, NO, data=GO, verdict=YES, postponed=(1,)),
            [DELIVERED, None, ("PERMANENT", 500, rcpt(2), REFUSED)],
        ),
        (
            exchange(OK, LATER, NO, data=GO, verdict=YES, deferred=True, divisible=True),
            [DELIVERED, ("TRANSIENT", 400, rcpt(1), DEFERRED), ("PERMANENT", 500, rcpt(2), REFUSED)],
        ),
        (
            exchange(LATER, LATER, data=NO, deferred=True, divisible=True),
            [("TRANSIENT", 400, rcpt(0), DEFERRED), ("TRANSIENT", 400, rcpt(1), DEFERRED)],
        ),
    ],
)
def test_an_exchange_that_is_over_tells_what_became_of_everyone(ended, expected):
    settled = outcome.concluded(ended)
    assert [told(one) for one in settled] == expected
    assert [one.recipient for one in settled if one] == [
        address for address, one in zip(ended.recipients, settled, strict=True) if one
    ]


def test_one_deferred_recipient_defers_everyone_in_their_own_words():
    ended = exchange(OK, LATER, NO, (550, b"550 gone\r\n"), deferred=True, data=NO, verdict=None)
    settled = [one for one in outcome.concluded(ended) if one]
    assert [(one.status, one.reason) for one in settled] == [(Status.TRANSIENT, DEFERRED)] * 4
    assert settled[0].response == NOT_SENT
    assert settled[1].response == Response(400, "4.2.1", "later", rcpt(1))
    words = NOT_SENT.content
    assert settled[2].response == Response(451, "4.4.0", f"{words} (this one was: 500 5.1.1 no)")
    assert settled[3].response == Response(451, "4.4.0", f"{words} (this one was: 550 gone)")


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (exchange(of=2, mail=None), None),
        (exchange(of=2), None),
        (exchange(NO, of=2), None),
        (exchange(NO, OK), None),
        (exchange(NO, LATER), None),
        (exchange(OK), None),
        (exchange(of=2, mail=NO), [("PERMANENT", 500, MAIL, REFUSED)] * 2),
        (exchange(of=1, mail=LATER), [("TRANSIENT", 400, MAIL, DEFERRED)]),
        (exchange(NO, NO), [("PERMANENT", 500, rcpt(0), REFUSED), ("PERMANENT", 500, rcpt(1), REFUSED)]),
    ],
)
def test_an_exchange_that_was_cut_short_is_judged_where_every_answer_was_a_refusal(cut, expected):
    settled = outcome.judged(cut)
    assert (settled and [told(one) for one in settled]) == expected


@pytest.mark.parametrize(("chunked", "command"), [(False, ".\r\n"), (True, "BDAT 21 LAST\r\n")])
def test_an_unknown_outcome_is_that_of_all_who_were_not_refused(chunked: bool, command: str):
    settled = outcome.unknown(exchange(OK, NO, of=3, chunked=chunked))
    unknown = ("UNKNOWN", 451, command, Reason.OUTCOME_UNKNOWN)
    assert [told(one) for one in settled] == [unknown, ("PERMANENT", 500, rcpt(1), REFUSED), unknown]


def test_the_gateways_own_words_are_for_now_or_for_good_by_their_code():
    for_good = replies.Reply(500, "5.5.1", "no", REFUSED)
    for reply, status in ((replies.UPSTREAM_BUSY, Status.TRANSIENT), (for_good, Status.PERMANENT)):
        (one, two) = outcome.same_for_all(addresses(2), reply)
        assert (one.status, one.reason, one.response) == (status, reply.reason, Response.from_reply(reply))
        assert (one.recipient, two.recipient) == tuple(addresses(2))


@pytest.mark.parametrize(
    ("failure", "with_exchange", "without"),
    [
        (Failure.TIMEOUT, replies.UPSTREAM_TIMEOUT, replies.UPSTREAM_UNREACHABLE),
        (Failure.LOST, replies.UPSTREAM_LOST, replies.UPSTREAM_UNREACHABLE),
        (Failure.PROTOCOL, replies.UPSTREAM_PROTOCOL, replies.UPSTREAM_UNREACHABLE),
        (Failure.TLS, replies.UPSTREAM_UNREACHABLE, replies.UPSTREAM_UNREACHABLE),
    ],
)
def test_a_failure_means_most_where_a_message_was_under_way(failure, with_exchange, without):
    session = offering()
    session.fail(failure, "x")
    assert outcome.failure_reply(session) is without
    session = offering()
    session.begin(exchange(of=1, mail=None))
    assert outcome.failure_reply(session) is replies.UPSTREAM_UNREACHABLE  # it has not failed
    session.fail(failure, "x")
    assert outcome.failure_reply(session) is with_exchange


def offering(*extensions: str) -> ClientSession:
    session = ClientSession(EgressPath(enable_tls=UpstreamTls.DISABLED), "gw.example")
    session.receive_data(b"220 hi\r\n")
    session.data_to_send()
    lines = ["250-up.example", *(f"250-{extension}" for extension in extensions), "250 HELP"]
    session.receive_data("".join(f"{line}\r\n" for line in lines).encode())
    return session


# --- a job ------------------------------------------------------------------------------------------------------------


class Nobody(Dispatcher):
    pass


def job(
    recipients: int = 1, content: bytes = b"Subject: x\r\n\r\nhello\r\n", sender: str = "a@x.example", **flags: bool
):
    batch = Batch("id1", parse_address(sender), addresses(recipients), content_of(content), **flags)
    return Job(batch, 10.0, Nobody())


@pytest.mark.parametrize("most", [9, 1])
@pytest.mark.parametrize("divisible", [True, False])
def test_an_exchange_is_as_divisible_as_its_batch(divisible: bool, most: int):
    assert job(2, divisible=divisible).next_exchange(most).divisible == divisible
    assert not Exchange(SENDER, addresses(1), CONTENT).divisible


def outcomes(*statuses: Status | None) -> list[RecipientOutcome | None]:
    words = Response(250, "", "x")
    return [None if status is None else RecipientOutcome(SENDER, status, words, None) for status in statuses]


def result(settled: Job) -> list[Any]:
    seconds = settled.conclude("site")
    settled.tell()
    hand_over: HandOver = settled.later.result()
    assert 0 <= hand_over.seconds == seconds < 60
    assert (hand_over.site, hand_over.protocol, hand_over.peer_name) == ("site", "ESMTP", "")
    return [one.status for one in hand_over.outcomes]


def asked(sent: Exchange) -> list[str]:
    return [recipient.email[:2] for recipient in sent.recipients]


DONE, BAD, WAIT, LOST = Status.DELIVERED, Status.PERMANENT, Status.TRANSIENT, Status.UNKNOWN


@pytest.mark.parametrize("status", list(Status))
def test_one_exchange_is_all_where_it_has_room_for_everyone(status):
    handed = job(2)
    assert not handed.finished()
    assert (handed.deadline, handed.declined, type(handed.dispatcher)) == (10.0, 0, Nobody)
    sent = handed.next_exchange(2)
    assert sent.recipients is handed.batch.recipients
    assert (sent.sender, sent.content) == (handed.batch.sender, handed.batch.content)
    handed.settle(outcomes(status, status))
    assert handed.finished()
    assert result(handed) == [status, status]


def test_the_rest_goes_in_further_exchanges():
    handed = job(5)
    assert asked(handed.next_exchange(2)) == ["r0", "r1"]
    handed.settle(outcomes(DONE, BAD))
    assert not handed.finished()
    assert asked(handed.next_exchange(2)) == ["r2", "r3"]
    handed.settle(outcomes(None, DONE))  # one of them was too many
    assert not handed.finished()
    assert asked(handed.next_exchange(9)) == ["r2", "r4"]
    handed.settle(outcomes(DONE, DONE))
    assert handed.finished()
    assert result(handed) == [DONE, BAD, DONE, DONE, DONE]


def test_those_whom_the_first_exchange_postponed_come_next():
    handed = job(3)
    handed.next_exchange(3)
    handed.settle(outcomes(DONE, None, DONE))
    assert not handed.finished()
    assert asked(handed.next_exchange(3)) == ["r1"]
    handed.settle(outcomes(BAD))
    assert result(handed) == [DONE, BAD, DONE]


@pytest.mark.parametrize("status", [WAIT, LOST])
def test_the_rest_is_not_tried_once_somebody_has_to_wait(status):
    handed = job(4)
    handed.next_exchange(2)
    handed.settle(outcomes(DONE, status))
    assert handed.finished()
    handed.conclude("site")
    handed.tell()
    settled = handed.later.result().outcomes
    assert [one.status for one in settled] == [DONE, status, WAIT, WAIT]
    assert {one.response for one in settled[2:]} == {NOT_SENT}
    assert [one.recipient.email for one in settled[2:]] == ["r2@y.example", "r3@y.example"]


@pytest.mark.parametrize("reply", [replies.UPSTREAM_BUSY, replies.UPSTREAM_WITHOUT_8BITMIME])
def test_giving_up_settles_who_is_left(reply):
    for first in ([], [DONE]):
        handed = job(3)
        if first:
            handed.next_exchange(1)
            handed.settle(outcomes(*first))
        handed.settle_rest(reply)
        assert handed.finished()
        assert result(handed) == [*first, *[WAIT if reply.code < 500 else BAD] * (3 - len(first))]


def test_lanes_that_were_ruled_out_stay_so():
    one, two = job(), job()
    lanes: Any = ["first", "second"]
    for lane in lanes:
        one.rule_out(lane)
    assert one.tried == set(lanes)
    assert two.tried == set()


def test_a_hand_over_that_is_told_soon_is_told_once_and_later():
    calls: list[Any] = []

    class Soon:
        call_soon = calls.append

    handed: Any = job()
    handed.next_exchange(1)
    handed.settle(outcomes(DONE))
    handed.conclude("site")
    try:
        handed.tell_soon(Soon())
    except TypeError:
        pytest.skip("compiled, which takes a Poller alone")
    assert not handed.later.done
    (call,) = calls
    call()
    assert handed.later.done


UTF8 = "Subject: ü\r\n\r\nx\r\n".encode()
BODY = "Subject: x\r\n\r\nü\r\n".encode()


@pytest.mark.parametrize(
    ("handed", "needed"),
    [
        (job(), False),
        (job(smtputf8=True), False),
        (job(content=BODY, smtputf8=True), False),
        (job(content=UTF8), False),
        (job(content=UTF8, smtputf8=True), True),
        (job(content=b"X: y\r\n" * 5000 + UTF8, smtputf8=True), True),
        (job(content=b"X: y\r\n" * 5000 + BODY, smtputf8=True), False),
        (job(content="Subject: ü\r\n".encode(), smtputf8=True), True),  # a header alone
        (job(sender="ä@x.example"), True),
        (job(sender="a@ä.example", smtputf8=True), False),
    ],
)
def test_smtputf8_is_needed_by_a_local_part_or_a_header_alone(handed: Job, needed: bool):
    assert handed.smtputf8 == needed
    assert handed.next_exchange(1).smtputf8 == needed


@pytest.mark.parametrize(("last", "needed"), [(UTF8, True), (BODY, False)])
def test_a_header_in_many_pieces_is_read_to_its_end_and_no_further(last: bytes, needed: bool):
    content = content_of(last).behind([b"X: y\r\n"] * 5000)
    assert Job(Batch("id1", SENDER, addresses(1), content, True), 1.0, Nobody()).smtputf8 == needed


def test_smtputf8_is_needed_by_any_recipient():
    batch = Batch("id1", SENDER, [*addresses(2), parse_address("ü@y.example")], CONTENT)
    assert Job(batch, 1.0, Nobody()).smtputf8


@pytest.mark.parametrize(
    ("handed", "extensions", "lacking"),
    [
        (job(), (), None),
        (job(content=UTF8, smtputf8=True), ("8BITMIME",), replies.UPSTREAM_WITHOUT_SMTPUTF8),
        (job(content=UTF8, smtputf8=True), ("SMTPUTF8",), replies.UPSTREAM_WITHOUT_8BITMIME),
        (job(content=UTF8, smtputf8=True), ("SMTPUTF8", "8BITMIME"), None),
        (job(content=BODY), (), replies.UPSTREAM_WITHOUT_8BITMIME),
        (job(content=BODY), ("8BITMIME",), None),
        (job(), ("SIZE 20",), replies.UPSTREAM_TOO_BIG),
        (job(), ("SIZE 21",), None),
        (job(), ("SIZE 0",), None),
        (job(), ("SIZE 1",), replies.UPSTREAM_TOO_BIG),
    ],
)
def test_what_a_server_lacks_for_a_message(handed: Job, extensions, lacking):
    assert handed.lacks(offering(*extensions)) is lacking
