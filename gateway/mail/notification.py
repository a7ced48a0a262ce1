"""The notification that tells a sender whom the fleet refused for good, while others were served (RFC 5321 §6.1).

It is a delivery status notification (RFC 3464) in a multipart/report (RFC 6522), internationalised where an address or
a header of the message is (RFC 6533). Pure functions from values to octets: when one is due, and how it travels, is
notifying.py's business.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Sequence
from ipaddress import ip_address
from textwrap import wrap

from gateway.handover import HandOver, RecipientOutcome, Response
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.trace import rfc5322_date

_WIDTH = 76  # columns of text
_LONGEST_WORD = 240  # characters; what has longer ones is cut, so that no line comes near 998 octets (RFC 5322 §2.1.1)
_LONGEST_ANSWER = 2_000  # characters of what the fleet said
_LONGEST_HEADER = 64 * 1024  # octets of the message's header
_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,255}\Z")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Notice:
    """What became of telling a sender.

    result: "sent", "failed", "null_sender" (nobody to tell) or "record" (the policy wants the record alone), as in
    metrics and Bounce records. id: of the notification. response: what the fleet said to it.
    """

    def __init__(self, result: str, id: str | None = None, response: Response | None = None) -> None:
        self.result = result
        self.id = id
        self.response = response


class Refusal:
    """A recipient that was refused. given: the address that the client used, where it is known. by: where it was."""

    def __init__(self, outcome: RecipientOutcome, given: EnvelopeAddress | None, by: HandOver) -> None:
        self.recipient = outcome.recipient
        self.answer = outcome.response
        self.given = given
        self.remote = remote_mta(by.peer_name, by.peer_address)


def notification(
    id: str,
    hostname: str,
    sender: EnvelopeAddress,
    refusals: Sequence[Refusal],
    header: bytes,
    *,
    arrived: int,
    now: int,
    in_time: bool = True,
) -> bytes:
    """The whole message, with CRLF line ends; it needs SMTPUTF8 where the sender's address is not ASCII.

    id: its own. hostname: ours. sender: of the refused message, whom it goes to. header: the refused message's header.
    arrived, now: unix times of the refused message's end and of this. in_time: the fleet refused them; False where
    it did not take the message for so long that nobody tries any more.
    """
    as_it_is = not sender.email.isascii()  # then it goes by SMTPUTF8, which has 8BITMIME with it (RFC 6531 §3.1)
    quoted = _quoted(header)
    parts = [
        _part("text/plain; charset=utf-8", _for_humans(hostname, refusals, in_time).encode(), as_it_is),
        _part(*_status(hostname, refusals, arrived, now), as_it_is),
        _part("text/rfc822-headers" if quoted.isascii() else "message/global-headers", quoted, as_it_is),
    ]
    boundary = _boundary(id, parts)
    opening = (
        f"Date: {rfc5322_date(now)}\r\n"
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{sender.email}>\r\n"
        "Subject: Undelivered mail\r\n"
        f"Message-ID: <{id}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'
        "\r\n"
    )
    mark = f"--{boundary}\r\n".encode()
    return b"".join([opening.encode(), *(mark + part for part in parts), f"--{boundary}--\r\n".encode()])


def remote_mta(name: str, address: str) -> str | None:
    """A server as Remote-MTA names it: its host name or address literal. None where there was none.

    name: as `mx_list` has it, with or without a port. address: its IP address, perhaps with a port.
    """
    if not name and not address:
        return None
    host = re.sub(r":\d+\Z", "", name) if name.count(":") == 1 or name.endswith("]") or "]:" in name else name
    for candidate in (host, host.strip("[]"), address, re.sub(r":\d+\Z", "", address).strip("[]")):
        try:
            found = ip_address(candidate)
        except ValueError:
            continue
        if candidate is address and _HOST.match(host):
            break
        return f"[IPv6:{found}]" if found.version == 6 else f"[{found}]"
    return host if _HOST.match(host) else None


def _for_humans(hostname: str, refusals: Sequence[Refusal], in_time: bool) -> str:
    """The first part, for whoever reads it."""
    lines = [
        f"This is the mail gateway {hostname}.",
        "",
        "Your message could not be delivered to the recipients below: "
        + ("they were refused" if in_time else "it was not taken"),
        f"{'for good' if in_time else 'for too long'}. This does not concern its other recipients.",
    ]
    for refusal in refusals:
        given = refusal.given or refusal.recipient
        meant = "" if given == refusal.recipient else f" (given as <{given.email}>)"
        said_by = f"{refusal.remote} said: " if refusal.remote else ""
        lines += ["", f"<{refusal.recipient.email}>{meant}", *_wrapped(said_by + _words(refusal.answer), "    ")]
    return "\r\n".join([*lines, ""])


def _status(hostname: str, refusals: Sequence[Refusal], arrived: int, now: int) -> tuple[str, bytes]:
    """The second part's type and content, for programs (RFC 3464 §2)."""
    addresses = [each for refusal in refusals for each in (refusal.recipient, refusal.given) if each is not None]
    international = not all(address.email.isascii() for address in addresses)
    lines = [f"Reporting-MTA: dns; {hostname}", f"Arrival-Date: {rfc5322_date(arrived)}"]
    for refusal in refusals:
        answer = refusal.answer
        lines.append("")
        if refusal.given is not None:
            lines.append(f"Original-Recipient: {_typed(refusal.given)}")
        lines += [
            f"Final-Recipient: {_typed(refusal.recipient)}",
            "Action: failed",
            f"Status: {answer.enhanced or '5.0.0'}",
        ]
        if refusal.remote is not None:
            lines.append(f"Remote-MTA: dns; {refusal.remote}")
        words = _words(answer)
        if not international:
            words = words.encode("ascii", "replace").decode()
        lines += _wrapped(f"Diagnostic-Code: smtp; {words}", "  ", first="")
        lines.append(f"Last-Attempt-Date: {rfc5322_date(now)}")
    kind = "message/global-delivery-status" if international else "message/delivery-status"
    return kind, "\r\n".join([*lines, ""]).encode()


