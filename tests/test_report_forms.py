"""Aliases, complaints, plain forms and excerpts: what is recorded of each in several variants; and hostile texts."""

from __future__ import annotations

import base64

import pytest
from report_texts import (
    ARF,
    FEEDBACK,
    GROUP,
    HEAD,
    ORIGINAL,
    STATUS,
    bounce,
    claim,
    complaint,
    entries,
    entry,
    found,
    multipart,
    part,
    status_of,
)

from gateway.reports import rfc3464, rfc5965
from gateway.reports.formats import find_report
from gateway.reports.original import quoted_fields
from gateway.reports.prose import excerpt

SECOND = GROUP.replace("u@", "v@")

# --- 5: who failed, and to whom it was sent ---


@pytest.mark.parametrize(
    ("original", "final", "recipient", "final_recipient"),
    [
        ("rfc822;list@far.example", "rfc822; u@far.example", "list@far.example", "u@far.example"),
        ("rfc822;U@Far.Example", "rfc822; u@far.example", "U@far.example", None),
        ("rfc822;<u@far.example>", "rfc822; u@far.example", "u@far.example", None),
        ("rfc822;u@far.example>", "rfc822; u@far.example", "u@far.example", None),
        ("rfc822; Team <list@far.example>", "rfc822; 'u@far.example'", "list@far.example", "u@far.example"),
        ("rfc822; list@far.example (the list)", "x-unix; |/bin/vacation", "list@far.example", "|/bin/vacation"),
        ("rfc822;", "rfc822; u@far.example", "u@far.example", None),
        ("", "rfc822; u@far.example", "u@far.example", None),
        ("rfc822;list@far.example", "", "list@far.example", None),
        ("rfc822;u+2Bx@far.example", "rfc822; u+x@far.example", "u+x@far.example", None),
        ("rfc822;u+2Bx@far.example", "rfc822; v@far.example", "u+2Bx@far.example", "v@far.example"),
        ("rfc822;list+40far.example", "rfc822; u@far.example", "list@far.example", "u@far.example"),
    ],
)
def test_who_failed_is_told_apart_from_the_alias(
    original: str, final: str, recipient: str, final_recipient: str | None
) -> None:
    group = f"Original-Recipient: {original}\nFinal-Recipient: {final}\nAction: failed\nStatus: 5.1.1\n"
    one = entry(bounce(f"{HEAD}\n{group}"))
    assert (one.recipient, one.added.get("final_recipient")) == (recipient, final_recipient)


# --- 6: complaints ---


@pytest.mark.parametrize("sender", ["fbl@far.example", ""])
@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/report", ARF, "multipart/report; report-type=abuse"])
def test_a_feedback_part_counts_in_multipart_mixed_and_without_report_type(kind: str, sender: str) -> None:
    parts = (part("text/plain", "A complaint.\n"), part("message/feedback-report", FEEDBACK))
    read = complaint(multipart(*parts, part("message/rfc822", ORIGINAL), kind=kind), sender)
    assert (read["feedback_type"], read["inferred"]) == ("abuse", False)
    assert read["original_message"].startswith("Return-Path")


def test_a_feedback_part_has_to_stand_near_the_beginning_of_anybodys_mail() -> None:
    parts = (part("text/plain", "x\n" * 10_000), part("message/feedback-report", FEEDBACK))
    assert found(multipart(*parts, kind="multipart/mixed"), "fbl@far.example") is None
    assert found(multipart(*parts, kind="multipart/mixed")) is not None
    assert found(multipart(*parts, kind=ARF), "fbl@far.example") is not None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<u@far.example>", ["u@far.example"]),
        ("u@far.example", ["u@far.example"]),
        ("hidden recipient <u@far.example>", ["u@far.example"]),
        ('"Doe, U <x@y>" <u@far.example>', ["u@far.example"]),
        ("u@far.example (U)", ["u@far.example"]),
        ("(U (nested)) <u@far.example>", ["u@far.example"]),
        ("=?utf-8?q?J=C3=B6rg?= <u@Far.Example>", ["u@far.example"]),
        ("<u@far.example", ["u@far.example"]),
        ("u@far.example>", ["u@far.example"]),
        ("mailto:u@far.example", ["u@far.example"]),
        ("[u@far.example]", ["u@far.example"]),
        ("U <u@far.example>, V <v@far.example>", ["u@far.example", "v@far.example"]),
    ],
)
def test_names_and_comments_round_addresses_of_complaints_are_dropped(written: str, read: list[str]) -> None:
    fields = f"{FEEDBACK}Original-Rcpt-To: {written}\nOriginal-Mail-From: {written}\n"
    report = complaint(multipart(part("message/feedback-report", fields), kind=ARF))
    assert (report["original_rcpto_to"], report["original_mail_from"]) == (read, read[0])


