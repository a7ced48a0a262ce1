"""Bounces that are only nearly RFC 3464 reports, each kind in several variants: what is recorded of them, and where it
is marked as inferred. The cases of tests/corpus/reports/cases go the whole way; these go from octets to entries."""

from __future__ import annotations

import base64
import quopri

import pytest
from report_texts import (
    ARF,
    DSN,
    FEEDBACK,
    GROUP,
    HEAD,
    ORIGINAL,
    STATUS,
    bounce,
    claim,
    entries,
    entry,
    found,
    multipart,
    part,
    status_of,
)

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
        ("<u@far.example>: host mx.far.example[192.0.2.1] said: 550\n    <u@far.example>: unknown (in reply to RCPT\n"
         "    TO command)\n", 550, None, "<u@far.example>: unknown"),
        ("<u@far.example>: host mx.far.example said: 554\n    5.7.9 not here (in reply to end of DATA command)\n",
         554, "5.7.9", "5.7.9 not here"),
        ("The host said 450\n\nletters were waiting.\n", 550, None, None),
        ("Failed to send to identified host,\nu@far.example: [192.0.2.1], 554 Unavailable\n", 554, None, "Unavailable"),
        ("Diagnostic code: smtp;552 full\n", 552, None, "full"),
        ("<u@far.example>\n    (reason: 550 5.1.1 <u@far.example>... Unknown)\n", 550, "5.1.1",
         "5.1.1 <u@far.example>... Unknown"),
        ("(said: 550 5.1.1 no such user (see (1)))", 550, "5.1.1", "5.1.1 no such user (see (1))"),
        ("5.3.0 - Other mail system problem 554-'delivery error: dd' (delivery attempts: 0)", 554, None,
         "delivery error: dd"),
        ("5.1.0 - Unknown address error 550-'5.1.1 unknown'", 550, "5.1.1", "5.1.1 unknown"),
        ("<mx.far.example #5.1.1 smtp; 550 User unknown>", 550, "5.1.1", "5.1.1 User unknown"),
        ("Not delivered (host mx said: 550 5.1.1 no (in reply to RCPT TO command))", 550, "5.1.1", "5.1.1 no"),
        ("The server said \u201c550 5.1.1 gone\u201d", 550, "5.1.1", "5.1.1 gone"),
        ("#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##rfc822;u@far.example", 550, "5.1.1",
         "5.1.1 RESOLVER.ADR.RecipNotFound; not found"),
        ("mx.far.example #<mx.far.example #5.1.1 smtp;550 5.1.1 <u@far.example>: Unknown> #SMTP#", 550, "5.1.1",
         "5.1.1 <u@far.example>: Unknown"),
    ],
)  # fmt: skip
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
        ("To: the list <list@far.example>\nList-Post: <mailto:List@far.example>\n", ""),
        ("To: list@far.example\nDelivered-To: u@far.example\nList-Post: <mailto:list@far.example>\n", "u@far.example"),
        ("To: u@far.example\nList-Post: NO\nList-Id: <news.near.example>\n", "u@far.example"),
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
        "There is no problem, your message was successfully delivered.",
        "Ihre Nachricht wurde erfolgreich zugestellt.",
        "Votre message a \u00e9t\u00e9 remis avec succ\u00e8s.",
        "Su mensaje ha sido entregado con \u00e9xito.",
        "A entrega de sua mensagem est\u00e1 atrasada.",
        "Your message was read on Monday.",
        "Your message hasn't been delivered yet.",
        "The message could not be delivered yet; delivery attempts will continue for 4 days.\n\n451 4.4.1 timeout",
        "Delivery to these recipients is complete, but no delivery notification was sent by the server.",
        "Your message is still in the queue. No further action is required on your part.",
        "Delivery is taking longer than expected.",
        "u@far.example: 250 2.0.0 queued",
        "Ihre Nachricht wurde an u@far.example zugestellt.",
        "Ihre Nachricht wurde noch nicht zugestellt. Wir versuchen es weiter.",
        "Votre message a bien \u00e9t\u00e9 distribu\u00e9.",
        "Su mensaje ha sido entregado.",
        "Il messaggio \u00e8 stato consegnato.",
        "Sua mensagem foi entregue.",
    ],
)
def test_what_claims_success_or_delay_is_no_bounce(text: str) -> None:
    assert found(claim(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Ihre Nachricht konnte nicht erfolgreich zugestellt werden.",
        "Votre message n'a pas \u00e9t\u00e9 remis avec succ\u00e8s.",
        "Su mensaje no fue entregado con \u00e9xito.",
        "Il messaggio non \u00e8 stato consegnato con successo.",
        "Your message was not read. The mailbox does not exist.",
        "The message was rejected. No further delivery attempts will be made.",
        "Delivery was delayed for 5 days and has failed permanently.",
        "Ihre Nachricht wurde vom Server abgelehnt und nicht zugestellt.",
        "Votre message n'a pas \u00e9t\u00e9 remis.",
        "Su mensaje no ha sido entregado.",
        "Il messaggio non \u00e8 stato consegnato.",
        "Sua mensagem n\u00e3o foi entregue.",
    ],
)
def test_what_denies_success_is_a_bounce(text: str) -> None:
    assert found(claim(text)) is not None


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
        ("Delivery Notification: Delivery has been delayed", False),
        ("Delivery Notification: Delivery has failed", True),
        ("Mail delivery succeeded", False),
        ("=?utf-8?q?Zustellung_verz=C3=B6gert?=", False),
        ("Nicht zugestellt: July", True),
    ],
)
def test_the_subject_of_a_claimed_bounce_may_tell_that_it_is_none(subject: str, is_bounce: bool) -> None:
    assert (found(claim("See below.", head=f"Subject: {subject}\n")) is not None) == is_bounce


