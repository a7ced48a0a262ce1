"""Trace information (RFC 5321 §4.4): the Received header, the supplemental header, and counting hops.

Header text only; when it is added, and whether, is the transaction's business.
"""

from __future__ import annotations

from binascii import b2a_base64
from email.utils import formatdate
from typing import Any

from orjson import OPT_SORT_KEYS, dumps

from gateway._fastpath import Content, count_fields

MAX_HOPS = 100  # RFC 5321 §6.3: a large threshold, at least 100 Received headers
PRODUCT = "relay-gateway"
_HEAD = 16_384  # octets in which most header sections have their end
_MOST_HEAD = 1 << 20  # octets: a header section that is longer would hold up everybody else
_FOLD = 75  # octets of base64 on a line
_MARKER, _MARK = "_@_", "\\_/"  # tells a supplemental header from anybody else's X- header


def received_from(client: str, peer: str, hostname: str, local: str, protocol: str, tls: str) -> str:
    """The part of a Received header that is the same for all messages of a session.

    client: the name in EHLO/HELO, "" if there is none. peer, local: IP addresses. protocol: RFC 3848's "with" keyword.
    tls: "VERSION:CIPHER" or "".
    """
    tls_comment = f" ({tls}) " if tls else ""
    return (
        f"Received: from {client or 'unspecified'} ({peer})\r\n"
        f"  by {hostname} ({PRODUCT} {local}) \r\n"
        f"  with {protocol}{tls_comment} id "
    )


def received(start: str, message_id: str, recipient: str | None, unix_time: int, priority: int | None = None) -> bytes:
    """A whole Received header. start: received_from()'s; recipient: None where there are several, who may not be told
    of each other (RFC 5321 §7.2). priority: the client's, None where it has named none.
    """
    date = rfc5322_date(unix_time)
    if recipient is not None and priority is None:
        return f"{start}{message_id} for <{recipient}>;\r\n  {date}\r\n".encode()
    more = "" if recipient is None else f" for <{recipient}>"
    if priority is not None:  # RFC 6710 §4.1: a clause of its own
        more += f" PRIORITY {priority}"
    return f"{start}{message_id}{more};\r\n  {date}\r\n".encode()


def with_protocol(esmtp: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The "with" keyword of RFC 3848 and RFC 6531 §4.3."""
    if smtputf8:
        return f"UTF8SMTP{'S' if tls else ''}{'A' if authenticated else ''}"
    if not esmtp:
        return "SMTP"
    protocol = "ESMTPS" if tls else "ESMTP"
    return protocol + "A" if authenticated else protocol


def supplemental(name: str, recipient: str | None, meta: dict[str, Any], carried: tuple[str, ...]) -> bytes:
    """The header (X-KumoRef by default) that lets a later report be traced back to this message.

    recipient: None where there are several, as in received(). carried: names of metadata to carry along; missing ones
    are left out.
    """
    content: dict[str, Any] = {_MARKER: _MARK}
    if recipient is not None:
        content["recipient"] = recipient
    if carried:
        content |= {key: meta[key] for key in carried if key in meta}
    encoded = b2a_base64(dumps(content, option=OPT_SORT_KEYS), newline=False)
    if len(encoded) > _FOLD:
        encoded = b"\r\n\t".join([encoded[i : i + _FOLD] for i in range(0, len(encoded), _FOLD)])
    return b"".join([name.encode(), b": ", encoded, b"\r\n"])


def hops(content: Content) -> int:
    """How many Received headers a message has, in the first megabyte of its header section."""
    head = content.head(_HEAD)
    while len(head) < min(content.octets, _MOST_HEAD) and b"\r\n\r\n" not in head:
        head = content.head(2 * len(head))
    return count_fields(head, b"received")


class _Date:
    """The date that was written last: messages come many in a second."""

    def __init__(self) -> None:
        self.unix_time = -1
        self.text = ""


_last = _Date()


def rfc5322_date(unix_time: int) -> str:
    """RFC 5322 §3.3, in UTC: "Tue, 4 Aug 2026 12:41:30 +0000"."""
    if unix_time != _last.unix_time:
        day, _, rest = formatdate(unix_time).partition(", ")
        _last.text = f"{day}, {rest.lstrip('0')[:-5]}+0000"
        _last.unix_time = unix_time
    return _last.text
