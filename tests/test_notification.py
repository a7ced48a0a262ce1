"""Notifications of refused recipients: what they say, read by our own report scanner and by Python's email package."""

from __future__ import annotations

import email
import email.policy
import quopri
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import scan_report
from gateway.handover import HandOver, RecipientOutcome, Response, Status
from gateway.mail.notification import Concerned, notification, remote_mta
from gateway.reports import rfc3464
from gateway.reports.original import quoted_fields
from gateway.smtp.address import EnvelopeAddress, parse_address
from gateway.smtp.replies import Reason

NO_SUCH = Response(550, "5.1.1", "no such mailbox")
HEADER = (
    b"Received: from x\r\n  by y\r\nSubject: hello\r\nFrom: Ann <ann@out.example>\r\nMessage-ID: <1@out.example>\r\n"
)
ARRIVED, NOW = 1_785_847_290, 1_785_847_295


def refusal(
    recipient: str, answer: Response = NO_SUCH, given: str | None = None, peer: tuple[str, str] = ("mta1", "192.0.2.1")
) -> Concerned:
    outcome = RecipientOutcome(parse_address(recipient), Status.PERMANENT, answer, Reason.UPSTREAM_REFUSED)
    by = HandOver([outcome], "site", "ESMTP", 0.0, *peer)
    return Concerned(outcome, parse_address(recipient if given is None else given) if given != "" else None, by)


def build(*refusals: Concerned, header: bytes = HEADER, sender: str = "ann@out.example") -> bytes:
    return notification("0123abcd", "gw.example", parse_address(sender), refusals, header, arrived=ARRIVED, now=NOW)


def parsed(data: bytes) -> EmailMessage:
    policy = email.policy.SMTPUTF8 if not data.isascii() else email.policy.SMTP
    return cast(EmailMessage, email.message_from_bytes(data, policy=policy))


def parts(data: bytes) -> list[EmailMessage]:
    message = parsed(data)
    assert message.get_content_type() == "multipart/report"
    return cast("list[EmailMessage]", list(message.iter_parts()))


def content(data: bytes, number: int) -> bytes:
    """What is in a part, without the email package's ideas of parts whose type is message/…"""
    boundary = str(parsed(data).get_boundary()).encode()
    head, _, body = data.split(b"--" + boundary + b"\r\n")[number + 1].partition(b"\r\n\r\n")
    body = body.partition(b"\r\n--" + boundary)[0] if number == 2 else body.removesuffix(b"\r\n")
    return quopri.decodestring(body) if b"quoted-printable" in head else body


def groups(data: bytes) -> list[dict[str, str]]:
    """The fields of each group of the status part."""
    blocks = content(data, 1).decode().split("\r\n\r\n")
    found = [email.message_from_string(block, policy=email.policy.SMTPUTF8) for block in blocks]
    return [{name.lower(): str(value) for name, value in block.items()} for block in found]


