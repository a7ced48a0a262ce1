"""The kinds of reports that are only nearly ones, each in several variants: what is recorded of them, and where it is
marked as inferred. The cases of tests/corpus/reports/cases go the whole way; these go from octets to entries."""

from __future__ import annotations

import base64
import quopri
from typing import Any

import pytest

from gateway._fastpath import Report
from gateway.reports import rfc3464, rfc5965
from gateway.reports.formats import find_report
from gateway.reports.original import quoted_fields
from gateway.reports.prose import excerpt
from gateway.reports.rfc3464 import OutOfBand

DSN = "multipart/report; report-type=delivery-status"
ARF = "multipart/report; report-type=feedback-report"
ORIGINAL = "Return-Path: <news+77@near.example>\nFrom: News <news@near.example>\nTo: u@far.example\nSubject: July\n"
GROUP = "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n"
HEAD = "Reporting-MTA: dns; mx.far.example\n"
STATUS = f"{HEAD}\n{GROUP}"
FEEDBACK = "Feedback-Type: abuse\nVersion: 1\nUser-Agent: Loop/1.0\n"


def part(kind: str, text: str, header: str = "") -> str:
    return f"Content-Type: {kind}\n{header}\n{text}"


def multipart(*parts: str, kind: str = DSN, boundary: str = "b1", head: str = "Subject: Returned mail\n") -> bytes:
    body = "".join(f"--{boundary}\n{each}\n" for each in parts)
    text = f'{head}MIME-Version: 1.0\nContent-Type: {kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'
    return text.encode("utf-8", "surrogateescape")


def bounce(
    status: str = STATUS, *, of: str = "message/delivery-status", header: str = "", text: str = "Sorry.", **how: str
) -> bytes:
    parts = (part("text/plain", f"{text}\n"), part(of, status, header), part("message/rfc822", f"{ORIGINAL}\nhi\n"))
    return multipart(*parts, **how)


def claim(text: str, original: str = ORIGINAL, *, of: str = "message/rfc822", **how: str) -> bytes:
    """A report-type without a status part."""
    return multipart(part("text/plain", f"{text}\n"), part(of, f"{original}\nhi\n"), **how)


def found(message: bytes, sender: str = "", listed: bool = False) -> Report | None:
    """The report, if it is one."""
    report = find_report(message, null_sender=not sender, listed_sender=listed)
    return None if report is None or report.kind == "unreadable" else report


def entries(message: bytes, sender: str = "") -> list[OutOfBand]:
    report = found(message, sender)
    assert report is not None and report.kind == "dsn"
    return rfc3464.out_of_band(report, quoted_fields(report, message))


def entry(message: bytes, sender: str = "") -> OutOfBand:
    (one,) = entries(message, sender)
    return one


def status_of(one: OutOfBand) -> str | None:
    return one.enhanced_code and ".".join(map(str, one.enhanced_code.values()))


def complaint(message: bytes, sender: str = "fbl@far.example", listed: bool = False) -> dict[str, Any]:
    report = found(message, sender, listed)
    assert report is not None and report.kind == "arf"
    return rfc5965.recorded_report(report, message) | {"inferred": report.inferred}


# --- 1: a report-type without a status part ---


@pytest.mark.parametrize(
    ("text", "code", "status", "content"),
    [
        ("The following letter was not delivered. This is final.", 550, None, ""),
        ("<u@far.example>:\n552 5.2.2 mailbox full\n", 552, "5.2.2", "5.2.2 mailbox full"),
        ("Remote host said: 554 5.7.1 Message rejected [id 1]", 554, "5.7.1", "5.7.1 Message rejected [id 1]"),
        ("The server answered (550 No such user) and we gave up", 550, None, "No such user"),
        (">>> RCPT TO:<u@far.example>\n<<< 553 5.3.0 no\n", 553, "5.3.0", "5.3.0 no"),
        ("No mailbox here by that name. (#5.1.1)", 550, "5.1.1", ""),
        ("Your letter of 512 bytes to 450 recipients failed.\n550 5.1.1 gone", 550, "5.1.1", "5.1.1 gone"),
        ("Not delivered for 5 days; the last answer was: 451 4.3.0 try later. Giving up.", 451, "4.3.0", None),
        ("550-5.1.1 no such\n550 5.1.1 user\n", 550, "5.1.1", "5.1.1 no such user"),
    ],
)
def test_a_claimed_bounce_tells_the_first_reply_of_its_prose(
    text: str, code: int, status: str | None, content: str | None
) -> None:
    one = entry(claim(text))
    assert (one.recipient, one.action, one.code, status_of(one)) == ("u@far.example", "failed", code, status)
    assert content is None or one.content == content
    assert one.added["inferred"] is True
    assert one.added["original_headers"]["Subject"] == "July"