def test_all_fields_of_authentication_failure_reports_are_read() -> None:
    fields = (
        "Feedback-Type: auth-failure\nVersion: 1\nUser-Agent: x/1\nAuth-Failure: dmarc\nDelivery-Result: reject\n"
        "Identity-Alignment: dkim, spf\nDKIM-Domain: near.example\nDKIM-Identity: @near.example\nDKIM-Selector: s1\n"
        "DKIM-Canonicalized-Header: AAAA\n BBBB\nDKIM-Canonicalized-Body: CCCC\nDKIM-ADSP-DNS: dkim=all\n"
        'SPF-DNS: txt : near.example : "v=spf1 -all"\nSPF-DNS: txt : b.example : "v=spf1"\nSource-Port: 4711\n'
        "Source-IP: 192.0.2.1\nReported-Domain: near.example\nAuthentication-Results: mx; dmarc=fail\n"
        "Original-Envelope-Id: 1\nArrival-Date: Mon, 02 Nov 2026 17:00:00 +0800\n"
    )
    report = complaint(multipart(part("message/feedback-report", fields), kind=ARF))
    assert {
        "auth_failure": "dmarc", "delivery_result": "reject", "identity_alignment": "dkim, spf",
        "dkim_domain": "near.example", "dkim_identity": "@near.example", "dkim_selector": "s1",
        "dkim_canonicalized_header": "AAAABBBB", "dkim_canonicalized_body": "CCCC", "dkim_adsp_dns": "dkim=all",
        "spf_dns": ['txt : near.example : "v=spf1 -all"', 'txt : b.example : "v=spf1"'], "source_port": 4711,
        "source_ip": "192.0.2.1", "reported_domain": ["near.example"], "original_envelope_id": "1",
        "authentication_results": ["mx; dmarc=fail"], "arrival_date": "2026-11-02T09:00:00Z",
    }.items() <= report.items()  # fmt: skip
    assert report["extensions"]["auth-failure"] == ["dmarc"]  # KumoMTA's place for them
    assert "spf_dns" not in (rfc5965.parse(multipart(part("message/feedback-report", fields), kind=ARF)) or {})


JUNK = f"X-HmXmrOriginalRecipient: U <u@far.example>\nX-Reporter-IP: 198.51.100.2\n{ORIGINAL}\nhi\n"
JUNK_HEAD = "Subject: complaint about message from 192.0.2.24\n"


@pytest.mark.parametrize(
    "message",
    [
        multipart(part("message/rfc822", JUNK), kind="multipart/mixed", head=JUNK_HEAD),
        multipart(part("text/plain", "See."), part("message/rfc822", JUNK), kind="multipart/mixed", head=JUNK_HEAD),
        f"{JUNK_HEAD}Content-Type: message/rfc822\n\n{JUNK}".encode(),
        multipart(part("message/rfc822", JUNK), kind="multipart/report", head=JUNK_HEAD),
    ],
    ids=["mixed", "with a text", "all of it", "report"],
)
def test_a_complaint_of_the_older_form_counts_from_listed_senders(message: bytes) -> None:
    report = complaint(message, listed=True)
    assert (report["feedback_type"], report["original_rcpto_to"]) == ("abuse", ["u@far.example"])
    assert (report["original_mail_from"], report["source_ip"]) == ("news+77@near.example", "192.0.2.24")
    assert report["inferred"] is True
    assert found(message, "fbl@far.example") is None
    assert found(message) is None


@pytest.mark.parametrize("name", ["X-HmXmrOriginalRecipient", "x-original-recipient", "X-MS-Original-Rcpt-To"])
def test_fields_like_it_name_the_recipient(name: str) -> None:
    message = multipart(part("message/rfc822", f"{name}: <u@far.example>\n{ORIGINAL}"), kind="multipart/mixed")
    assert complaint(message, listed=True)["original_rcpto_to"] == ["u@far.example"]


