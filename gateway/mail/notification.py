"""The notification that tells a sender who did not get the message (RFC 5321 §6.1): refused while others were served,
or given up in the spool; and who has it or waits for it, where the client asked for that (RFC 3461 §4.1).

It is a delivery status notification (RFC 3464) in a multipart/report (RFC 6522), internationalised where an address or
a header of the message is (RFC 6533). Pure functions from values to octets: when one is due, and how it travels, is
notifying.py's business.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address
from textwrap import wrap

from gateway.handover import HandOver, RecipientOutcome, Response
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.trace import rfc5322_date

_WIDTH = 76  # columns of text
_LONGEST_WORD = 240  # characters; what has longer ones is cut, so that no line comes near 998 octets (RFC 5322 §2.1.1)
_LONGEST_ANSWER = 2_000  # characters of what the fleet said
_LONGEST_HEADER = 64 * 1024  # octets of the message's header
_LONGEST_LINE = 998  # octets, RFC 5322 §2.1.1
_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,255}\Z")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Notice:
    """What became of telling a sender.

    result: "sent", "failed", "null_sender" (nobody to tell), "record" (the policy wants the record alone) or "unwanted"
    (the client said so, with NOTIFY), as in metrics and Bounce records. id: of the notification. response: what the
    fleet said to it.
    """

    def __init__(self, result: str, id: str | None = None, response: Response | None = None) -> None:
        self.result = result
        self.id = id
        self.response = response


class Action(Enum):
    """What is told of recipients. RFC 3464 §2.3.3 has the words, IANA's list of enhanced status codes the status.

    Its value: Action, Status where the next hop's answer names none that fits, and the words for people.
    """

    REFUSED = (
        "failed",
        "5.0.0",
        "Your message could not be delivered to the recipients below: they were refused",
        "for good. This does not concern its other recipients.",
    )
    EXPIRED = (
        "failed",
        "5.0.0",
        "Your message could not be delivered to the recipients below: it was not taken",
        "for too long. This does not concern its other recipients.",
    )
    RELAYED = (
        "relayed",
        "2.1.9",
        "Your message was taken for the recipients below by a server that sends no",
        "notifications of success. What becomes of it there you will not be told.",
    )
    UNTIMED = (
        "relayed",
        "2.1.9",
        "Your message was taken for the recipients below by a server that heeds no time",
        "for the delivery. Whether it comes in time you will not be told.",
    )
    TRACED = (
        "relayed",
        "2.0.0",
        "Your message was taken for the recipients below by a server that was told in",
        "which time it is to be delivered.",
    )
    DELAYED = (
        "delayed",
        "4.4.7",
        "Your message was not delivered to the recipients below in the time that you have",
        "set. It is tried on; you need not send it again.",
    )
    DELIVERED = ("delivered", "2.0.0", "Your message was delivered to the recipients below.", "")


# What the next hop answered is of another kind than what is told.
_OWN_STATUS = (Action.RELAYED, Action.UNTIMED, Action.TRACED, Action.DELAYED)


class Concerned:
    """A recipient that a notification is about. given: the address that the client used, where it is known. by: where
    it was. original: ORCPT, as a field has it, which counts for more; None where the client named none.
    """

    def __init__(
        self, outcome: RecipientOutcome, given: EnvelopeAddress | None, by: HandOver, original: str | None = None
    ) -> None:
        self.recipient = outcome.recipient
        self.answer = outcome.response
        self.given = given
        self.original = original or (None if given is None else _typed(given))
        self.remote = remote_mta(by.peer_name, by.peer_address)


def notification(  # noqa: PLR0913  # all that it says
    id: str,
    hostname: str,
    sender: EnvelopeAddress,
    refusals: Sequence[Concerned],
    header: bytes,
    *,
    arrived: int,
    now: int,
    action: Action = Action.REFUSED,
    envid: str | None = None,
    deliver_by: int | None = None,
    whole: bytes | None = None,
) -> bytes:
    """The whole message, with CRLF line ends; it needs SMTPUTF8 where the sender's address is not ASCII.

    id: its own. hostname: ours. sender: of the refused message, whom it goes to. header: the refused message's header.
    arrived, now: unix times of the refused message's end and of this. action: what became of all of them; EXPIRED where
    the fleet did not take the message for so long that nobody tries any more. envid: the client's name for the
    transaction, in words. deliver_by: when it wanted the message delivered, unix time. whole: the refused
    message, where it is to be returned with the notification.
    """
    as_it_is = not sender.email.isascii()  # then it goes by SMTPUTF8, which has 8BITMIME with it (RFC 6531 §3.1)
    parts = [
        _part("text/plain; charset=utf-8", _for_humans(hostname, refusals, action).encode(), as_it_is),
        _part(*_status(hostname, refusals, arrived, now, action, envid, deliver_by), as_it_is),
        _returned(header, whole, as_it_is),
    ]
    is_8bit = any(not part.isascii() for part in parts)
    boundary = _boundary(id, parts)
    opening = (
        f"Date: {rfc5322_date(now)}\r\n"
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{sender.email}>\r\n"
        f"Subject: {'Undelivered mail' if action.value[0] == 'failed' else 'Delivery report'}\r\n"
        f"Message-ID: <{id}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        + ("Content-Transfer-Encoding: 8bit\r\n" if is_8bit else "")  # RFC 2045 §6.4
        + f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'
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


def _for_humans(hostname: str, refusals: Sequence[Concerned], action: Action) -> str:
    """The first part, for whoever reads it."""
    lines = [
        f"This is the mail gateway {hostname}.",
        "",
        *filter(None, action.value[2:]),
    ]
    for refusal in refusals:
        given = refusal.given or refusal.recipient
        meant = "" if given == refusal.recipient else f" (given as <{given.email}>)"
        said_by = f"{refusal.remote} said: " if refusal.remote else ""
        lines += ["", f"<{refusal.recipient.email}>{meant}", *_wrapped(said_by + _words(refusal.answer), "    ")]
    return "\r\n".join([*lines, ""])


def _status(
    hostname: str,
    refusals: Sequence[Concerned],
    arrived: int,
    now: int,
    action: Action,
    envid: str | None,
    deliver_by: int | None,
) -> tuple[str, bytes]:
    """The second part's type and content, for programs (RFC 3464 §2)."""
    addresses = [each for refusal in refusals for each in (refusal.recipient.email, refusal.original or "")]
    international = not all(address.isascii() for address in addresses)
    lines = [] if envid is None else [f"Original-Envelope-Id: {envid}"]
    lines += [f"Reporting-MTA: dns; {hostname}", f"Arrival-Date: {rfc5322_date(arrived)}"]
    if deliver_by is not None:  # RFC 2852 §5
        lines.append(f"Deliver-By-Date: {rfc5322_date(deliver_by)}")
    for refusal in refusals:
        answer = refusal.answer
        lines.append("")
        if refusal.original is not None:
            lines.append(f"Original-Recipient: {refusal.original}")
        says = action not in _OWN_STATUS and answer.enhanced
        lines += [
            f"Final-Recipient: {_typed(refusal.recipient)}",
            f"Action: {action.value[0]}",
            f"Status: {says or action.value[1]}",
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


def _returned(header: bytes, whole: bytes | None, as_it_is: bool) -> bytes:
    """The third part: the message, or its header (RFC 6522 §3)."""
    if whole is None or _longest_line(whole) > _LONGEST_LINE:
        quoted = _quoted(header)
        return _part("text/rfc822-headers" if quoted.isascii() else "message/global-headers", quoted, as_it_is)
    kind = "message/rfc822" if header.isascii() else "message/global"
    # RFC 2046 §5.2.1: it is never encoded, so that it travels as it came
    return _part(kind, whole if whole.endswith(b"\r\n") else whole + b"\r\n", True)


def _longest_line(octets: bytes) -> int:
    return max(map(len, octets.split(b"\r\n")))


def _quoted(header: bytes) -> bytes:
    """The refused message's header: whole lines with CRLF, in UTF-8 where it is more than ASCII."""
    if len(header) > _LONGEST_HEADER:
        header = header[: header.rfind(b"\n", 0, _LONGEST_HEADER) + 1]
    text = _LINE_END.sub(b"\r\n", header).decode("utf-8", "replace")
    return text.encode() if not text or text.endswith("\r\n") else f"{text}\r\n".encode()


def _part(kind: str, content: bytes, as_it_is: bool) -> bytes:
    """One part, its line end included. as_it_is: 8-bit octets may travel; they are encoded otherwise."""
    encoding = "7bit" if content.isascii() else "8bit"
    if (encoding == "8bit" and not as_it_is) or _longest_line(content) > _LONGEST_LINE:
        encoding = "quoted-printable"
        content = b2a_qp(content.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content + b"\r\n"


def _boundary(id: str, parts: list[bytes]) -> str:
    """A line that is in none of the parts."""
    boundary = f"=_{id}"
    while any(boundary.encode() in part for part in parts):
        boundary += "_"
    return boundary
