"""Contents for questions that bring none: a letter, a bounce and a complaint by the letter of their RFCs."""

from __future__ import annotations

LETTER = "a letter"
BOUNCE = "a bounce (RFC 3464)"
COMPLAINT = "a complaint (RFC 5965)"

_HEAD = """\
From: <sender@client.example>
To: <recipient@client.example>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Message-ID: <explain@client.example>
MIME-Version: 1.0
"""
_ORIGINAL = """\
Content-Type: message/rfc822

From: <sender@client.example>
Subject: the original
Message-ID: <original@client.example>

It was short.
"""
_MADE = {
    LETTER: f"""{_HEAD}Subject: a letter

It says nothing.
""",
    BOUNCE: f"""{_HEAD}Subject: Undelivered
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

It could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.client.example

Final-Recipient: rfc822; gone@client.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 unknown

--b
{_ORIGINAL}--b--
""",
    COMPLAINT: f"""{_HEAD}Subject: A complaint
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b

Somebody complains.
--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: client/1
Version: 1

--b
{_ORIGINAL}--b--
""",
}
MESSAGES = {name: text.replace("\n", "\r\n").encode() for name, text in _MADE.items()}


def as_sent(content: bytes) -> bytes:
    """A file's octets as a client would send them: where all line ends are LF, they become CRLF."""
    return content if b"\r" in content else content.replace(b"\n", b"\r\n")