def test_other_mail_of_listed_senders_is_no_complaint() -> None:
    for message in (
        multipart(part("message/rfc822", ORIGINAL), kind="multipart/mixed"),
        multipart(part("text/plain", JUNK), kind="multipart/mixed"),
        f"{JUNK_HEAD}\n{JUNK}".encode(),
    ):
        assert found(message, "fbl@far.example", listed=True) is None


# --- 7: plain forms ---

COPY = "------ This is a copy of the message, including all the headers. ------\n\n"
EXIM = (
    "From: Mailer-Daemon@far.example\nSubject: Mail delivery failed: returning message to sender\n{fields}{type}\n"
    "A message that you sent could not be delivered. This is a permanent error. These addresses failed:\n\n{text}\n"
)


def exim(text: str, fields: str = "X-Failed-Recipients: u@far.example, v@far.example\n", type: str = "") -> bytes:
    return (EXIM.format(fields=fields, type=type, text=text) + COPY + ORIGINAL + "\nhi\n").encode()


EXIM_TEXT = (
    "  u@far.example\n    host mx.far.example [192.0.2.1]\n    SMTP error from remote mail server after RCPT TO:"
    "<u@far.example>:\n    550-5.1.1 no such\n    550 5.1.1 user\n  v@far.example\n    Unrouteable address\n"
)


@pytest.mark.parametrize(
    "fields",
    [
        "X-Failed-Recipients: u@far.example, v@far.example\n",
        "X-Failed-Recipients: u@far.example,\n\tv@far.example\n",
        "X-Failed-Recipients: u@far.example\nX-Failed-Recipients: v@far.example\n",
        "x-failed-recipients: <u@far.example>, V <v@far.example>\n",
    ],
)
@pytest.mark.parametrize("type", ["", "Content-Type: text/plain; charset=utf-8\n"])
def test_x_failed_recipients_with_the_reply_of_each(fields: str, type: str) -> None:
    message = exim(EXIM_TEXT, fields, type)
    first, second = entries(message)
    assert (first.recipient, first.code, status_of(first), first.content) == (
        "u@far.example", 550, "5.1.1", "5.1.1 no such user"
    )  # fmt: skip
    assert (second.recipient, second.code, status_of(second), second.content) == (
        "v@far.example", 550, None, "Unrouteable address"
    )  # fmt: skip
    for one in (first, second):
        assert one.added["inferred"] is True
        assert one.added["original_return_path"] == "news+77@near.example"
    assert found(message, "user@far.example") is None


def test_a_reason_may_stand_on_the_line_of_its_address() -> None:
    text = "<u@far.example>: host mx said: 552 5.2.2 full\nv@far.example 550 5.1.1 gone\n"
    first, second = entries(exim(text))
    assert [(one.code, status_of(one)) for one in (first, second)] == [(552, "5.2.2"), (550, "5.1.1")]


def test_a_reason_ends_where_another_address_stands() -> None:
    text = "  u@far.example\n    550 5.1.1 unknown:\n    w@far.example\n    at all\n  v@far.example\n    552 full\n"
    one = entry(exim(text, "X-Failed-Recipients: u@far.example\n"))
    assert (one.recipient, one.content) == ("u@far.example", "5.1.1 unknown: w@far.example at all")


def test_an_address_in_x_failed_recipients_may_be_an_encoded_word() -> None:
    address = base64.b64encode("j\u00f6rg@far.example".encode()).decode()
    text = "  j\u00f6rg@far.example\n    550 5.1.1 unknown\n"
    one = entry(exim(text, f"X-Failed-Recipients: =?utf-8?B?{address}?=\n"))
    assert (one.recipient, one.content) == ("j\u00f6rg@far.example", "5.1.1 unknown")


def test_a_reason_that_is_there_in_two_languages_counts_once() -> None:
    text = "Leider:\n\n  u@far.example\n    Unrouteable address\n\nSorry:\n\n  u@far.example\n    Unrouteable address\n"
    assert entry(exim(text, "X-Failed-Recipients: u@far.example\n")).content == "Unrouteable address"


