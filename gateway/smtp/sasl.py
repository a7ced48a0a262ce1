"""SASL (RFC 4422): PLAIN, LOGIN and EXTERNAL as exchanges of lines (RFC 4954 §4). Octets in, challenges or
what the client claims out.

Whether a claim is true is asked elsewhere. Nothing here keeps a response, and no exception or reply has any of it.
"""

from __future__ import annotations

import base64
import binascii

from gateway._fastpath import LINE_TOO_LONG
from gateway.smtp import replies
from gateway.smtp.commands import Refused, decode_plain
from gateway.smtp.events import AuthRequested, ExternalRequested
from gateway.smtp.replies import Reply

OFFER = "AUTH PLAIN LOGIN"
MECHANISMS = (b"PLAIN", b"LOGIN", b"EXTERNAL")
MAX_LINE = 12_288  # octets of a response, RFC 4954 §4
MAX_COMMAND = MAX_LINE + len("AUTH  ") + 20  # with an initial response, and the longest name that RFC 4422 §3.1 has


class SaslExchange:
    """One AUTH command. identities: those in the client's certificate, the first for one that names none."""

    def __init__(self, mechanism: bytes, identities: tuple[str, ...]) -> None:
        self._mechanism = mechanism
        self._identities = identities
        self._user: str | None = None

    def respond(self, response: bytes | None) -> Reply | AuthRequested | ExternalRequested:
        """What follows a response: a challenge, or what the client claims. response: in base64, "=" for an empty one
        that comes with the command; None where that brings none. Raises Refused.
        """
        if response is None:
            return replies.AUTH_USER if self._mechanism == b"LOGIN" else replies.AUTH_CONTINUE
        if self._mechanism == b"PLAIN":
            return AuthRequested(*decode_plain(response))
        text = _decoded(response)
        if self._mechanism == b"EXTERNAL":
            if text and text not in self._identities:
                raise Refused(replies.AUTH_FAILED)
            return ExternalRequested(text or self._identities[0])
        if not text:
            raise Refused(replies.AUTH_SYNTAX)
        if self._user is None:
            self._user = text
            return replies.AUTH_PASSWORD
        return AuthRequested(self._user, self._user, text)


def begin(
    argument: bytes, *, offered: bool, tls: bool, identities: tuple[str, ...]
) -> tuple[SaslExchange, bytes | None]:
    """Reads `mechanism [initial response]`. offered: credentials are asked for. identities: as for SaslExchange;
    without any, EXTERNAL is not offered. Raises Refused.
    """
    if not offered and not identities:
        raise Refused(replies.NOT_IMPLEMENTED)
    mechanism, _, initial = argument.partition(b" ")
    mechanism = mechanism.upper()
    if mechanism not in (MECHANISMS if identities else MECHANISMS[:2]) or not (offered or mechanism == b"EXTERNAL"):
        raise Refused(replies.AUTH_MECHANISM if mechanism else replies.SYNTAX)
    if not tls:
        raise Refused(replies.AUTH_REQUIRES_TLS)
    return SaslExchange(mechanism, identities), initial.strip(b" ") or None


def response(verb: int, line: bytes) -> bytes:
    """A line that answers a challenge. verb: as the framer has it. Raises Refused."""
    if verb == LINE_TOO_LONG:
        raise Refused(replies.AUTH_TOO_LONG)
    if line == b"*":  # RFC 4954 §4
        raise Refused(replies.AUTH_CANCELLED)
    return line


def offers(extensions: tuple[str, ...]) -> tuple[str, ...]:
    """What EHLO shows to a client whose certificate says who it is."""
    if OFFER in extensions:
        return tuple(f"{OFFER} EXTERNAL" if line == OFFER else line for line in extensions)
    return (*extensions, "AUTH EXTERNAL")


def _decoded(response: bytes) -> str:
    try:
        text = b"" if response == b"=" else base64.b64decode(response, validate=True)
        decoded = text.decode()
    except (binascii.Error, ValueError):
        raise Refused(replies.AUTH_SYNTAX) from None
    if "\0" in decoded:
        raise Refused(replies.AUTH_SYNTAX)
    return decoded
