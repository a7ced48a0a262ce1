"""Routing: which recipients make one message, which queue is whose, and who travels together."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import BatchHandling, Destination, EgressPath, Host, Maildir, PartialRefusal, QueueConfig, SmtpFleet
from gateway.delivery.routing import deliveries, is_discarded, queue_names, split
from gateway.mail.message import Message
from gateway.smtp.address import EnvelopeAddress, parse_address

A1, A2, A3, B1, B2, C1 = (
    parse_address(text)
    for text in ("1@a.example", "2@a.example", "3@a.example", "1@b.example", "2@b.example", "1@c.example")
)
POSTMASTER = parse_address("Postmaster")
GIVEN = [B2]
TOGETHER, BY_DOMAIN, BIFURCATE = BatchHandling.TOGETHER, BatchHandling.BY_DOMAIN, BatchHandling.BIFURCATE


@pytest.mark.parametrize(
    ("recipients", "handling", "expected"),
    [
        ([A1], TOGETHER, [[A1]]),
        ([A1], BY_DOMAIN, [[A1]]),
        ([A1], BIFURCATE, [[A1]]),
        ([A1, B1, A2], TOGETHER, [[A1, B1, A2]]),
        ([A1, B1, A2], BY_DOMAIN, [[A1, A2], [B1]]),
        ([B1, A1, C1, B2, A2], BY_DOMAIN, [[B1, B2], [A1, A2], [C1]]),
        ([A1, A2], BY_DOMAIN, [[A1, A2]]),
        ([A1, POSTMASTER, A2], BY_DOMAIN, [[A1, A2], [POSTMASTER]]),
        ([A1, B1, A2], BIFURCATE, [[A1], [B1], [A2]]),
        ([A1, A1], TOGETHER, [[A1, A1]]),  # whoever is named twice gets it twice, as from any MTA
        ([A1, A1], BY_DOMAIN, [[A1, A1]]),
        ([A1, A1], BIFURCATE, [[A1], [A1]]),
    ],
)
def test_the_recipients_of_one_message(recipients, handling, expected):
    assert split(recipients, handling) == expected


def message(*recipients: EnvelopeAddress, **meta: object) -> Message:
    return Message("id", parse_address("s@out.example"), list(recipients), meta=meta)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"queue": "null"}, True),
        ({"queue": "nullify"}, False),
        ({"queue": ""}, False),
        ({"queue": None}, False),
        ({"queue": 0}, False),
        ({"tenant": "null"}, False),
        ({}, False),
    ],
)
def test_only_the_policy_discards(meta, expected):
    assert is_discarded(message(A1, **meta)) is expected


def test_a_recipients_domain_discards_nothing():
    assert not is_discarded(message(parse_address("a@null")))


@pytest.mark.parametrize(
    ("recipients", "meta", "expected"),
    [
        ([A1], {}, ["a.example"]),
        ([B1], {}, ["b.example"]),  # not that of the message's first recipient
        ([A1, B1, A2], {}, ["a.example", "b.example", "a.example"]),
        ([A1, B1], {"tenant": "t", "campaign": "c"}, ["c:t@a.example", "c:t@b.example"]),
        ([A1, B1], {"routing_domain": "r"}, ["a.example!r", "b.example!r"]),
        ([A1, B1], {"queue": "q"}, ["q", "q"]),
        ([POSTMASTER, A1], {}, ["", "a.example"]),
        ([], {}, []),
    ],
)
def test_the_queue_of_each_recipient(recipients, meta, expected):
    whole = message(C1, *recipients, **meta)
    assert queue_names(whole, recipients, whole.queue_name()) == expected


def test_the_queue_of_the_first_recipient_is_known():
    assert queue_names(message(A1, B1), [A1], "known") == ["known"]


@pytest.mark.parametrize("recipients", [[A1], [A1, B1]])
def test_a_queue_without_a_name_is_an_error(recipients):
    with pytest.raises(ValueError, match="tenant"):
        queue_names(message(C1, *recipients, tenant=7), recipients, "c.example")


def fleet(name: str = "m", path: EgressPath | None = None, **queue: Any) -> Destination:
    """A destination that is equal to none but itself, made of equal parts."""
    config = QueueConfig(protocol=SmtpFleet((Host(name, "192.0.2.1", 25),)), **queue)
    return Destination(config, path or EgressPath())


@pytest.mark.parametrize(
    ("recipients", "destinations", "expected"),
    [
        # one queue
        ([A1], {"a.example": fleet()}, [("a.example", [A1])]),
        ([A1, A2, A3], {"a.example": fleet()}, [("a.example", [A1, A2, A3])]),
        # the same way of handling
        ([A1, B1, A2], {"a.example": fleet(), "b.example": fleet()}, [("a.example", [A1, B1, A2])]),
        # other members, another way to talk to them, another kind of place, another pool
        (
            [A1, B1, A2, B2],
            {"a.example": fleet(), "b.example": fleet("other")},
            [("a.example", [A1, A2]), ("b.example", [B1, B2])],
        ),
        (
            [A1, B1],
            {"a.example": fleet(), "b.example": fleet(path=EgressPath(smtp_port=26))},
            [("a.example", [A1]), ("b.example", [B1])],
        ),
        (
            [A1, B1],
            {"a.example": fleet(), "b.example": Destination(QueueConfig(protocol=Maildir("/m")), EgressPath())},
            [("a.example", [A1]), ("b.example", [B1])],
        ),
        (
            [A1, B1],
            {"a.example": fleet(), "b.example": fleet(egress_pool="p")},
            [("a.example", [A1]), ("b.example", [B1])],
        ),
        (
            [A1, B1],
            {"a.example": fleet(), "b.example": fleet(on_partial_refusal=PartialRefusal.RECORD)},
            [("a.example", [A1]), ("b.example", [B1])],
        ),
        # some of each, in the order in which they were given
        (
            [C1, A1, B1, A2, B2],
            {"a.example": fleet(), "b.example": fleet("other"), "c.example": fleet()},
            [("c.example", [C1, A1, A2]), ("b.example", [B1, B2])],
        ),
        # whoever is named twice
        ([A1, B1, A1], {"a.example": fleet(), "b.example": fleet()}, [("a.example", [A1, B1, A1])]),
    ],
)
def test_who_travels_together(recipients, destinations, expected):
    handed = message(*recipients)
    names = [recipient.domain for recipient in recipients]
    found = deliveries(handed, GIVEN, recipients, names, destinations)
    assert [(delivery.queue_name, delivery.recipients) for delivery in found] == expected
    for delivery in found:
        assert delivery.message is handed
        assert delivery.given is GIVEN
        assert delivery.destination is destinations[delivery.queue_name]
        assert delivery.result is None
        assert delivery.notice is None
        assert delivery.requests is None


def test_a_queue_for_every_recipient_or_none_is_handled():
    with pytest.raises(ValueError, match="shorter"):
        deliveries(message(A1, B1), GIVEN, [A1, B1], ["a.example"], {"a.example": fleet(), "b.example": fleet()})