@pytest.mark.parametrize(
    ("fields", "recipient"),
    [
        ("To: u@far.example\n", "u@far.example"),
        ("To: U <u@far.example>\n", "u@far.example"),
        ("To: a@far.example, b@far.example\n", ""),
        ("To: a@far.example\nCc: b@far.example\n", ""),
        ("To: a@far.example, b@far.example\nDelivered-To: b@far.example\n", "b@far.example"),
        ("X-Apparently-To: c@far.example via 192.0.2.1;\nDelivered-To: d@far.example\n", "c@far.example"),
        ("X-Apparently-To: c@far.example; Mon, 02 Nov 2026 09:00:00 +0000\nTo: list@far.example\n", "c@far.example"),
        ("To: u@far.example, <u@far.example>\n", "u@far.example"),
        ("To: undisclosed-recipients:;\n", ""),
        ("Subject: none\n", ""),
    ],
)  # fmt: skip
def test_a_claimed_bounce_names_the_originals_recipient_where_it_is_one(fields: str, recipient: str) -> None:
    for of in ("message/rfc822", "text/rfc822-headers"):
        assert entry(claim("Not delivered.", fields, of=of)).recipient == recipient


@pytest.mark.parametrize(
    "text",
    [
        "Your message was successfully delivered.",
        "Your message has been delivered to the following recipients:\n\n  u@far.example",
        "Your message could not be delivered for more than 4 hours.\nIt will be retried until it is 5 days old.",
        "This is a warning message only. You do not need to resend your message.",
        "Delivery is delayed to these recipients. Delivery will continue to be attempted.",
        "There was a temporary problem. We will retry for 47 more hours. You will be notified if it fails permanently.",
        "A message that you sent has not yet been delivered. No action is required on your part.",
        "The message was relayed to a server that sends no notifications.",
        "250 2.1.5 OK: your message was delivered",
        "The server of the recipient said: 250 2.0.0 queued",
    ],
)
def test_what_claims_success_or_delay_is_no_bounce(text: str) -> None:
    assert found(claim(text)) is None


@pytest.mark.parametrize(
    ("subject", "is_bounce"),
    [
        ("Failure Notice", True),
        ("Undeliverable: Your order was delivered successfully", True),
        ("Undelivered Mail Returned to Sender", True),
        ("Delivery Status Notification (Success)", False),
        ("Delivery Status Notification (Delay)", False),
        ("Delayed: July", False),
        ("Delivered: July", False),
        ("Warning: could not send message for past 4 hours", False),
    ],
)
def test_the_subject_of_a_claimed_bounce_may_tell_that_it_is_none(subject: str, is_bounce: bool) -> None:
    assert (found(claim("See below.", head=f"Subject: {subject}\n")) is not None) == is_bounce


def test_words_that_the_original_brings_along_are_no_claim() -> None:
    text = (
        "Not delivered.\n\nSubject: delayed: your order was delivered\n\n--- A copy of the letter follows\n250 2.0.0 ok"
    )
    assert entry(claim(text)).code == 550


@pytest.mark.parametrize(
    "message",
    [
        claim("Not delivered.", kind="multipart/report"),
        claim("Not delivered.", kind="multipart/report; report-type=disposition-notification"),
        claim("Not delivered.", kind="multipart/mixed"),
        multipart(part("text/plain", "Not delivered.")),
    ],
    ids=["no report-type", "MDN", "mixed", "no original"],
)
def test_without_the_claim_or_the_original_nothing_is_inferred(message: bytes) -> None:
    assert found(message) is None


def test_a_claim_counts_from_the_null_reverse_path_only() -> None:
    assert found(claim("Not delivered."), "user@far.example") is None


