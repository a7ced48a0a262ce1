"""Reports in the manner of mailers and feedback loops that the corpus has no sample of: class, and what is recorded.

Written after the formats, not copied from mail; what counts as a report is defined in tests/corpus/reports/README.md.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway._fastpath import Report, scan_report
from gateway.reports import command, rfc3464, rfc5965
from gateway.reports.formats import find_report
from gateway.reports.original import quoted_fields
from gateway.reports.rfc3464 import OutOfBand

DSN = "multipart/report; report-type=delivery-status"
ARF = "multipart/report; report-type=feedback-report"
ORIGINAL = "Return-Path: <news@near.example>\nFrom: News <news@near.example>\nTo: u@far.example\nSubject: July\n"


def multipart(*parts: str, kind: str = DSN, boundary: str = "b1", head: str = "", preamble: str = "") -> bytes:
    delimited = "".join(f"--{boundary}\n{part}\n" for part in parts)
    head = f'{head}MIME-Version: 1.0\nContent-Type: {kind};\n\tboundary="{boundary}"\n\n{preamble}'
    return f"{head}{delimited}--{boundary}--\n".encode("utf-8", "surrogateescape")


def part(kind: str, text: str, header: str = "") -> str:
    return f"Content-Type: {kind}\n{header}\n{text}"


def bounce(status: str, *, kind: str = DSN, header: str = "", original: str | None = None, **more: str) -> bytes:
    parts = [part("text/plain; charset=us-ascii", "Sorry.\n"), part("message/delivery-status", status, header)]
    return multipart(*parts, part("message/rfc822", ORIGINAL + "\nhi\n") if original is None else original, kind=kind,
                     **more)  # fmt: skip


def complaint(fields: str, *, original: str = ORIGINAL + "\nhi\n", kind: str = ARF, **more: str) -> bytes:
    parts = [part("text/plain", "A complaint.\n"), part("message/feedback-report", fields)]
    return multipart(*parts, part("message/rfc822", original), kind=kind, **more)


# name -> message, what is recorded of each recipient: address, action, code, enhanced code
BOUNCES: dict[str, tuple[bytes, list[tuple[str, str, int, str | None]]]] = {
    "exim, no enhanced code in the reply, diagnostic on several lines": (
        bounce(
            "Reporting-MTA: dns; exim.far.example\n\nAction: failed\nFinal-Recipient: rfc822;u@far.example\n"
            "Status: 5.0.0\nRemote-MTA: dns; mx.far.example\n"
            "Diagnostic-Code: smtp; 550-Verification failed for <news@near.example>\n 550 Sender verify failed\n",
            head="X-Failed-Recipients: u@far.example\nAuto-Submitted: auto-replied\n",
            original=part("text/rfc822-headers", ORIGINAL),
        ),
        [("u@far.example", "failed", 550, "5.0.0")],
    ),
    "exim, delayed, with a comment": (
        bounce(
            "Reporting-MTA: dns; exim.far.example\n\nAction: delayed\nFinal-Recipient: rfc822;u@far.example\n"
            "Status: 4.0.0\n"
        ),
        [("u@far.example", "delayed", 450, "4.0.0")],
    ),
    "exchange on premises": (
        bounce(
            "Reporting-MTA: dns;EX01.corp.far.example\nReceived-From-MTA: dns;mail.near.example\n"
            "Arrival-Date: Tue, 1 Jul 2025 10:00:00 +0000\n\n"
            "Original-Recipient: rfc822;u@far.example\nFinal-Recipient: rfc822;u@far.example\nAction: failed\n"
            "Status: 5.1.10\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.ExRecipNotFound; not found\n"
            "X-Display-Name: User\n",
            kind='multipart/report; report-type=delivery-status; type="x"',
        ),
        [("u@far.example", "failed", 550, "5.1.10")],
    ),
    "office 365: a folded diagnostic": (
        bounce(
            "Reporting-MTA: dns;DB9PR01MB0001.eurprd01.prod.outlook.example\nReceived-From-MTA: dns;mail.near.example\n"
            "Arrival-Date: Tue, 1 Jul 2025 10:00:00 +0000\n\nFinal-Recipient: rfc822;u@far.example\nAction: failed\n"
            "Status: 5.4.1\nDiagnostic-Code: smtp;550 5.4.1 Recipient address rejected: Access denied.\n"
            " [DB5EUR01FT001.eop-EUR01.prod.protection.outlook.example 2025-07-01T10:00:00.000Z 08DD]\n\n"
        ),
        [("u@far.example", "failed", 550, "5.4.1")],
    ),
    "exchange, expanded and relayed recipients give no record": (
        bounce(
            "Reporting-MTA: dns;ex.far.example\n\nFinal-Recipient: rfc822;list@far.example\nAction: expanded\n"
            "Status: 2.0.0\n\nFinal-Recipient: rfc822;a@far.example\nAction: relayed\nStatus: 2.0.0\n"
        ),
        [],
    ),
    "gmail: CRLF, a diagnostic on several lines": (
        bounce(
            "Reporting-MTA: dns; googlemail.example\nReceived-From-MTA: dns; news@near.example\n"
            "Arrival-Date: Tue, 01 Jul 2025 03:00:00 -0700 (PDT)\nX-Original-Message-ID: <1@near.example>\n\n"
            "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n"
            "Remote-MTA: dns; mx.far.example. (192.0.2.1, the server for the domain far.example.)\n"
            "Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            " 550-5.1.1 double-checking the address\n 550 5.1.1  https://support.example/mail - gsmtp\n"
            "Last-Attempt-Date: Tue, 01 Jul 2025 03:00:01 -0700 (PDT)\n",
            kind='multipart/report; boundary="000000000000a1"; report-type=delivery-status',
            boundary="000000000000a1",
        ).replace(b"\n", b"\r\n"),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "gmail, delayed": (
        bounce(
            "Reporting-MTA: dns; googlemail.example\n\nFinal-Recipient: rfc822; u@far.example\nAction: delayed\n"
            "Status: 4.4.1\nDiagnostic-Code: smtp; The recipient server did not accept our requests to connect.\n"
            "Will-Retry-Until: Thu, 03 Jul 2025 03:00:00 -0700 (PDT)\n"
        ),
        [("u@far.example", "delayed", 450, "4.4.1")],
    ),
    "postfix 2, delayed": (
        bounce(
            "Reporting-MTA: dns; mx.far.example\nX-Postfix-Queue-ID: 4C8F72E0B\n"
            "X-Postfix-Sender: rfc822; news@near.example\nArrival-Date: Tue,  1 Jul 2025 10:00:00 +0000 (UTC)\n\n"
            "Final-Recipient: rfc822; u@far.example\nOriginal-Recipient: rfc822;u@far.example\nAction: delayed\n"
            "Status: 4.4.1\nDiagnostic-Code: X-Postfix; connect to far.example[192.0.2.1]:25: timed out\n"
            "Will-Retry-Until: Sun,  6 Jul 2025 10:00:00 +0000 (UTC)\n",
            original=part("text/rfc822-headers", ORIGINAL),
        ),
        [("u@far.example", "delayed", 450, "4.4.1")],
    ),
    "postfix 2, no such user here": (
        bounce(
            "Reporting-MTA: dns; mx.far.example\nArrival-Date: Tue,  1 Jul 2025 10:00:00 +0000 (UTC)\n\n"
            "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.0.0\n"
            "Diagnostic-Code: X-Postfix; unknown user: \"u\"\n"
        ),
        [("u@far.example", "failed", 550, "5.0.0")],
    ),
    "sendmail, two recipients failed": (
        bounce(
            "Reporting-MTA: dns; mail.far.example\nReceived-From-MTA: DNS; mail.near.example\n"
            "Arrival-Date: Tue, 1 Jul 2025 10:00:00 GMT\n\n"
            "Final-Recipient: RFC822; a@far.example\nAction: failed\nStatus: 5.1.1\nRemote-MTA: DNS; mx.far.example\n"
            "Diagnostic-Code: SMTP; 550 5.1.1 <a@far.example>... User unknown\n"
            "Last-Attempt-Date: Tue, 1 Jul 2025 10:00:01 GMT\n\n"
            "Final-Recipient: RFC822; b@far.example\nX-Actual-Recipient: X-Unix; |/usr/bin/vacation b\n"
            "Action: failed\nStatus: 5.3.0\nDiagnostic-Code: X-Unix; 127\n"
            "Last-Attempt-Date: Tue, 1 Jul 2025 10:00:01 GMT\n",
            head="Auto-Submitted: auto-generated (failure)\n",
            preamble="This is a MIME-encapsulated message\n\n",
            boundary="61A1.1751364000/mail.far.example",
        ),
        [("a@far.example", "failed", 550, "5.1.1"), ("b@far.example", "failed", 550, "5.3.0")],
    ),
    "sendmail, warning": (
        bounce(
            "Reporting-MTA: dns; mail.far.example\n\nFinal-Recipient: RFC822; a@far.example\n"
            "Action: delayed\nStatus: 4.2.0\nWill-Retry-Until: Sun, 6 Jul 2025 10:00:00 GMT\n"
        ),
        [("a@far.example", "delayed", 450, "4.2.0")],
    ),
    "domino: no blank behind the type": (
        multipart(
            part("text/plain", "Your message\n\n  Subject: July\n\nwas not delivered to:\n\n  u@far.example\n"),
            part("message/delivery-status", "Reporting-MTA: dns;domino.far.example\n\n"
                 "Final-Recipient: rfc822;u@far.example\nAction: failed\nStatus: 5.1.1\n"
                 "Diagnostic-Code: X-Notes; User u (u@far.example) not listed in Domino\n Directory\n"),
            part("message/rfc822", ORIGINAL + "\nhi\n"),
            boundary="==IFJRGLKFGIR4201UHRUHIHD",
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "zimbra: postfix behind an amavis": (
        bounce(
            "Reporting-MTA: dns; zimbra.far.example\nReceived-From-MTA: dns; mail.near.example ([192.0.2.9])\n"
            "Arrival-Date: Tue, 01 Jul 2025 10:00:00 +0000\n\nOriginal-Recipient: rfc822;u@far.example\n"
            "Final-Recipient: rfc822;u@far.example\nAction: failed\nStatus: 5.7.0\n"
            "Diagnostic-Code: smtp; 554 5.7.0 Reject, id=1-2 - spam\n"
            "Last-Attempt-Date: Tue, 01 Jul 2025 10:00:01 +0000\n"
            "Final-Log-ID: 1-2/Z\n",
            original=part("text/rfc822-headers; charset=utf-8", ORIGINAL),
        ),
        [("u@far.example", "failed", 554, "5.7.0")],
    ),
    "yahoo: unknown mailbox, brackets round the address": (
        bounce(
            "Reporting-MTA: dns; mta.yahoo.example\n\nFinal-Recipient: rfc822;<u@far.example>\nAction: failed\n"
            "Status: 5.5.0\nDiagnostic-Code: smtp; 554 delivery error: dd This user does not have an account\n"
        ),
        [("u@far.example", "failed", 554, "5.5.0")],
    ),
    "mail.ru: blanks round the action, a comment behind the status": (
        bounce(
            "Reporting-MTA: dns; mx.mail.example\nArrival-Date: Tue, 01 Jul 2025 13:00 +0300\n\n"
            "Final-Recipient: rfc822;u@far.example\nAction:  failed  \nStatus: 5.1.1 (no mailbox)\n"
            "Diagnostic-Code: smtp;550 Message was not accepted -- invalid mailbox\n"
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "fastmail: blanks and folds round parameters": (
        bounce(
            "Reporting-MTA: dns; mailmx.fastmail.example\nX-Postfix-Queue-ID: 1\n\n"
            "Final-Recipient: rfc822; u+tag@far.example\nOriginal-Recipient: rfc822;u+tag=x@far.example\n"
            "Action: failed\nStatus: 5.2.2\nRemote-MTA: dns; lmtp\n"
            "Diagnostic-Code: smtp; 552 5.2.2 Over quota SESSIONID=<x>\n",
            kind="multipart/report ;\n report-type = delivery-status ;  charset=x",
        ),
        [("u+tag=x@far.example", "failed", 552, "5.2.2")],
    ),
    "icloud: proofpoint, capital letters in every type": (
        bounce(
            "Reporting-MTA: DNS; PV50P00IM.icloud.example\n\nFINAL-RECIPIENT: RFC822; U@far.example\nACTION: FAILED\n"
            "STATUS: 5.1.6\nDIAGNOSTIC-CODE: SMTP; 550 5.1.6 recipient no longer on server: u@far.example\n",
            kind="Multipart/Report; Report-Type=Delivery-Status",
        ),
        [("U@far.example", "failed", 550, "5.1.6")],
    ),
    "barracuda: text behind the status": (
        bounce(
            "Reporting-MTA: dns; barracuda.far.example\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\n"
            "Status: 5.1.1 No such user\nDiagnostic-Code: smtp; 550 permanent failure for one or more recipients\n"
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "mailmarshal: no status, only an action": (
        bounce(
            "Reporting-MTA: dns; marshal.far.example\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\n"
            "Remote-MTA: dns; far.example\n"
        ),
        [("u@far.example", "failed", 550, None)],
    ),
    "courier: no report-type": (
        bounce(
            "Reporting-MTA: dns; courier.far.example\nArrival-Date: Tue, 01 Jul 2025 10:00:00 GMT\n\n"
            "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.0.0\nRemote-MTA: dns; [192.0.2.1]\n"
            "Diagnostic-Code: smtp; 550 User unknown.\n",
            kind="multipart/report",
        ),
        [("u@far.example", "failed", 550, "5.0.0")],
    ),
    "james: java dates and three blank lines": (
        bounce(
            "Reporting-MTA: dns; james.far.example\nReceived-From-MTA: dns; mail.near.example\n\n\n\n"
            "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.0.0\n"
            "Diagnostic-Code: X-James; javax.mail.SendFailedException: Invalid Addresses\n"
            "Last-Attempt-Date: Tue Jul 01 10:00:00 UTC 2025\n"
        ),
        [("u@far.example", "failed", 550, "5.0.0")],
    ),
    "lotus and gateways to x.400: an address that is none": (
        bounce(
            "Reporting-MTA: x400; /PRMD=x/ADMD=y/C=DE/\n\nFinal-Recipient: x400; /S=u/PRMD=x/ADMD=y/C=DE/\n"
            "Action: failed\nStatus: 5.1.0\n"
        ),
        [("/S=u/PRMD=x/ADMD=y/C=DE/", "failed", 550, "5.1.0")],
    ),
    "RFC 6533: a global report": (
        multipart(
            part("text/plain; charset=utf-8", "Undelivered.\n", "Content-Transfer-Encoding: 8bit\n"),
            part("message/global-delivery-status", "Reporting-MTA: dns; mx.far.example\n\n"
                 "Original-Recipient: utf-8; usér@far.example\nFinal-Recipient: utf-8; us\\x{E9}r@far.example\n"
                 "Action: failed\nStatus: 5.6.7\nLocalized-Diagnostic: fr; smtp; refusé\n"),
            part("message/global-headers", "From: né@near.example\nTo: usér@far.example\n"),
        ),
        [("usér@far.example", "failed", 550, "5.6.7")],
    ),
    "status part in base64": (
        bounce(
            base64.encodebytes(
                b"Reporting-MTA: dns; mx\r\n\r\nFinal-Recipient: rfc822; u@far.example\r\nAction: failed\r\n"
                b"Status: 5.1.1\r\n"
            ).decode(),
            header="Content-Transfer-Encoding: BASE64 \n",
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "status part in quoted-printable with soft breaks": (
        bounce(
            "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; u=40far.=\nexample\nAction: failed\nStatus:=205.1.1\n",
            header="Content-Transfer-Encoding: quoted-printable\nContent-Description: Delivery report\n",
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "content headers of the status part in another order, folded, with a name": (
        multipart(
            "Content-Description: Delivery report\nContent-Transfer-Encoding: 7bit\nContent-Disposition: attachment\n"
            'Content-Type: message/delivery-status;\n\tname="details.txt"\n\n'
            "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n",
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
    "a report about a report: only the outer one counts": (
        bounce(
            "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n",
            original=part(
                "message/rfc822",
                multipart(
                    part("message/delivery-status", "Reporting-MTA: dns; in\n\nFinal-Recipient: rfc822; x@y.example\n"
                         "Action: failed\nStatus: 5.0.0\n"),
                    boundary="b1-inner",
                ).decode(),
            ),
        ),
        [("u@far.example", "failed", 550, "5.1.1")],
    ),
}  # fmt: skip


# name -> message, some of what its record tells
COMPLAINTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "yahoo": (
        complaint(
            "Feedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 0.1\n"
            "Original-Mail-From: <news@near.example>\nOriginal-Rcpt-To: u@yahoo.example\n"
            "Received-Date: Tue, 01 Jul 2025 03:00:00 PDT\nReported-Domain: near.example\n"
            "Authentication-Results: mta.yahoo.example from=near.example; domainkeys=neutral (no sig);\n"
            "  dkim=pass (ok)\n",
            original=ORIGINAL,
        ),
        {
            "feedback_type": "abuse",
            "original_mail_from": "news@near.example",
            "original_rcpto_to": ["u@yahoo.example"],
            "arrival_date": "2025-07-01T10:00:00Z",
            "reported_domain": ["near.example"],
        },
    ),
    "comcast, a redacted recipient": (
        complaint(
            "Feedback-Type: abuse\nUser-Agent: ReturnPathFBL/1.0\nVersion: 1\nOriginal-Mail-From: news@near.example\n"
            "Original-Rcpt-To: 2c7a98f1@comcast.example\nArrival-Date: Tue, 01 Jul 2025 10:00:00 +0000\n"
            "Source-IP: 192.0.2.9\nAbuse-Type: complaint\nSubscription-Link: https://fbl.example/1\n"
        ),
        {"source_ip": "192.0.2.9", "extensions": {"abuse-type": ["complaint"],
                                                   "subscription-link": ["https://fbl.example/1"]}},
    ),
    "aol, the address replaced by a word": (
        complaint(
            "Feedback-Type: abuse\nUser-Agent: AOL SComp\nVersion: 0.1\nReceived-Date: Tue, 1 Jul 2025 06:00:00 EDT\n"
            "Source-IP: 192.0.2.9\nReported-Domain: near.example\nRedacted-Address: redacted\n"
            "Redacted-Address: redacted@\n",
            original=ORIGINAL.replace("u@far.example", "[redacted]") + "\nhi\n",
        ),
        {"arrival_date": "2025-07-01T10:00:00Z", "extensions": {"redacted-address": ["redacted", "redacted@"]}},
    ),
    "fastmail, no version": (
        complaint("Feedback-Type: abuse\nUser-Agent: FastMail/1.0\nOriginal-Mail-From: <>\nIncidents: 3\n"),
        {"version": None, "original_mail_from": "", "incidents": 3},
    ),
    "mail.ru, an odd report-type and the type in capitals": (
        complaint(
            "Feedback-Type: Abuse\nUser-Agent: Mail.Ru\nVersion: 1\nOriginal-Rcpt-To: <u@mail.example>\n",
            kind="multipart/report; report-type=abuse-report",
        ),
        {"feedback_type": "Abuse", "original_rcpto_to": ["u@mail.example"]},
    ),
    "opt-out, several uris": (
        complaint(
            "Feedback-Type: opt-out\nUser-Agent: x\nVersion: 1\nReported-URI: https://near.example/1\n"
            "Reported-URI: https://near.example/2\nRemoval-Recipient: u@far.example\n",
            kind="multipart/report",
        ),
        {"feedback_type": "opt-out", "reported_uri": ["https://near.example/1", "https://near.example/2"]},
    ),
    "DMARC failure report (RFC 6591)": (
        complaint(
            "Feedback-Type: auth-failure\nUser-Agent: OpenDMARC-Filter/1.4.2\nVersion: 1\nAuth-Failure: dmarc\n"
            "Authentication-Results: mx.far.example; dmarc=fail header.from=near.example\n"
            "Original-Envelope-Id: 4C8F72E0B\nOriginal-Mail-From: news@near.example\nSource-IP: 2001:db8::1 (mail)\n"
            "Reported-Domain: near.example\nArrival-Date: Tue, 01 Jul 2025 10:00:00 +0000 (UTC)\n",
        ),
        {"feedback_type": "auth-failure", "original_envelope_id": "4C8F72E0B",
         "extensions": {"auth-failure": ["dmarc"]}},
    ),
}  # fmt: skip


# what people and programs take for reports and the definition does not, with the reverse-path null or not
INFERRED = ("qmail (QSBMF)", "exim without DSN")  # but for these, from the null reverse-path
OTHERS: dict[str, bytes] = {
    "qmail (QSBMF)": (
        b"From: MAILER-DAEMON@far.example\nTo: news@near.example\nSubject: failure notice\n\n"
        b"Hi. This is the qmail-send program at far.example.\n\n<u@far.example>:\nSorry, no mailbox here by that name."
        b" (#5.1.1)\n\n--- Below this line is a copy of the message.\n\nReturn-Path: <news@near.example>\n"
    ),
    "exim without DSN": (
        b"X-Failed-Recipients: u@far.example\nContent-Type: text/plain; charset=us-ascii\n\n"
        b"This message was created automatically.\n\n  u@far.example\n    Unrouteable address\n"
    ),
    "hotmail (JMRP): the complaint is an attached message": (
        b"From: <staff@hotmail.example>\nX-HmXmrOriginalRecipient: <u@hotmail.example>\nSubject: complaint\n"
        + multipart(part("message/rfc822", "X-HmXmrOriginalRecipient: u@hotmail.example\n" + ORIGINAL + "\nhi\n"),
                    kind="multipart/mixed")
    ),
    "outlook: a read receipt": multipart(
        part("message/disposition-notification", "Final-Recipient: rfc822; u@far.example\nDisposition: m\n"),
        kind="multipart/report; report-type=disposition-notification",
    ),
    "exchange: multipart/alternative NDR": multipart(
        part("text/html", "<p>Delivery has failed"), kind="multipart/alternative"
    ),
    "a bounce forwarded in message/rfc822": multipart(
        part("text/plain", "FYI"),
        part("message/rfc822", bounce("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; u@far.example\n"
                                      "Action: failed\nStatus: 5.1.1\n", boundary="b2").decode()),
        kind="multipart/mixed",
    ),
    "TLS report (RFC 8460)": multipart(
        part("text/plain", "report"),
        part("application/tlsrpt+gzip", "H4sI"),
        kind="multipart/report; report-type=tlsrpt",
    ),
    "vacation": b"Auto-Submitted: auto-replied\nContent-Type: text/plain\n\nI am away.\n",
}  # fmt: skip


def scanned(message: bytes, **how: bool) -> Report:
    report = scan_report(message, **how)
    assert report is not None
    return report


def recorded(report: Report, message: bytes) -> list[OutOfBand]:
    return rfc3464.out_of_band(report, quoted_fields(report, message))


def enhanced(entry: OutOfBand) -> str | None:
    return entry.enhanced_code and ".".join(map(str, entry.enhanced_code.values()))


@pytest.mark.parametrize("name", BOUNCES)
def test_bounces_of_other_mailers_are_recorded(name: str) -> None:
    message, expected = BOUNCES[name]
    report = scanned(message)
    assert report.kind == "dsn"
    found = recorded(report, message)
    assert [(entry.recipient, entry.action, entry.code, enhanced(entry)) for entry in found] == expected
    assert rfc3464.parse(message) is not None


@pytest.mark.parametrize("name", COMPLAINTS)
def test_complaints_of_other_feedback_loops_are_recorded(name: str) -> None:
    message, expected = COMPLAINTS[name]
    assert scanned(message).kind == "arf"
    found = rfc5965.parse(message)
    assert found is not None
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("null_sender", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_a_report_is_none(name: str, null_sender: bool) -> None:
    report = find_report(OTHERS[name], null_sender=null_sender)
    assert report is None or report.kind == "unreadable" or (null_sender and name in INFERRED)


def test_a_bounce_of_opensmtpd_counts_with_a_null_reverse_path() -> None:
    status = (
        "Reporting-MTA: dns; osmtpd.far.example\n\nFinal-Recipient: rfc822; u@far.example\nAction: failed\n"
        "Status: 5.0.0\n"
    )
    message = bounce(status, kind="multipart/mixed", original=part("message/rfc822", ORIGINAL))
    assert scan_report(message) is None
    report = scanned(message, null_sender=True)
    assert report.mixed
    (entry,) = recorded(report, message)
    assert (entry.recipient, entry.added["multipart_mixed"]) == ("u@far.example", True)


def test_a_bounce_of_gmail_tells_all_it_says() -> None:
    message, _ = BOUNCES["gmail: CRLF, a diagnostic on several lines"]
    (entry,) = recorded(scanned(message), message)
    assert entry.content.startswith("5.1.1 The email account")
    assert entry.attempted_at == datetime(2025, 7, 1, 10, 0, 1, tzinfo=UTC)
    assert entry.added["remote_mta"].startswith("mx.far.example.")
    assert entry.added["original_return_path"] == "news@near.example"
    assert entry.added["original_headers"]["Subject"] == "July"


@pytest.mark.parametrize("name", BOUNCES)
def test_original_sender_and_recipient_are_told(name: str) -> None:
    message, expected = BOUNCES[name]
    row = command.row(name, message, scanned(message))
    if row["original_message_present"] and "global" not in name and "report about" not in name:
        assert row["original_sender"] == "news@near.example"
    if len(expected) == 1 and "global" not in name:
        assert row["original_recipient"] == expected[0][0]