def test_x_failed_recipients_in_encoded_text_and_in_a_multipart() -> None:
    text = exim(EXIM_TEXT).partition(b"\n\n")[2]
    head = "X-Failed-Recipients: u@far.example\n"
    encoded = f"{head}Content-Transfer-Encoding: base64\n\n{base64.encodebytes(text).decode()}".encode()
    mixed = multipart(
        part("text/plain", EXIM_TEXT), part("message/rfc822", ORIGINAL), kind="multipart/mixed", head=head
    )
    for message in (encoded, mixed):
        one = entry(message)
        assert (one.recipient, one.code, status_of(one)) == ("u@far.example", 550, "5.1.1")
        assert one.added["original_headers"]["Subject"] == "July"


def test_a_warning_with_x_failed_recipients_is_no_bounce() -> None:
    warning = (
        b"X-Failed-Recipients: u@far.example\nSubject: Warning: message 1 delayed 24 hours\n\nNot yet delivered.\n"
    )
    assert found(warning) is None
    assert found(b"X-Failed-Recipients: none\n\nFailed.\n") is None


def test_a_status_part_comes_before_x_failed_recipients() -> None:
    one = entry(bounce(head="X-Failed-Recipients: other@far.example\n"))
    assert (one.recipient, "inferred" in one.added) == ("u@far.example", False)


QMAIL = (
    "Hi. This is the qmail-send program at far.example.\nI'm afraid I wasn't able to deliver your message to the "
    "following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
    "<u@far.example>:\n192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 no such user\nGiving up on "
    "192.0.2.1.\n\n<v@far.example>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n"
    "--- Below this line is a copy of the message.\n\n"
)


@pytest.mark.parametrize(
    "type", ["", "Content-Type: text/plain\n", "MIME-Version: 1.0\nContent-Type: text/plain; x=y\n"]
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_qsbmf_with_the_reply_of_each_recipient(type: str, ends: bytes) -> None:
    message = f"From: MAILER-DAEMON@far.example\nSubject: failure notice\n{type}\n{QMAIL}{ORIGINAL}\nhi\n".encode()
    message = message.replace(b"\n", ends)
    first, second = entries(message)
    assert (first.recipient, first.code, status_of(first), first.content) == (
        "u@far.example", 550, "5.1.1", "5.1.1 no such user"
    )  # fmt: skip
    assert (second.recipient, second.code, status_of(second)) == ("v@far.example", 550, "5.1.1")
    assert second.content == "Sorry, no mailbox here by that name. (#5.1.1)"
    for one in (first, second):
        assert one.added["inferred"] is True
        assert one.added["original_return_path"] == "news+77@near.example"
    assert found(message, "user@far.example") is None


def test_qsbmf_encoded_and_in_a_multipart() -> None:
    encoded = base64.encodebytes((QMAIL + ORIGINAL).encode()).decode()
    plain = f"Content-Transfer-Encoding: base64\n\n{encoded}".encode()
    mixed = multipart(f"\n{QMAIL}", part("message/rfc822", ORIGINAL), kind="multipart/mixed")
    for message in (plain, mixed):
        first, second = entries(message)
        assert (first.recipient, second.recipient) == ("u@far.example", "v@far.example")
        assert first.added["original_headers"]["Subject"] == "July"


def test_the_introduction_of_qsbmf_may_end_without_an_empty_line() -> None:
    text = QMAIL.replace("work out.\n\n", "work out.\n")
    assert [one.recipient for one in entries(f"\n{text}{ORIGINAL}".encode())] == ["u@far.example", "v@far.example"]


@pytest.mark.parametrize("text", ["Hi. This is the weekly letter.\n\nBest", "> " + QMAIL, "Hi.\n" + QMAIL])
def test_a_text_that_is_not_qsbmf_is_no_bounce(text: str) -> None:
    assert found(f"Subject: hi\n\n{text}\n".encode()) is None


# --- 8: the excerpt ---


def test_an_excerpt_is_a_kibibyte_of_text() -> None:
    for text in ("ä" * 5000, "word " * 5000, "\n" * 5000 + "x"):
        message = multipart(part("text/plain; charset=utf-8", text), part("message/delivery-status", STATUS))
        report = found(message)
        assert report is not None
        shown = excerpt(report, message)
        assert shown is not None and 0 < len(shown.encode()) <= 1024
    message = bounce(text="Hallo,\r\n\r\n  das   ging   schief.\t\n")
    report = found(message)
    assert report is not None
    assert excerpt(report, message) == "Hallo,\ndas ging schief."


@pytest.mark.parametrize(
    ("type", "text", "shown"),
    [
        ("text/html", "<html><head><style>p {}</style></head><body><script>x()</script ><p>Sorry.</body>", "Sorry."),
        ("text/html", "<style>\n" + "p { margin: 0 }\n" * 3000 + "</style>\n<p>Sorry.", "Sorry."),
        ("text/html", "<!-- <p>no</p> --><title>no</title>Sorry &amp; so on<br>again", "Sorry & so on\nagain"),
        ("text/plain; charset=iso-2022-jp", "Fehler: \u00fcber", "Fehler: \u00fcber"),
        ("text/plain; charset=us-ascii", "Fehler: \u00fcber", "Fehler: \u00fcber"),
        ("text/plain; charset=unheard-of", "Fehler: \u00fcber", "Fehler: \u00fcber"),
    ],
)
def test_an_excerpt_is_what_people_would_see(type: str, text: str, shown: str) -> None:
    message = multipart(part(type, text), part("message/delivery-status", STATUS))
    report = found(message)
    assert report is not None
    assert excerpt(report, message) == shown


def test_entries_without_a_diagnostic_have_the_excerpt() -> None:
    with_one = f"{HEAD}\n{GROUP}\n{SECOND}Diagnostic-Code: smtp; 550 no\n"
    message = bounce(with_one)
    report = found(message)
    assert report is not None
    first, second = rfc3464.out_of_band(report, [], excerpt(report, message))
    assert (first.added.get("excerpt"), second.added.get("excerpt")) == ("Sorry.", None)


# --- hostile texts: were any of these quadratic, it would outlast the test's time limit ---

HOSTILE = [
    "-" * 200_000, "--- " * 60_000, "said: " * 40_000, "550 " * 60_000, "(" * 200_000, "<<< " * 60_000, "\n" * 200_000,
    " " * 200_000, "\n " * 100_000, "\n550 5.1.1 x" * 20_000, "not " * 50_000, "delayed " * 30_000, "will be " * 30_000,
    "<u@far.example>:\n" * 15_000, "\n\n<u@far.example>:\nx" * 10_000, '"' * 200_000, "u@far.example\n" * 15_000,
    "<" * 200_000, "<!--" * 50_000, "<script>" * 25_000, "&" * 200_000, "5.1.1" * 40_000, "(#5.1.1" * 20_000,
    "subject:" * 9999,
    "> " * 99_999, "'" * 99_999, "a@" * 99_999, "[550 a] " * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12].strip())