def test_the_whole_of_it():
    data = build(refusal("bob@far.example"), refusal("b2@far.example", Response(554, "", "go away"), "list@in.example"))
    message = parsed(data)
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@gw.example>"
    assert message["To"] == "ann@out.example" or message["To"] == "<ann@out.example>"
    assert message["Message-ID"] == "<0123abcd@gw.example>"
    assert message["Date"] == "Tue, 04 Aug 2026 12:41:35 +0000"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.get_param("report-type") == "delivery-status"
    assert message.defects == []
    text, status, headers = parts(data)
    assert [part.get_content_type() for part in (text, status, headers)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert "<bob@far.example>" in text.get_content()
    assert "mta1 said: 550 5.1.1 no such mailbox" in text.get_content()
    assert "<b2@far.example> (given as <list@in.example>)" in text.get_content()
    assert groups(data) == [
        {"reporting-mta": "dns; gw.example", "arrival-date": "Tue, 4 Aug 2026 12:41:30 +0000"},
        {
            "original-recipient": "rfc822; bob@far.example",
            "final-recipient": "rfc822; bob@far.example",
            "action": "failed",
            "status": "5.1.1",
            "remote-mta": "dns; mta1",
            "diagnostic-code": "smtp; 550 5.1.1 no such mailbox",
            "last-attempt-date": "Tue, 4 Aug 2026 12:41:35 +0000",
        },
        {
            "original-recipient": "rfc822; list@in.example",
            "final-recipient": "rfc822; b2@far.example",
            "action": "failed",
            "status": "5.0.0",
            "remote-mta": "dns; mta1",
            "diagnostic-code": "smtp; 554 go away",
            "last-attempt-date": "Tue, 4 Aug 2026 12:41:35 +0000",
        },
    ]
    assert content(data, 2) == HEADER


def test_our_own_scanner_reads_it():
    data = build(refusal("bob@far.example"), refusal("b2@far.example", given="list@in.example"))
    report = scan_report(data, dot_stuffed=False, null_sender=True)
    assert report is not None
    assert (report.kind, report.reason) == ("dsn", None)
    bounces = rfc3464.out_of_band(report, quoted_fields(report, data))
    assert [(bounce.recipient, bounce.action, bounce.code) for bounce in bounces] == [
        ("bob@far.example", "failed", 550),
        ("list@in.example", "failed", 550),
    ]
    assert bounces[0].content == "5.1.1 no such mailbox"
    assert bounces[0].reporting_mta == "gw.example"
    assert bounces[0].added["original_headers"]["Subject"] == "hello"
    assert not [name for bounce in bounces for name in bounce.added if name.endswith("_raw")]


def test_an_original_recipient_that_is_not_known_is_not_made_up():
    data = build(refusal("bob@far.example", given=""))
    assert "original-recipient" not in groups(data)[1]


def test_an_international_recipient_of_an_ascii_sender_travels_in_seven_bits():
    data = build(refusal("bøb@far.example", Response(550, "5.1.1", "ingen bøb")), header="Subject: grød\r\n".encode())
    assert data.isascii()
    text, status, headers = parts(data)
    assert status.get_content_type() == "message/global-delivery-status"
    assert headers.get_content_type() == "message/global-headers"
    assert groups(data)[1]["final-recipient"] == "utf-8; bøb@far.example"
    assert groups(data)[1]["diagnostic-code"] == "smtp; 550 5.1.1 ingen bøb"
    assert "ingen bøb" in text.get_content()
    assert content(data, 2) == "Subject: grød\r\n".encode()
    report = scan_report(data, dot_stuffed=False, null_sender=True)
    assert report is not None
    (bounce,) = rfc3464.out_of_band(report, quoted_fields(report, data))
    assert bounce.recipient == "bøb@far.example"


def test_an_international_sender_gets_it_in_eight_bits():
    data = build(refusal("bøb@far.example"), header="Subject: grød\r\n".encode(), sender="ænn@out.example")
    assert "To: <ænn@out.example>\r\n".encode() in data
    assert "Final-Recipient: utf-8; bøb@far.example\r\n".encode() in data
    assert "Subject: grød\r\n".encode() in data
    assert b"quoted-printable" not in data


def test_an_ascii_recipient_makes_no_international_status_and_has_an_ascii_diagnostic():
    data = build(refusal("bob@far.example", Response(550, "5.1.1", "ingen bøb")))
    _, status, headers = parts(data)
    assert status.get_content_type() == "message/delivery-status"
    assert headers.get_content_type() == "text/rfc822-headers"
    assert groups(data)[1]["diagnostic-code"] == "smtp; 550 5.1.1 ingen b?b"


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        ("mta1.internal", "10.0.0.1", "mta1.internal"),
        ("mta1.internal:2525", "10.0.0.1", "mta1.internal"),
        ("127.0.0.1:2525", "127.0.0.1", "[127.0.0.1]"),
        ("[127.0.0.1]:2525", "127.0.0.1", "[127.0.0.1]"),
        ("[::1]:2525", "::1", "[IPv6:::1]"),
        ("[IPv6:::1]:2525", "::1", "[IPv6:::1]"),
        ("::1", "::1", "[IPv6:::1]"),
        ("a name\r\nof somebody", "10.0.0.1", "[10.0.0.1]"),
        ("a name of somebody", "10.0.0.1:25", "[10.0.0.1]"),
        ("a name of somebody", "", None),
        ("mta1", "", "mta1"),
        ("", "10.0.0.1", "[10.0.0.1]"),
        ("", "", None),
    ],
)
def test_the_remote_mta_is_a_host_or_an_address_literal(name, address, expected):
    assert remote_mta(name, address) == expected


def test_what_nobody_answered_names_no_remote_mta():
    data = build(refusal("bob@far.example", peer=("", "")))
    assert "remote-mta" not in groups(data)[1]


def test_no_line_of_the_header_is_a_boundary():
    data = build(refusal("bob@far.example"), header=b"Subject: x\r\n--=_0123abcd\r\n--=_0123abcd_--\r\nX: y\r\n")
    assert [part.get_content_type() for part in parts(data)][2] == "text/rfc822-headers"
    assert b"X: y" in content(data, 2)


@pytest.mark.parametrize(
    ("header", "quoted"),
    [
        (b"A: b\nC: d\n", b"A: b\r\nC: d\r\n"),
        (b"A: b\rC: d", b"A: b\r\nC: d\r\n"),
        (b"", b""),
        (b"A: b\r\n" + b"X: " + b"x" * 70_000 + b"\r\n", b"A: b\r\n"),
        (b"A: " + b"x" * 1_500 + b"\r\n", b"A: " + b"x" * 1_500 + b"\r\n"),
        (b"A: \xff\r\n", "A: \ufffd\r\n".encode()),
    ],
)
def test_the_header_is_quoted_in_whole_lines(header, quoted):
    data = build(refusal("bob@far.example"), header=header)
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert content(data, 2) == quoted


@given(st.text(max_size=4000), st.sampled_from(["bob@far.example", "bøb@far.example"]))
def test_whatever_the_fleet_says_it_stays_one_field(said, recipient):
    data = build(refusal(recipient, Response(550, "5.1.1", said)))
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    per_message, per_recipient = groups(data)
    assert set(per_message) == {"reporting-mta", "arrival-date"}
    assert set(per_recipient) == {
        *("original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code"),
        "last-attempt-date",
    }
    assert per_recipient["diagnostic-code"].startswith("smtp; 550 5.1.1")


def test_an_address_is_what_it_is():
    odd = EnvelopeAddress('"a b\\"c"@far.example', "far.example")
    outcome = RecipientOutcome(odd, Status.PERMANENT, NO_SUCH, Reason.UPSTREAM_REFUSED)
    data = build(Concerned(outcome, odd, HandOver([outcome], "s", "ESMTP", 0.0)))
    assert b'Final-Recipient: rfc822; "a b\\"c"@far.example\r\n' in data