def test_words_that_the_original_brings_along_are_no_claim() -> None:
    text = (
        "Not delivered.\n\nSubject: delayed: your order was delivered\n\n--- A copy of the letter follows\n250 2.0.0 ok"
    )
    assert entry(claim(text)).code == 550
    fields = "X-Scan-Info: scan successful\nX-Warning: your letter\n\twas delayed\nReceived: it was delivered\n"
    assert entry(claim(f"Not delivered.\n\nOriginal message headers:\n\n{fields}")).code == 550


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


KINDS = ["related", "alternative", "mixed", "signed", "parallel", "x-private", "RELATED; type=text/html"]


@pytest.mark.parametrize("kind", KINDS)
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


def wrapped(message: bytes, times: int, kind: str = "multipart/mixed") -> bytes:
    for level in range(times):
        parts = (message.decode(), part("text/plain", f"Footer {level}."))
        message = multipart(*parts, kind=kind, boundary=f"o{level}", head="")
    return message


@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/related"])
@pytest.mark.parametrize("inner", [DSN, "multipart/mixed"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_report_that_was_wrapped_again_counts(times: int, inner: str, kind: str) -> None:
    message = wrapped(bounce(kind=inner, head=""), times, kind)
    report = found(message)
    assert report is not None and report.how == "wrapped"
    assert entry(message).recipient == "u@far.example"
    assert found(message, "user@far.example") is None


def test_a_claim_that_was_wrapped_again_is_inferred() -> None:
    one = entry(wrapped(claim("552 5.2.2 full", head=""), 2))
    assert (one.recipient, one.code, one.added["inferred"]) == ("u@far.example", 552, True)


def test_the_original_may_stand_beside_the_report_that_was_wrapped() -> None:
    without = multipart(part("message/delivery-status", STATUS), kind=DSN, head="").decode()
    claimed = multipart(part("text/plain", "552 5.2.2 full"), kind=DSN, head="").decode()
    for inner, how in ((without, "wrapped"), (claimed, "claimed")):
        message = multipart(inner, part("message/rfc822", ORIGINAL), kind="multipart/mixed", boundary="o")
        report = found(message)
        assert report is not None and report.how == how
        assert entry(message).added["original_headers"]["Subject"] == "July"


def test_a_report_four_levels_down_or_in_an_attached_message_does_not_count() -> None:
    assert found(wrapped(bounce(head=""), 4)) is None
    attached = part("message/rfc822", bounce().decode())
    assert found(multipart(attached, kind="multipart/mixed", boundary="o")) is None
    assert found(wrapped(multipart(attached, kind="multipart/mixed", boundary="o", head=""), 1)) is None


def test_a_receipt_in_another_multipart_is_none() -> None:
    receipt = multipart(
        part("message/delivery-status", STATUS), kind="multipart/report; report-type=disposition-notification", head=""
    )
    assert found(wrapped(receipt, 2)) is None


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
        (f"Content-Type: x\nContent-Transfer-Encoding: base64\n\n{in_base64(f'{HEAD}{chr(10)}{GROUP}')}\n{SECOND}", ""),
        (f"{HEAD}\n{in_base64(GROUP)}\n{in_base64(SECOND)}", "Content-Transfer-Encoding: base64\n"),
        (f"{HEAD}\n{GROUP}\n{SECOND}", "Content-Transfer-Encoding: base64\n"),
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


def test_encoded_words_in_recipients_and_diagnostics_are_decoded() -> None:
    group = "Final-Recipient: rfc822; =?utf-8?q?u=40far=2Eexample?=\nAction: failed\n"
    one = entry(bounce(f"{HEAD}\n{group}Diagnostic-Code: smtp; =?utf-8?q?550_5=2E1=2E1_f=C3=BCr_u?=\n"))
    assert (one.recipient, one.code, one.content) == ("u@far.example", 550, "5.1.1 für u")


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
    by_itself = [f"{HEAD}\n{first}"] if "Action" in first else []
    for head in (f"{HEAD}{first}", f"{first}{HEAD}", *by_itself):
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
        ("Diagnostic-Code: smtp; 550 not taken [550 5.1.1 unknown]\n", "failed", 550, "5.1.1",
         "not taken [550 5.1.1 unknown]"),
        ("Diagnostic-Code: smtp; 550 not taken, after 451 4.3.0 busy\n", "failed", 550, None,
         "not taken, after 451 4.3.0 busy"),
        ("Diagnostic-Code: X-Postfix; host a[192.0.2.1] said: 554 5.7.1 no (in reply to DATA)\n",
         "failed", 554, "5.7.1", "no"),
        ("Status: 550\nAction: failed\n", "failed", 550, None, ""),
        ("Status: 552\n", "failed", 552, None, ""),
        ("Status: 250\nAction: failed\n", "failed", 550, None, ""),
        ("Status: 5.0.0\nDiagnostic-Code: smtp; 250 queued\n", "failed", 550, "5.0.0", "queued"),
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
        ("x-mailer; mx.far.example: 552 Message size exceeds the limit", 552, "Message size exceeds the limit"),
        ("x-mailer; after RCPT TO: 553 Address rejected", 553, "Address rejected"),
        (
            "x-mailer; the server said: 554 Messages from 192.0.2.1 are blocked",
            554,
            "Messages from 192.0.2.1 are blocked",
        ),
        ("x-mailer; the server said: 571 no PTR record", 571, "no PTR record"),
        ("smtp; 220-mx.far.example 421 4.3.2 refused, try later", 421, "refused, try later"),
        ("smtp; 250 taken, then dropped", 550, "taken, then dropped"),
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