def _typed(address: EnvelopeAddress) -> str:
    """An address with its type (RFC 3464 §2.1.2, RFC 6533 §3)."""
    return f"{'rfc822' if address.email.isascii() else 'utf-8'}; {address.email}"


def _words(answer: Response) -> str:
    """What the fleet said, on one line."""
    text = f"{answer.code} {answer.enhanced} {answer.content}" if answer.enhanced else f"{answer.code} {answer.content}"
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable[:_LONGEST_ANSWER].split())


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    """Lines of at most 76 columns, as far as the words allow. first: the first one's indent, if it is another."""
    text = re.sub(rf"(\S{{{_LONGEST_WORD}}})(?=\S)", r"\1 ", text)
    return wrap(
        text,
        _WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _quoted(header: bytes) -> bytes:
    """The refused message's header: whole lines with CRLF, in UTF-8 where it is more than ASCII."""
    if len(header) > _LONGEST_HEADER:
        header = header[: header.rfind(b"\n", 0, _LONGEST_HEADER) + 1]
    text = _LINE_END.sub(b"\r\n", header).decode("utf-8", "replace")
    return text.encode() if not text or text.endswith("\r\n") else f"{text}\r\n".encode()


def _part(kind: str, content: bytes, as_it_is: bool) -> bytes:
    """One part, its line end included. as_it_is: 8-bit octets may travel; they are encoded otherwise."""
    encoding = "7bit" if content.isascii() else "8bit"
    if (encoding == "8bit" and not as_it_is) or any(len(line) > 998 for line in content.split(b"\r\n")):
        encoding = "quoted-printable"
        content = b2a_qp(content.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content + b"\r\n"


def _boundary(id: str, parts: list[bytes]) -> str:
    """A line that is in none of the parts."""
    boundary = f"=_{id}"
    while any(boundary.encode() in part for part in parts):
        boundary += "_"
    return boundary