def test_the_prose_is_read_in_its_charset_and_encoding_and_out_of_html() -> None:
    quoted = quopri.encodestring(
        "Zustellung gescheitert f\xfcr u: 552 5.2.2 Postfach \xfcberf\xfcllt".encode("latin-1")
    )
    encoded = part("text/plain; charset=iso-8859-1", quoted.decode(), "Content-Transfer-Encoding: quoted-printable\n")
    original = part("message/rfc822", ORIGINAL)
    html = part(
        "text/html", "<style>p { x: 550 }</style><p>Failed:<br>552&nbsp;5.2.2 full</p><script>551 5.0.0</script>"
    )
    inner = multipart(html, encoded, kind="multipart/alternative", boundary="i", head="").decode()
    assert entry(multipart(encoded, original)).content == "5.2.2 Postfach überfüllt"
    assert entry(multipart(html, original)).code == 552
    assert entry(multipart(inner, original)).content == "5.2.2 Postfach überfüllt"


# --- 2: where the status part stands, and what it is called ---


@pytest.mark.parametrize("kind", ["related", "alternative", "mixed", "signed", "x-private", "RELATED; type=text/html"])
def test_a_status_part_counts_in_any_multipart_from_the_null_reverse_path(kind: str) -> None:
    message = bounce(kind=f"multipart/{kind}")
    assert entry(message).recipient == "u@far.example"
    assert "inferred" not in entry(message).added
    assert found(message, "user@far.example") is None


@pytest.mark.parametrize("outer", ["multipart/mixed", "multipart/signed", "multipart/related"])
@pytest.mark.parametrize("inner", [DSN, "multipart/report", "multipart/mixed", "multipart/related"])
@pytest.mark.parametrize("footer_first", [False, True])
def test_a_report_that_was_put_into_another_multipart_counts(outer: str, inner: str, footer_first: bool) -> None:
    parts = [bounce(kind=inner, head="").decode(), part("text/plain", "A footer.")]
    message = multipart(*(reversed(parts) if footer_first else parts), kind=outer, boundary="o")
    report = found(message)
    assert report is not None and report.how == "wrapped"
    one = entry(message)
    assert (one.recipient, one.reporting_mta, "inferred" in one.added) == ("u@far.example", "mx.far.example", False)
    assert one.added["original_headers"]["Subject"] == "July"
    assert found(message, "user@far.example") is None


def test_a_report_two_levels_down_or_in_an_attached_message_does_not_count() -> None:
    once = multipart(bounce(head="").decode(), kind="multipart/mixed", boundary="o", head="").decode()
    assert found(multipart(once, kind="multipart/mixed", boundary="p")) is None
    assert found(multipart(part("message/rfc822", bounce().decode()), kind="multipart/mixed", boundary="o")) is None


def test_a_wrapped_claim_is_inferred() -> None:
    message = multipart(claim("552 5.2.2 full", head="").decode(), part("text/plain", "x"), kind="multipart/mixed",
                        boundary="o")  # fmt: skip
    one = entry(message)
    assert (one.recipient, one.code, one.added["inferred"]) == ("u@far.example", 552, True)


@pytest.mark.parametrize(
    "of",
    ["message/x-delivery-status", "text/delivery-status", "application/delivery-status", "Message/X-Delivery-Status",
     "message/delivery_status", "message/vnd.example.delivery-status+x; charset=utf-8", "text/x-delivery-status"],
)  # fmt: skip
def test_private_and_slightly_wrong_types_count_in_a_multipart_report(of: str) -> None:
    for sender in ("", "postmaster@far.example"):
        report = found(bounce(of=of), sender)
        assert report is not None and report.how == "private_type"
    assert entry(bounce(of=of)).recipient == "u@far.example"


def test_private_types_of_feedback_and_originals_count_too() -> None:
    parts = (part("text/x-feedback-report", FEEDBACK), part("message/x-rfc822", ORIGINAL))
    report = found(multipart(*parts, kind=ARF), "fbl@far.example")
    assert report is not None and report.kind == "arf" and report.original is not None


# --- 3: which status part, which groups ---

PROSE = "This letter could not be delivered:\n\n<u@far.example> has a restricted mailbox\n\nWrite to: us\n"


@pytest.mark.parametrize("unusable", [PROSE, "", "X: y\n", HEAD, "Final-Recipient:\nAction: failed\n"])
@pytest.mark.parametrize("original_between", [False, True])
def test_of_several_status_parts_the_first_usable_one_counts(unusable: str, original_between: bool) -> None:
    first, second = part("message/delivery-status", unusable), part("message/delivery-status", STATUS)
    original = part("message/rfc822", ORIGINAL)
    order = (first, original, second) if original_between else (first, second, original)
    one = entry(multipart(part("text/plain", "Sorry."), *order))
    assert (one.recipient, one.reporting_mta, one.added["original_headers"]["Subject"]) == (
        "u@far.example", "mx.far.example", "July"
    )  # fmt: skip


