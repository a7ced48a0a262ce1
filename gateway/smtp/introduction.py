"""What a member of the fleet is told before a message: who we are (AUTH PLAIN, RFC 4616) and who our client is (XCLIENT
and XFORWARD, Postfix's XCLIENT_README and XFORWARD_README). Values in, commands out.

When which is said is gateway/smtp/client.py's business. No text for people has any of a password.
"""

from __future__ import annotations

import base64
from typing import Protocol

from gateway.config import ClientAddress, EgressPath, UpstreamTls

INSECURE = (UpstreamTls.OPPORTUNISTIC_INSECURE, UpstreamTls.REQUIRED_INSECURE)
_UNAVAILABLE = "[UNAVAILABLE]"


class Introduced(Protocol):
    """The client that a message came from. peer_name: what it said in EHLO or HELO, or ""."""

    peer_name: str
    peer_address: str
    protocol: str


class Unfit(Exception):
    """There is no AUTH with this server; the text says why."""


def auth_plain(path: EgressPath, password: str, extensions: dict[str, str], tls_active: bool) -> str:
    """The command, with the credentials of the path. Raises Unfit where they may not or cannot be told."""
    if not tls_active and not path.allow_smtp_auth_plain_without_tls:
        raise Unfit("there is no TLS, and a password in clear is for everybody (allow_smtp_auth_plain_without_tls)")
    unverified = tls_active and path.enable_tls in INSECURE
    if unverified and not path.allow_smtp_auth_plain_without_valid_certificate:
        raise Unfit("nobody looks at the certificate (allow_smtp_auth_plain_without_valid_certificate)")
    if "PLAIN" not in extensions.get("AUTH", "").upper().split():
        raise Unfit("AUTH PLAIN is not offered")
    credentials = f"\0{path.smtp_auth_plain_username}\0{password}"
    return f"AUTH PLAIN {base64.b64encode(credentials.encode()).decode()}\r\n"


def without_secrets(text: str, path: EgressPath, password: str, command: str) -> str:
    """A server's text, which may repeat what it was told."""
    for secret in (command.rpartition(" ")[2].strip(), password):
        if secret:
            text = text.replace(secret, "…")
    return text


def introduction(how: ClientAddress, client: Introduced | None, extensions: dict[str, str]) -> str:
    """The command that tells who the client is; "" where the server wants none. client: None for the gateway itself."""
    verb = how.value.upper()
    offered = extensions.get(verb, "").upper().split()
    if verb == "XCLIENT" and client is None:
        return ""
    known = {"NAME": _UNAVAILABLE, **(_of(client) if client is not None else _NOBODY)}
    told = [f"{name}={value}" for name, value in known.items() if name in offered]
    return f"{verb} {' '.join(told)}\r\n" if "ADDR" in offered else ""


_NOBODY = {"ADDR": _UNAVAILABLE, "HELO": _UNAVAILABLE, "SOURCE": "LOCAL"}


def _of(client: Introduced) -> dict[str, str]:
    address = client.peer_address
    return {
        "ADDR": f"IPV6:{address}" if ":" in address else address or _UNAVAILABLE,
        "PROTO": "ESMTP" if client.protocol.startswith("E") else "SMTP",  # all that there is
        "HELO": _xtext(client.peer_name)[:255] or _UNAVAILABLE,
        "SOURCE": "REMOTE",
    }


def _xtext(text: str) -> str:
    """RFC 3461 §4."""
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(one) if 33 <= one <= 126 and one not in b"+=" else f"+{one:02X}" for one in octets)
