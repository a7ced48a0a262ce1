"""One batch on its way through a fleet: what it needs of a member, and what is left of it. Without any member."""

from __future__ import annotations

from pathlib import Path

import pytest
from couriers_in_loop import DELIVERED, Gateway, batch, only
from upstream import Upstream

from gateway._fastpath import ContentStore
from gateway.couriers.fleet.job import Dispatcher, Job
from gateway.handover import Batch, RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.address import parse_address
from gateway.smtp.response import Response

TAKEN = Response(250, "2.0.0", "taken", None)


def job(handed: Batch) -> Job:
    return Job(handed, 60.0, Dispatcher())


def taken(handed: Batch, *places: int) -> list[RecipientOutcome | None]:
    return [RecipientOutcome(handed.recipients[place], Status.DELIVERED, TAKEN, None) for place in places]


def with_header(octets: int, *, ends: bool = True, last: str = "x", body: str = "x\r\n") -> bytes:
    """A message whose header has that many octets; `last` is its last character."""
    begins = b"Subject: "
    value = b"y" * (octets - len(begins) - len(last.encode())) + last.encode()
    return begins + value + (b"\r\n\r\n" + body.encode() if ends else b"")


@pytest.mark.parametrize(
    ("content", "needed"),
    [
        (b"Subject: x\r\n\r\n" + "ü\r\n".encode(), False),
        ("Subject: ü\r\n\r\nx\r\n".encode(), True),
        (b"\r\n\r\n" + "ü\r\n".encode(), False),  # a header without anything
        (with_header(20, ends=False, last="ü"), True),
        (with_header(9_000, ends=False, last="ü"), True),
        (with_header(8_192, ends=False, last="ü"), True),
        (with_header(30_000, last="ü"), True),
        (with_header(30_000, last="x", body="ü" * 30_000), False),
        (with_header(200, last="x", body="ü" * 30_000), False),
    ],
)
def test_a_declared_smtputf8_is_needed_for_a_header_that_is_not_ascii(content: bytes, needed: bool) -> None:
    assert job(batch(content=content, smtputf8=True)).smtputf8 is needed
    assert job(batch(content=content)).smtputf8 is False


@pytest.mark.parametrize("declared", [True, False])
def test_smtputf8_is_needed_for_an_address_that_is_not_ascii_whoever_has_it(declared: bool) -> None:
    plain = batch(smtputf8=declared)
    sender = Batch("id", parse_address("ü@x.example"), plain.recipients, plain.content, smtputf8=declared)
    assert job(sender).smtputf8 is True
    assert job(batch("b@y.example", "ü@y.example", smtputf8=declared)).smtputf8 is True
    assert job(plain).smtputf8 is False


def test_a_content_in_a_file_is_large(tmp_path: Path) -> None:
    assert job(batch()).large is False
    store = ContentStore(str(tmp_path), 1 << 20, most_files=9, threshold=1_000)
    assert job(batch(content=b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * 2_000, store=store)).large is True


def test_whoever_was_asked_last_is_who_the_outcomes_are_of() -> None:
    handed = batch(*(f"r{place}@y.example" for place in range(5)))
    sent = job(handed)
    assert len(sent.next_exchange(2).recipients) == 2  # and that connection was lost
    assert len(sent.next_exchange(5).recipients) == 5
    sent.settle(taken(handed, 0, 1, 2, 3, 4))
    assert sent.finished()


def test_the_rest_is_asked_for_until_nobody_is_left() -> None:
    handed = batch(*(f"r{place}@y.example" for place in range(3)))
    sent = job(handed)
    sent.next_exchange(2)
    sent.settle(taken(handed, 0, 1))
    assert not sent.finished()
    assert sent.next_exchange(2).recipients == [handed.recipients[2]]
    sent.settle_rest(replies.UPSTREAM_TIMEOUT)
    assert sent.finished()
    sent.conclude("site")
    sent.tell()
    hand_over = sent.later.result()
    assert [outcome.status for outcome in hand_over.outcomes] == [Status.DELIVERED] * 2 + [Status.TRANSIENT]
    assert (hand_over.site, hand_over.protocol, hand_over.peer_name) == ("site", "ESMTP", "")


def test_a_hand_over_names_the_member_that_took_it(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch())
            assert only(hand_over) == DELIVERED
            assert (hand_over.peer_name, hand_over.peer_address) == ("m0", "127.0.0.1")
            assert hand_over.protocol == "ESMTP"
            assert hand_over.session_id
            assert hand_over.source_address.startswith("127.0.0.1:")
            assert (hand_over.tls_cipher, hand_over.tls_protocol_version) == (None, None)

    run(main())