def test_a_status_part_behind_the_close_delimiter_does_not_count_after_a_useless_one() -> None:
    message = multipart(part("message/delivery-status", PROSE))
    epilogue = f"--b1\n{part('message/delivery-status', STATUS)}\n--b1--\n".encode()
    assert found(message + epilogue) is None


def in_base64(text: str) -> str:
    return base64.encodebytes(text.encode()).decode()


SECOND = GROUP.replace("u@", "v@")


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (in_base64(f"{HEAD}\n{GROUP}\n{SECOND}"), "Content-Transfer-Encoding: base64\n"),
        ("\n".join(map(in_base64, (HEAD, GROUP, SECOND))), "Content-Transfer-Encoding: base64\n"),
        ("".join(map(in_base64, (f"{HEAD}\n", f"{GROUP}\n", SECOND))), "Content-Transfer-Encoding: base64\n"),
        ("\n".join(in_base64(text[:-1]) for text in (HEAD, GROUP, SECOND)), "Content-Transfer-Encoding: base64\n"),
        (f"{HEAD}\n{in_base64(GROUP)}\n{in_base64(SECOND)}", ""),
        (f"{HEAD}\n{in_base64(GROUP)}\n{SECOND}", ""),
        (f"{HEAD}\n{in_base64(f'{GROUP}{chr(10)}{SECOND}')}", ""),
        (f"{in_base64(HEAD)}\n{in_base64(GROUP)}\n{in_base64(SECOND)}", ""),
        (f"{HEAD}\nContent-Transfer-Encoding: base64\n\n{in_base64(GROUP)}\n{in_base64(SECOND)}", ""),
        (f"Content-Transfer-Encoding: base64\n\n{in_base64(f'{HEAD}{chr(10)}{GROUP}{chr(10)}{SECOND}')}", ""),
        (f"{HEAD}\n{GROUP}\n{SECOND}".replace("@", "=40"), "Content-Transfer-Encoding: quoted-printable\n"),
        (f"{HEAD}\n{GROUP.replace('@', '=40')}\n{SECOND}", ""),
        (f"{HEAD}\n{GROUP}\n{SECOND}".replace("@", "=40").replace("far.example\nAct", "far.ex=\nample\nAct"), ""),
        (f"{HEAD}\n{GROUP.replace(':', '=3A').replace('@', '=40')}\n{SECOND}", ""),
    ],
)
def test_groups_that_are_encoded_one_by_one_or_together_are_read(status: str, header: str) -> None:
    for message in (bounce(status, header=header), bounce(status, header=header).replace(b"\n", b"\r\n")):
        found_entries = entries(message)
        assert [one.recipient for one in found_entries] == ["u@far.example", "v@far.example"]
        assert {(one.reporting_mta, one.action, status_of(one)) for one in found_entries} == {
            ("mx.far.example", "failed", "5.1.1")
        }


def test_verp_addresses_are_not_taken_for_quoted_printable() -> None:
    address = "bounce+u=40far.example@near.example"
    assert entry(bounce(f"{HEAD}\nFinal-Recipient: rfc822; {address}\nAction: failed\n")).recipient == address


@pytest.mark.parametrize(
    ("first", "groups", "expected"),
    [
        ("Action: failed\nStatus: 5.1.1\n", ["", ""], [("failed", "5.1.1"), ("failed", "5.1.1")]),
        ("Status: 5.1.1\n", ["Action: failed\n", ""], [("failed", "5.1.1"), ("failed", "5.1.1")]),
        ("Action: delayed\nStatus: 4.2.2\n", ["", "Action: failed\nStatus: 5.2.2\n"],
         [("delayed", "4.2.2"), ("failed", "5.2.2")]),
        ("Action: failed\n", ["Status: 5.1.2\n", "Status: 5.1.3\n"], [("failed", "5.1.2"), ("failed", "5.1.3")]),
    ],
)  # fmt: skip
def test_action_and_status_in_the_first_block_apply_to_who_has_none(
    first: str, groups: list[str], expected: list[tuple[str, str]]
) -> None:
    blocks = "\n".join(f"Final-Recipient: rfc822; u{n}@far.example\n{group}" for n, group in enumerate(groups))
    for head in (f"{HEAD}{first}", f"{first}{HEAD}"):
        found_entries = entries(bounce(f"{head}\n{blocks}"))
        assert [(one.action, status_of(one)) for one in found_entries] == expected
        assert {one.reporting_mta for one in found_entries} == {"mx.far.example"}