def test_hostile_texts_are_read_in_linear_time(text: str) -> None:
    for message in (
        claim(text),
        multipart(part("text/html", text), part("message/rfc822", ORIGINAL)),
        exim(text),
        exim(text, "X-Failed-Recipients: u@far.example\n"),
        f"X-Failed-Recipients: {text}\n\nx\n".encode(),
        f"Subject: {text}\nX-Failed-Recipients: u@far.example\n\nx\n".encode(),
        f"\nHi. This is the\n\n{text}\n".encode(),
        multipart(part("message/rfc822", f"X-HmXmrOriginalRecipient: {text}\n{ORIGINAL}"), kind="multipart/mixed"),
        bounce(f"{HEAD}\n{GROUP}Diagnostic-Code: x; {text}\n"),
        bounce(f"{HEAD}\nFinal-Recipient: rfc822; {text}\nStatus: {text}\nDiagnostic-Code: {text}\n"),
        multipart(part("message/feedback-report", f"{FEEDBACK}Original-Rcpt-To: {text}\n"), kind=ARF),
    ):
        for how in ({"null_sender": True}, {"listed_sender": True}):
            report = find_report(message, **how)
            if report is not None and report.kind == "dsn":
                rfc3464.out_of_band(report, quoted_fields(report, message), excerpt(report, message))
            elif report is not None and report.kind == "arf":
                rfc5965.recorded_report(report, message)


def test_many_addresses_of_a_header_are_bounded() -> None:
    many = "".join(
        f"X-Failed-Recipients: {', '.join(f'u{n}-{k}@far.example' for k in range(50))}\n" for n in range(500)
    )
    assert len(entries(f"{many}\nfailed\n".encode())) == 1000
