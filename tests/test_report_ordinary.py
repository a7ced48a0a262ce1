"""Ordinary mail is no report, whoever it is from: letters, attachments, forwarded bounces, digests, list posts,
automatic replies. That some of these come from the null reverse-path or a listed sender makes them none either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import scan_report
from gateway.reports.formats import find_report

REPORTS = Path(__file__).parent / "corpus" / "reports"
SENDERS = {"anybody": {}, "nobody": {"null_sender": True}, "listed": {"listed_sender": True}}

ORIGINAL = "Return-Path: <news@near.example>\nFrom: news@near.example\nTo: u@far.example\nSubject: July\n\nhi\n"
STATUS = (
    "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n"
    "Diagnostic-Code: smtp; 550 5.1.1 unknown\n"
)


def multipart(kind: str, boundary: str, *parts: str, head: str = "") -> str:
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'{head}Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'


def attached(message: str, kind: str = "message/rfc822") -> str:
    return f"Content-Type: {kind}\nContent-Disposition: attachment\n\n{message}"


def of_corpora() -> list[str]:
    """Real and made reports of every kind, to be forwarded."""
    rows = map(json.loads, (REPORTS / "visible" / "expected.jsonl").read_text().splitlines())
    real = [REPORTS / "visible" / row["file"] for row in rows if row["class"] != "other"][::8]
    made = sorted((REPORTS / "cases").glob("*.eml"))
    return [path.read_bytes().decode("latin-1").replace("\r\n", "\n") for path in (*real, *made)]


FORWARDED = of_corpora()

# What letters hold that reports are made of.
LINES = st.sampled_from(
    ["Hello,", "", "550 5.1.1 user unknown", "host mx said: 550 5.1.1 no", "Final-Recipient: rfc822; u@far.example",
     "Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 gone", "Feedback-Type: abuse", "<u@far.example>:",
     "Hi. This is a letter.", "Hi. This is the", "--- Below this line is a copy of the message.",
     "------ This is a copy of the message ------", "X-Failed-Recipients: u@far.example", "could not be delivered",
     "Content-Type: message/delivery-status", "--C", "--C--", "> Reporting-MTA: dns; mx", "u@far.example", ".",
     "X-HmXmrOriginalRecipient: u@far.example", "SGkuIFRoaXMgaXMgdGhl", "-- ", "Best"]
)  # fmt: skip
TEXTS = (
    st.lists(LINES, max_size=12).map("\n".join).filter(lambda text: not text.lstrip("\n").startswith("Hi. This is the"))
)
FIELDS = st.lists(
    st.sampled_from(
        ["Subject: Undelivered Mail Returned to Sender\n", "Subject: Re: failure notice\n", "From: a@near.example\n",
         "From: MAILER-DAEMON@near.example\n", "To: b@far.example\n", "Auto-Submitted: auto-replied\n",
         "List-Id: <list.near.example>\n", "X-Failed: u@far.example\n", "Precedence: bulk\n", "Return-Path: <>\n",
         "X-Hm: X-HmXmrOriginalRecipient\n"]
    ),
    max_size=5,
).map("".join)  # fmt: skip
TYPES = st.sampled_from(
    ["text/plain", "text/plain; charset=utf-8", "text/html", "text/calendar", "text/x-delivery", "image/png",
     "application/pdf", "application/octet-stream; name=delivery-status.txt", "message/disposition-notification",
     "message/partial", "message/external-body", "text/csv", "application/zip; name=report.zip",
     "message/delivery-status-notes", "application/x-feedback"]
)  # fmt: skip
BOUNDARIES = st.sampled_from(["B", "=_x", "----b"])
MULTIPARTS = st.sampled_from(["mixed", "alternative", "related", "signed", "digest", "parallel"])


@st.composite
def leaves(draw: st.DrawFn) -> str:
    return f"Content-Type: {draw(TYPES)}\n\n{draw(TEXTS)}\n"


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> str:
    """A part: a leaf, an attached message with anything in it, or a multipart of such."""
    choice = draw(st.integers(0, 3 if depth else 1))
    if choice == 0:
        return draw(leaves())
    if choice == 1:
        return attached(
            draw(st.sampled_from(FORWARDED)), draw(st.sampled_from(["message/rfc822", "text/rfc822-headers"]))
        )
    parts = draw(st.lists(trees(depth=depth - 1), min_size=1, max_size=3))
    return multipart(draw(MULTIPARTS), f"{draw(BOUNDARIES)}{depth}", *parts)


@st.composite
def letters(draw: st.DrawFn) -> bytes:
    """A whole message of these parts."""
    head = draw(FIELDS)
    if draw(st.booleans()):
        return f"{head}Content-Type: {draw(TYPES.filter(lambda kind: 'rfc822' not in kind))}\n\n{draw(TEXTS)}".encode()
    parts = draw(st.lists(trees(), min_size=1, max_size=4))
    return multipart(draw(MULTIPARTS), draw(BOUNDARIES), *parts, head=head).encode("latin-1", "replace")


def is_report(message: bytes, **sender: bool) -> bool:
    for ends in (b"\n", b"\r\n"):
        report = find_report(message.replace(b"\n", ends), **sender)
        if report is not None and report.kind != "unreadable":
            return True
    return False


@given(letters())
def test_letters_with_anything_attached_are_no_reports(message: bytes) -> None:
    assert not is_report(message)
    assert not is_report(message, null_sender=True)


# What the first look at a letter searches for: a letter that has it somewhere is read in full.
SOUGHT = b"x-failed-recipients feedback-report"
BEGINNINGS = st.sampled_from(
    [b"", b"Content-Type: message/Feedback-Report\n\nFeedback-Type: abuse\n", b"X-FAILED-Recipients: u@far.example\n",
     b"\nHi. This is the qmail-send program\n\n<u@far.example>:\nno\n", b"Content-Type: text/plain\n\nx\n",
     b"Content-Type: multipart/report; boundary=R\n\n--R\n\nno\n--R\nContent-Type: text/delivery_status\n\n"
     b"Final-Recipient: rfc822; u@far.example\nAction: failed\n--R--\n",
     b"Content-Type: multipart/report; report-type=DELIVERY-status; boundary=R\n\n--R\n\nno\n--R\n"
     b"Content-Type: message/rfc822\n\nTo: u@far.example\n--R--\n"]
)  # fmt: skip


@given(st.sampled_from(["mixed", "related"]), letters(), BEGINNINGS, BEGINNINGS, st.integers(0, 4200), st.booleans())
def test_the_first_look_at_a_letter_changes_nothing(
    kind: str, letter: bytes, field: bytes, part: bytes, filling: int, null_sender: bool
) -> None:
    found = []
    for word in (SOUGHT, SOUGHT.replace(b"-", b"_")):
        header = b"X-Note: %b\n%bContent-Type: multipart/%b; boundary=A\n\n" % (word, field, kind.encode())
        body = b"%b\n%b\n--A\n%b\n--A\n%b\n--A--\n" % (word, b"x" * filling, part, letter)
        report = find_report(header + body, null_sender=null_sender)
        found.append(report and (report.kind, report.reason, report.how, report.per_recipient, report.feedback))
    assert found[0] == found[1]


@pytest.mark.parametrize("place", range(4096 - 80, 4096 + 8))
def test_a_feedback_part_is_found_wherever_its_type_stands(place: int) -> None:
    head = b"Content-Type: multipart/mixed; boundary=A\n\n"
    part = b"\n--A\nContent-Type: message/%b\n\nFeedback-Type: abuse\n\n--A--\n"
    for name in (b"feedback-report", b"FEEDBACK-REPORT"):
        body = (part % name).replace(b"\n--A", b"x" * (place - (part % name).index(name)) + b"\n--A", 1)
        assert body.index(name) == place
        assert (find_report(head + body) is not None) == (place + len(name) <= 4096)


@pytest.mark.parametrize("length", range(130))
def test_failed_recipients_are_found_wherever_they_stand(length: int) -> None:
    field = b"x" * length + b": y\nX-Failed-Recipients: u@far.example\n" if length else b"X-Failed-Recipients: u@b\n"
    report = scan_report(field + b"\nno\n", null_sender=True)
    assert report is not None and report.candidate == "x_failed_recipients"


@pytest.mark.parametrize("sender", ["anybody", "nobody"])
@pytest.mark.parametrize("number", range(len(FORWARDED)))
def test_forwarded_reports_are_no_reports(number: int, sender: str) -> None:
    report, how = FORWARDED[number], SENDERS[sender]
    quoted = "".join(f"> {line}\n" for line in report.split("\n"))
    head = "Subject: Fwd: Undelivered Mail\nFrom: a@near.example\n"
    for message in (
        f"{head}\nFYI\n\n{report}",
        f"{head}Content-Type: text/plain\n\nFYI\n\n-----Original Message-----\n{quoted}",
        multipart("mixed", "fwd-1", "Content-Type: text/plain\n\nFYI\n", attached(report), head=head),
        multipart("mixed", "fwd-1", attached(report), head=head),
        multipart("digest", "fwd-1", f"\n{report}", f"\n{ORIGINAL}", head=head),
        multipart("mixed", "fwd-1", "\nToday's topics\n", multipart("digest", "fwd-2", f"\n{report}"), head=head),
        multipart("mixed", "fwd-1", "\nA post\n", attached(report), "\n_____\nlist footer\n",
                  head=f"{head}List-Id: <l.near.example>\n"),
        multipart("mixed", "fwd-1", "\nSee.\n", attached(report, "text/plain; name=bounce.eml"), head=head),
        multipart("mixed", "fwd-1", "\nSee.\n", attached(report, "application/octet-stream"), head=head),
    ):  # fmt: skip
        assert not is_report(message.encode("latin-1", "replace"), **how)


def test_a_list_post_of_a_whole_bounce_is_none() -> None:
    bounce = multipart("report; report-type=delivery-status", "b", attached(STATUS, "message/delivery-status"))
    post = multipart("mixed", "post", bounce, "\nlist footer\n", head="List-Id: <l.near.example>\n")
    assert not is_report(post.encode())
    forwarded = multipart("mixed", "fwd", "\nFYI\n", attached(STATUS, "message/delivery-status"), attached(ORIGINAL))
    assert not is_report(forwarded.encode())


AUTOMATIC = {
    "vacation": "Auto-Submitted: auto-replied\nSubject: Away: July\n\nI am away. 550 letters wait.\n",
    "vacation with the letter": multipart(
        "mixed", "v", "\nI am away.\n", attached(ORIGINAL), head="Auto-Submitted: auto-replied\n"
    ),
    "read receipt": multipart(
        "report; report-type=disposition-notification", "r", "\nRead.\n",
        attached("Final-Recipient: rfc822; u@far.example\nDisposition: manual-action; displayed\n",
                 "message/disposition-notification"), attached(ORIGINAL),
    ),
    "read receipt without report-type": multipart(
        "report", "r", "\nRead.\n",
        attached("Final-Recipient: rfc822; u@far.example\nDisposition: x\n", "message/disposition-notification"),
        attached(ORIGINAL),
    ),
    "challenge": "Subject: Please confirm your mail to u@far.example\n\nYour mail was not delivered. Click here.\n",
    "plain bounce of no form that is read": "Subject: failure\n\nThe mail to <u@far.example>: 550 5.1.1 unknown\n",
    "delay": "Subject: Warning: message delayed\nX-Failed-Recipients: u@far.example\n\nIt will be tried again.\n",
    "success": multipart(
        "report; report-type=delivery-status", "s", "\nYour message was successfully delivered.\n", attached(ORIGINAL)
    ),
    "TLS report": multipart("report; report-type=tlsrpt", "t", "\nx\n", attached("H4sI", "application/tlsrpt+gzip")),
    "DMARC aggregate report": multipart(
        "mixed", "d", "\nReport domain: near.example\n", attached("PK", 'application/zip; name="a!b!1!2.zip"'),
        head="Subject: Report domain: near.example Submitter: far.example\n",
    ),
    "calendar": multipart("alternative", "c", "\nx\n", attached("BEGIN:VCALENDAR", "text/calendar; method=REPLY")),
    "attached status part that is a file": multipart(
        "mixed", "f", "\nx\n", attached(STATUS, 'application/octet-stream; name="message/delivery-status"')
    ),
}  # fmt: skip


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("name", AUTOMATIC)
def test_automatic_mail_is_no_report(name: str, sender: str) -> None:
    assert not is_report(AUTOMATIC[name].encode(), **SENDERS[sender])


@given(TEXTS, FIELDS)
def test_letters_of_listed_senders_are_no_complaints(text: str, fields: str) -> None:
    for message in (
        f"{fields}\n{text}",
        multipart("mixed", "b", f"\n{text}\n", attached(ORIGINAL), head=fields),
        multipart("mixed", "b", f"\n{text}\n", head=fields),
    ):
        assert not is_report(message.encode(), listed_sender=True)