# --- 4: what the diagnostic tells ---


@pytest.mark.parametrize(
    ("fields", "action", "code", "status", "content"),
    [
        ("Diagnostic-Code: smtp; 552 over quota\n", "failed", 552, None, "over quota"),
        ("Diagnostic-Code: smtp; 450 4.2.2 over quota\n", "delayed", 450, "4.2.2", "4.2.2 over quota"),
        ("Diagnostic-Code: 5.2.1 disabled\n", "failed", 550, "5.2.1", "disabled"),
        ("Diagnostic-Code: X-Postfix; host a[192.0.2.1] said: 554 5.7.1 no (in reply to DATA)\n",
         "failed", 554, "5.7.1", "no"),
        ("Status: 550\nAction: failed\n", "failed", 550, None, ""),
        ("Status: 552\n", "failed", 552, None, ""),
        ("Status: 451\n", "delayed", 451, None, ""),
        ("Status: 550 5.1.1 (unknown)\n", "failed", 550, "5.1.1", ""),
        ("Status: 554\nDiagnostic-Code: smtp; 550 5.1.1 gone\n", "failed", 550, "5.1.1", "5.1.1 gone"),
        ("Status: unknown (5.1.2)\n", "failed", 550, "5.1.2", ""),
    ],
)  # fmt: skip
def test_action_code_and_status_come_from_what_there_is(
    fields: str, action: str, code: int, status: str | None, content: str
) -> None:
    one = entry(bounce(f"{HEAD}\nFinal-Recipient: rfc822; u@far.example\n{fields}"))
    assert (one.action, one.code, status_of(one), one.content) == (action, code, status, content)
    assert ("inferred" in one.added) == ("Status" not in fields)
    assert not any(key.endswith("_raw") for key in one.added)


@pytest.mark.parametrize(
    ("diagnostic", "code", "content"),
    [
        ("host mx.far.example[192.0.2.7] said: 550 5.1.1 unknown (in reply to RCPT TO command)", 550, "unknown"),
        ("smtp; host mx.far.example said 550 unknown address", 550, "unknown address"),
        ("SMTP; SMTP error, RCPT TO: host mx(192.0.2.7) said 550 unknown address", 550, "unknown address"),
        ("smtp; <<< 553 5.3.0 go away", 553, "go away"),
        ("smtp; >>> RCPT TO:<u@far.example> <<< 550 5.1.1 u... User unknown", 550, "u... User unknown"),
        ("X-Mailer; delivery failed (550 5.1.1 No such user (u)) after 1 try", 550, "No such user (u)"),
        ("x-local; [552 5.2.2 full]", 552, "full"),
        ("x-exchange; Remote Server returned '550 5.1.10 RESOLVER.ADR; not found'", 550, "RESOLVER.ADR; not found"),
        ("550; user unknown", 550, "; user unknown"),
        ("#550 no", 550, "no"),
        ("no route to host", 550, "no route to host"),
        ("X-Postfix; connect to far.example[192.0.2.1]:25: Connection timed out", 550, ""),
        ("X-Postfix; message size 55012345 exceeds 512 KB limit: 450 messages", 550, ""),
        ("x-unix; 127", 550, ""),
        ("smtp; 4.4.7 delivery time expired", 550, "4.4.7 delivery time expired"),
        ("X-Host; mail.example 452.1.2.3: 554.2", 550, ""),
    ],
)
def test_replies_are_found_inside_other_words(diagnostic: str, code: int, content: str) -> None:
    one = entry(bounce(f"{HEAD}\n{GROUP}Diagnostic-Code: {diagnostic}\n"))
    assert (one.code, status_of(one)) == (code, "5.1.1")
    assert one.content.lstrip(" ;") == content.lstrip(" ;")


def test_a_recipient_with_nothing_else_is_none() -> None:
    assert found(bounce(f"{HEAD}\nFinal-Recipient: rfc822; u@far.example\n", kind="multipart/report")) is None


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


def test_entries_without_a_diagnostic_have_the_excerpt() -> None:
    with_one = f"{HEAD}\n{GROUP}\n{SECOND}Diagnostic-Code: smtp; 550 no\n"
    message = bounce(with_one)
    report = found(message)
    assert report is not None
    first, second = rfc3464.out_of_band(report, [], excerpt(report, message))
    assert (first.added.get("excerpt"), second.added.get("excerpt")) == ("Sorry.", None)
