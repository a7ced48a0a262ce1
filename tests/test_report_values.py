"""What fields of reports mean: dates, addresses, replies; the shapes for Lua and the data of log records."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import Report, scan_report
from gateway.reports import rfc3464, rfc5965
from gateway.reports.dates import parse_date, rfc3339
from gateway.reports.fields import decoded_words, envelope_recipient, first_address
from gateway.reports.original import quoted_fields, supplemental_trace
from gateway.reports.replies import diagnostic_reply
from gateway.reports.rfc3464 import NO_REPLY_CODE, OutOfBand

VISIBLE = Path(__file__).parent / "corpus" / "reports" / "visible"

TRACE = base64.b64encode(json.dumps({"_@_": "\\_/", "recipient": "u@far.example", "tenant": "t1"}).encode()).decode()


def bounce(*groups: str, head: str = "Reporting-MTA: dns; mx.far.example\n", original: str = "") -> bytes:
    blocks = "\n".join(groups)
    return (
        'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\n\n'
        f"--B\nContent-Type: message/delivery-status\n\n{head}\n{blocks}\n"
        f"--B\nContent-Type: message/rfc822\n\n{original}\n--B--\n"
    ).encode("utf-8", "surrogateescape")


def complaint(fields: str, original: str = "") -> bytes:
    return (
        "Content-Type: multipart/report; report-type=feedback-report; boundary=B\n\n"
        f"--B\nContent-Type: message/feedback-report\n\n{fields}\n"
        f"--B\nContent-Type: message/rfc822\n\n{original}\n--B--\n"
    ).encode("utf-8", "surrogateescape")


def scanned(message: bytes) -> Report:
    report = scan_report(message)
    assert report is not None
    return report


def records(message: bytes) -> list[OutOfBand]:
    report = scanned(message)
    return rfc3464.out_of_band(report, quoted_fields(report, message))


# --- dates ---


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Fri, 21 Nov 2014 14:17:13 -0800", "2014-11-21T22:17:13Z"),
        ("Thu,29 Apr 2010 23:34:45 +0900", "2010-04-29T14:34:45Z"),
        ("Mon, 29 Apr 2010 23:34:45 +0900 (JST)", "2010-04-29T14:34:45Z"),  # it was a Thursday
        ("Thu, 01 Oct 15 13:48:54 UTC", "2015-10-01T13:48:54Z"),
        ("1 Jan 99 00:00 EST", "1999-01-01T05:00:00Z"),
        ("Tue, 8 Mar 2005 14:00:00 EDT", "2005-03-08T18:00:00Z"),
        ("Tue, 8 Mar 2005 14:00:00 Z", "2005-03-08T14:00:00Z"),
        ("Tue, 8 Mar 2005 14:00:00 QQQ", "2005-03-08T14:00:00Z"),
        ("Tue, 8 Mar 2005 14:00:00 CEST", "2005-03-08T12:00:00Z"),
        ("Tue, 8 (eighth (really)) Mar 2005 14:00:00 -0000", "2005-03-08T14:00:00Z"),
        ("Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00Z"),
        ("Thu Apr 29 23:34:45 2009", "2009-04-29T23:34:45Z"),
        ("Thu Apr 29 23:34:45 JST 2009", "2009-04-29T14:34:45Z"),
        ("2025-01-29T16:36:51.25+01:00", "2025-01-29T15:36:51Z"),
    ],
)
def test_dates_as_mailers_write_them_are_understood(text: str, moment: str) -> None:
    parsed = parse_date(text)
    assert parsed is not None
    assert rfc3339(parsed) == moment


@pytest.mark.parametrize(
    "text",
    ["", "now", "32 Jan 2020 00:00:00 +0000", "1 Foo 2020 00:00:00 +0000", "1 Jan 2020 25:00:00 +0000",
     "1 Jan 2020 00:00:61 +0000", "31 Dec 9999 23:59:59 -0100", "2012-10-31 04-46-42", "1 Jan 2020"],
)  # fmt: skip
def test_what_names_no_moment_is_no_date(text: str) -> None:
    assert parse_date(text) is None


@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.timezones()))
def test_dates_of_rfc_5322_read_as_stdlib_reads_them(moment: datetime) -> None:
    text = format_datetime(moment)
    assert parse_date(text) == parsedate_to_datetime(text).astimezone(UTC)


@given(st.text(max_size=300))
def test_no_text_breaks_the_date_parser(text: str) -> None:
    parse_date(text)


# --- addresses and replies ---


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("a@b.example", "a@b.example"),
        ("<a@b.example>", "a@b.example"),
        ("Name <a@b.example>, c@d.example", "a@b.example"),
        ('"Doe, <x@y>" <a@b.example>', "a@b.example"),
        ("a@b.example (Name (nested) <x@y>)", "a@b.example"),
        ("a@b.example, c@d.example", "a@b.example"),
        ("friends: a@b.example, c@d.example;", "a@b.example"),
        ("<@relay.example:a@b.example>", "a@b.example"),
        ('<"odd local"@b.example>', '"odd local"@b.example'),
        ("Mail Delivery Subsystem <MAILER-DAEMON>", "MAILER-DAEMON"),
        ("<Undisclosed Recipients>", None),
        ("undisclosed-recipients:;", None),
        ('"undisclosed"', None),
        ("<>", None),
        ("", None),
    ],
)
def test_the_first_address_of_a_field_is_found(value: str, address: str | None) -> None:
    assert first_address(value) == address


@given(st.text(alphabet='ab@<>"\\(),:; .', max_size=60))
def test_no_text_breaks_the_address_reader(value: str) -> None:
    address = first_address(value)
    assert address is None or address.strip() == address != ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("rfc822; User@EXAMPLE.org", ("rfc822", "User@example.org", True)),
        ("RFC822;<user@example.org>", ("rfc822", "user@example.org", True)),
        ("utf-8; us\\x{E9}r@example.org", ("utf-8", "usér@example.org", True)),
        ("unknown; nair_s", ("unknown", "nair_s", True)),
        ("x-local; |/bin/x;y", ("x-local", "|/bin/x;y", True)),
        ("user@example.org", ("unknown", "user@example.org", False)),
        ("rfc822; no-domain", ("rfc822", "no-domain", False)),
    ],
)
def test_recipients_are_read_with_their_types(value: str, expected: tuple[str, str, bool]) -> None:
    assert envelope_recipient(value) == expected


@pytest.mark.parametrize(
    ("diagnostic", "code", "content"),
    [
        ("smtp; 550 5.1.1 no such user", 550, "5.1.1 no such user"),
        ("smtp; 550-5.1.1 The account 550 5.1.1 is gone", 550, "5.1.1 The account 550 5.1.1 is gone"),
        ("SMTP;421-4.7.0 slow down", 421, "4.7.0 slow down"),
        ("smtp; 554", 554, ""),
        ("smtp; 5.1.0 - Unknown address error 550-'5.1.1'", 550, "5.1.0 - Unknown address error 550-'5.1.1'"),
        ("smtp; 5501 odd", 550, "5501 odd"),
        ("451 4.3.0 without type; try later", 451, "4.3.0 without type; try later"),
        ("X-Unix; 255", 550, ""),
        ("SMTP;", 550, ""),
        (None, 550, ""),
    ],
)
def test_the_smtp_reply_is_taken_out_of_the_diagnostic(diagnostic: str | None, code: int, content: str) -> None:
    reply = diagnostic_reply(diagnostic or "")
    assert (reply.code or NO_REPLY_CODE, reply.text) == (code, content)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("=?utf-8?q?J=C3=B6rg?= =?iso-8859-1?b?5A==?= x", "Jörgä x"),
        ("=?nonsense?q?a?=", "=?nonsense?q?a?="),
        ("=?utfé?q?a?=", "=?utfé?q?a?="),
        ("=?utf-8?b?A?=", "=?utf-8?b?A?="),
        ("=?unicode_escape?q?=5Cud800=5Cq?=", "=?unicode_escape?q?=5Cud800=5Cq?="),
        ("=?utf-7?q?+2AA-?=", "=?utf-7?q?+2AA-?="),
        ("=?punycode?q?" + "a" * 9999 + "?=", "=?punycode?q?" + "a" * 9999 + "?="),
        ("\udce4", "\ufffd"),
    ],
)
def test_encoded_words_are_decoded_where_they_can_be(text: str, decoded: str) -> None:
    assert decoded_words(text) == decoded


# --- shapes for Lua ---


def test_a_bounce_has_the_shape_that_policies_expect() -> None:
    parsed = rfc3464.parse((VISIBLE / "sisimai-bsd-lhost-postfix-62.eml").read_bytes())
    assert parsed is not None
    assert parsed["per_message"] == {
        "original_envelope_id": None,
        "reporting_mta": {"mta_type": "dns", "name": "mbox.example.jp"},
        "dsn_gateway": None,
        "received_from_mta": None,
        "arrival_date": parsed["per_message"]["arrival_date"],
        "extensions": parsed["per_message"]["extensions"],
    }
    assert parsed["per_message"]["arrival_date"].endswith("Z")
    assert all(isinstance(value, list) for value in parsed["per_message"]["extensions"].values())
    (group,) = parsed["per_recipient"]
    assert group["final_recipient"] == {"recipient_type": "rfc822", "recipient": "nyaan@libsisimai.org"}
    assert group["action"] == "failed"
    assert group["status"] == {"class": 5, "subject": 0, "detail": 0, "comment": None}
    assert group["diagnostic_code"]["diagnostic_type"] == "smtp"
    assert "\r" not in parsed["original_message"]


def test_one_bad_field_is_kept_as_text_and_loses_nothing_else() -> None:
    group = "Final-Recipient: user@x\nAction: lost\nStatus: bad\nRemote-MTA: mx\nDiagnostic-Code: oops\nX-Q: \udce4\n"
    head = "Reporting-MTA: mx.far.example\nArrival-Date: yesterday\nX-A: =?utf-8?q?=C3=A4?=\n"
    parsed = rfc3464.parse(bounce(group, head=head))
    assert parsed is not None
    assert parsed["per_message"]["reporting_mta"] is None
    assert parsed["per_message"]["reporting_mta_raw"] == "mx.far.example"
    assert parsed["per_message"]["arrival_date_raw"] == "yesterday"
    assert parsed["per_message"]["extensions"] == {"x-a": ["ä"]}
    (found,) = parsed["per_recipient"]
    assert found["action"] is None
    assert [found[f"{name}_raw"] for name in ("final_recipient", "action", "status", "remote_mta")] == [
        "user@x", "lost", "bad", "mx"
    ]  # fmt: skip
    assert found["extensions"] == {"x-q": [[0xE4]]}
    json.dumps(parsed).encode()


def test_action_and_type_are_read_in_any_case_and_with_comments() -> None:
    parsed = rfc3464.parse(
        bounce("Final-Recipient: RFC822; a@b.example\nAction: Failed (for good)\nStatus: #5.1.1 x\n")
    )
    assert parsed is not None
    (found,) = parsed["per_recipient"]
    assert (found["action"], found["final_recipient"]["recipient_type"]) == ("failed", "rfc822")
    assert found["status"] == {"class": 5, "subject": 1, "detail": 1, "comment": "x"}


def test_a_complaint_has_the_shape_that_policies_expect() -> None:
    parsed = rfc5965.parse((VISIBLE / "kumo-rfc5965-2.eml").read_bytes())
    assert parsed is not None
    assert parsed["original_message"].startswith("From: <somespammer@example.net>\n")
    del parsed["original_message"]
    assert parsed == {
        "feedback_type": "abuse",
        "user_agent": "SomeGenerator/1.0",
        "version": "1",
        "arrival_date": "2005-03-08T18:00:00Z",
        "incidents": None,
        "original_envelope_id": None,
        "original_mail_from": "somespammer@example.net",
        "reporting_mta": {"mta_type": "dns", "name": "mail.example.com"},
        "source_ip": "192.0.2.1",
        "authentication_results": ["mail.example.com; spf=fail smtp.mail=somespammer@example.com"],
        "original_rcpto_to": ["user@example.com"],
        "reported_domain": ["example.net"],
        "reported_uri": ["http://example.net/earn_money.html", "mailto:user@example.com"],
        "extensions": {"removal-recipient": ["user@example.com"]},
        "supplemental_trace": {"recipient": "test@example.com"},
    }


def test_bad_fields_of_a_complaint_are_kept_as_text() -> None:
    fields = (
        "Feedback-Type: abuse\nIncidents: many\nOriginal-Mail-From: <a b>\nArrival-Date: x\n"
        "Original-Rcpt-To: u@d.example\nOriginal-Rcpt-To: nobody\n"
    )
    parsed = rfc5965.parse(complaint(fields))
    assert parsed is not None
    assert (parsed["incidents"], parsed["incidents_raw"]) == (None, "many")
    assert (parsed["original_mail_from"], parsed["original_mail_from_raw"]) == (None, "<a b>")
    assert (parsed["arrival_date"], parsed["arrival_date_raw"]) == (None, "x")
    assert (parsed["original_rcpto_to"], parsed["original_rcpto_to_raw"]) == (["u@d.example"], ["nobody"])
    assert (parsed["version"], parsed["user_agent"]) == (None, None)


def test_received_date_stands_in_for_arrival_date() -> None:
    parsed = rfc5965.parse(complaint("Feedback-Type: abuse\nReceived-Date: 1 Jan 2020 00:00:00 GMT\n"))
    assert parsed is not None
    assert parsed["arrival_date"] == "2020-01-01T00:00:00Z"
    assert parsed["extensions"] == {}


@pytest.mark.parametrize("parse", [rfc3464.parse, rfc5965.parse])
def test_no_report_is_none_and_an_unreadable_one_an_error(parse: object) -> None:
    assert callable(parse)
    assert parse(b"Subject: hi\n\nhello\n") is None
    with pytest.raises(rfc3464.ReportError, match="no_parts"):
        parse(b"Content-Type: multipart/report; report-type=delivery-status; boundary=B\n\nnothing\n")


def test_each_parser_passes_over_the_other_kind() -> None:
    assert rfc3464.parse((VISIBLE / "kumo-rfc5965-2.eml").read_bytes()) is None
    assert rfc5965.parse((VISIBLE / "kumo-rfc3464-2.eml").read_bytes()) is None
    report = b"Content-Type: multipart/report; boundary=B; report-type=%s\n\n--B\nContent-Type: message/%s\n\nX: y\n"
    assert rfc5965.parse(report % (b"delivery-status", b"delivery-status")) is None
    assert rfc3464.parse(report % (b"feedback-report", b"feedback-report")) is None
    with pytest.raises(rfc3464.ReportError, match="no_recipient"):
        rfc3464.parse(report % (b"delivery-status", b"delivery-status"))


# --- out-of-band bounces ---


def test_every_failed_or_delayed_recipient_gives_an_entry() -> None:
    found = records(
        bounce(
            "Final-Recipient: rfc822; a@far.example\nAction: failed\nStatus: 5.1.1\n"
            "Diagnostic-Code: smtp; 550-5.1.1 gone\nLast-Attempt-Date: Fri, 1 Oct 10 10:13:52 UTC\n",
            "Final-Recipient: rfc822; b@far.example\nOriginal-Recipient: <B@far.example>\nAction: delayed\n"
            "Status: 4.4.1\nWill-Retry-Until: 1 Oct 2010 10:13:52 +0000\n",
            "Final-Recipient: rfc822; c@far.example\nAction: relayed\nStatus: 2.0.0\n",
            "Final-Recipient: rfc822; d@far.example\nAction: kaputt\nStatus: 5.2.2\nRemote-MTA: dns; mx\n"
            "Diagnostic-Code: X-Unix; 255\n",
        )
    )
    assert [(entry.recipient, entry.action, entry.code, entry.content) for entry in found] == [
        ("a@far.example", "failed", 550, "5.1.1 gone"),
        ("B@far.example", "delayed", 450, ""),
        ("d@far.example", "failed", 550, ""),
    ]
    assert found[0].attempted_at == datetime(2010, 10, 1, 10, 13, 52, tzinfo=UTC)
    assert found[0].enhanced_code == {"class": 5, "subject": 1, "detail": 1}
    assert found[0].reporting_mta == "mx.far.example"
    assert found[1].added == {
        "action": "delayed",
        "original_recipient_raw": "<B@far.example>",
        "will_retry_until": "2010-10-01T10:13:52Z",
    }
    assert found[2].added == {
        "action": "failed",
        "action_raw": "kaputt",
        "diagnostic_code": {"diagnostic_type": "x-unix", "diagnostic": "255"},
        "remote_mta": "mx",
    }


def test_an_entry_knows_the_original_by_its_trace_and_return_path() -> None:
    original = (
        f"Return-Path: <bounce+u=far.example@s.example>\nX-KumoRef: {TRACE[:40]}\n\t{TRACE[40:]}\nSubject: \udcff\n\n"
    )
    head = "Original-Envelope-Id: 42\nReporting-MTA: dns; mx\n"
    (entry,) = records(
        bounce("Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.0.0\n", head=head, original=original)
    )
    assert entry.added == {
        "action": "failed",
        "original_envelope_id": "42",
        "original_return_path": "bounce+u=far.example@s.example",
        "original_headers": {"Subject": "\ufffd"},
        "supplemental_trace": {"recipient": "u@far.example", "tenant": "t1"},
    }


def test_many_recipients_do_not_multiply_what_is_told_of_the_original() -> None:
    groups = [f"Final-Recipient: rfc822; u{n}@far.example\nAction: failed\n" for n in range(2000)]
    found = records(bounce(*groups, original="Subject: " + "x" * 9999 + "\n"))
    assert len(found) == 2000
    assert sum("original_headers" in entry.added for entry in found) == 100
    assert len(found[0].added["original_headers"]["Subject"]) == 1000


def test_a_mixed_bounce_is_marked() -> None:
    message = bounce("Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.0.0\n")
    message = message.replace(b"multipart/report; report-type=delivery-status", b"multipart/mixed")
    assert scan_report(message) is None
    report = scan_report(message, null_sender=True)
    assert report is not None
    assert report.mixed
    (entry,) = rfc3464.out_of_band(report, [])
    assert entry.added["multipart_mixed"] is True


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        encoded('{"_@_": "\\\\_/", "recipient": "\\ud800"}'),
        encoded('{"_@_": "\\\\_/", "x": ' + "[" * 9999),
        encoded('{"_@_": "\\\\_/", "x": ' + "[" * 100 + "]" * 100 + "}"),
        TRACE[:-1],
        "x" + TRACE,
        base64.b64encode(b'{"recipient": "a@b"}').decode(),
        base64.b64encode(b"[]").decode(),
    ],
)
def test_only_a_marked_object_is_a_trace(value: str) -> None:
    assert supplemental_trace([("X-KumoRef", value), ("Subject", TRACE)]) is None


def test_records_of_stuffed_and_plain_messages_are_equal() -> None:
    plain = complaint("Feedback-Type: abuse\n", ".Odd: name\n\n.dots\n..more\n").replace(b"\n", b"\r\n")
    stuffed = plain.replace(b"\r\n.", b"\r\n..")
    report = scan_report(stuffed, dot_stuffed=True)
    assert report is not None
    assert rfc5965.feedback_report(report, stuffed) == rfc5965.parse(plain)
    assert report.original_fields(stuffed) == [(".Odd", "name")]
