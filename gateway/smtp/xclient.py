"""XCLIENT: a proxy that speaks SMTP names its client (Postfix's XCLIENT_README). Octets in, values or a refusal out.

Who may say it is the session's business, and what changes then its surroundings'.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from gateway.smtp import replies
from gateway.smtp.commands import Refused

OFFER = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"  # what EHLO shows to those who may

_UNAVAILABLE = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")  # RFC 3461 §4: xtext
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_NAME = re.compile(r"[A-Za-z0-9._\-]{1,255}")
_PORT = re.compile(r"\d{1,5}", re.ASCII)
_LOGIN = re.compile(r"(?<=\bLOGIN=)\S+", re.IGNORECASE)


class XclientRequested(NamedTuple):
    """XCLIENT by one who may. None: it says nothing of that; "": the proxy does not know it.

    client, server: the addresses of both ends. name: the client's in the DNS. helo: what it said in EHLO or HELO.
    """

    client: str | None = None
    client_port: int | None = None
    server: str | None = None
    server_port: int | None = None
    name: str | None = None
    helo: str | None = None
    protocol: str | None = None
    login: str | None = None


def without_login(command: str) -> str:
    """What may be shown of one: in LOGIN there may be a password, by somebody's mistake."""
    return _LOGIN.sub("[redacted]", command)


_FIELDS = {
    "ADDR": "client", "PORT": "client_port", "DESTADDR": "server", "DESTPORT": "server_port", "NAME": "name",
    "HELO": "helo", "PROTO": "protocol", "LOGIN": "login",
}  # fmt: skip


def parse_xclient(argument: bytes) -> XclientRequested:
    """Reads `NAME=value …`. Raises Refused."""
    found: dict[str, str | int | None] = {}
    try:
        for attribute in argument.decode("ascii").split():
            name, _, value = attribute.partition("=")
            field = _FIELDS[name.upper()]
            if field in found:
                raise ValueError
            found[field] = _read(field, value)
    except (KeyError, ValueError):  # a UnicodeDecodeError is one
        raise Refused(replies.XCLIENT_SYNTAX) from None
    if not found:
        raise Refused(replies.XCLIENT_SYNTAX)
    return XclientRequested(**found)  # type: ignore[arg-type]


def _read(field: str, value: str) -> str | int | None:
    """Raises ValueError."""
    if value.upper() in _UNAVAILABLE:
        return None if field.endswith("_port") else ""
    if not _XTEXT.fullmatch(value):
        raise ValueError
    text = _HEXCHAR.sub(lambda code: chr(int(code[1], 16)), value).encode("latin-1").decode()
    if field in ("client", "server"):
        return _address(text)
    if field.endswith("_port"):
        if not _PORT.fullmatch(text) or int(text) > 65535:
            raise ValueError
        return int(text)
    if field == "protocol":
        if text.upper() not in ("SMTP", "ESMTP"):
            raise ValueError
        return text.upper()
    if (field == "name" and not _NAME.fullmatch(text)) or len(text) > 255 or not text.isprintable():
        raise ValueError
    return text


def _address(text: str) -> str:
    """`IPV6:` stands before such an address in Postfix's own clients, and may be missing in others'."""
    if text[:5].upper() == "IPV6:":
        text = text[5:]
        if ":" not in text:
            raise ValueError
    if "%" in text:
        raise ValueError
    return str(ipaddress.ip_address(text))
