"""Mailbox addresses as SMTP writes them (RFC 5321 §4.1.2, RFC 6531): parsing, normalising, nothing about headers.

A domain is normalised before anything looks it up: lower case, U-labels as A-labels, address literals in canonical
text. The local part is kept as given.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

MAX_DOMAIN = 255  # octets, RFC 5321 §4.5.3.1.2. Local parts have no limit of their own: VERP ones outgrow the 64
# octets of §4.5.3.1.1, which asks to accept longer ones where possible; the command line's limit bounds them.

# RFC 5321 §4.1.2: Local-part = Dot-string / Quoted-string, widened to UTF-8 by RFC 6531 §3.3
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*\Z")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"\Z')
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9\-_]*[a-z0-9])?\Z")  # "_" is no letter-digit-hyphen, but real hosts have it
_SOURCE_ROUTE = re.compile(r"@[^:,@\s]+(?:,@[^:,@\s]+)*:")  # RFC 5321 §4.1.2: A-d-l, accepted and dropped
_GENERAL_LITERAL = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]:[!-Z^-~]+\Z")


class AddressError(ValueError):
    """The text is no address."""


class EnvelopeAddress:
    """One address of the envelope. Immutable.

    email: the text that goes on the wire and into records. domain: what stands there behind the last "@", normalised;
    "" for the null reverse-path and <Postmaster>.
    """

    def __init__(self, email: str, domain: str) -> None:
        self.email = email
        self.domain = domain

    @property
    def local_part(self) -> str:
        """As given, with its quotes."""
        return self.email[: -len(self.domain) - 1] if self.domain else self.email

    @property
    def user(self) -> str:
        """The local part without quoting; "postmaster" for <Postmaster>, "" for the null reverse-path."""
        if not self.domain:
            return self.email.lower()
        local_part = self.local_part
        if local_part.startswith('"'):
            return re.sub(r"\\(.)", r"\1", local_part[1:-1])
        return local_part

    def __str__(self) -> str:
        return self.email

    def __repr__(self) -> str:
        return f"<{self.email}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvelopeAddress) and self.email == other.email

    def __hash__(self) -> int:
        return hash(self.email)

    def __reduce__(self) -> tuple[type[EnvelopeAddress], tuple[str, str]]:
        return EnvelopeAddress, (self.email, self.domain)


NULL_SENDER = EnvelopeAddress("", "")
POSTMASTER = EnvelopeAddress("Postmaster", "")


def parse_address(text: str) -> EnvelopeAddress:
    """Reads an address as policies and reports write it: with or without angle brackets; "" and "<>" are the null
    reverse-path; "Postmaster" in any case needs no domain.

    Raises AddressError.
    """
    text = text.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    if not text:
        return NULL_SENDER
    return parse_mailbox(text)


def parse_mailbox(text: str) -> EnvelopeAddress:
    """Reads what stands between the angle brackets of a path, which must not be empty.

    Raises AddressError. RFC 5321 §4.1.2.
    """
    route = _SOURCE_ROUTE.match(text)
    if route is not None:
        text = text[route.end() :]
    if text.lower() == "postmaster":  # RFC 5321 §4.1.1.3
        return POSTMASTER
    local_part, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("no domain")
    if not (_DOT_STRING.match(local_part) or _QUOTED_STRING.match(local_part)):
        raise AddressError("malformed local part")
    domain = normalise_domain(domain)
    return EnvelopeAddress(f"{local_part}@{domain}", domain)


@lru_cache(maxsize=4096)
def normalise_domain(text: str) -> str:
    """The one spelling of a domain or address literal that lookups use.

    Raises AddressError for what is neither. RFC 5321 §4.1.2, §4.1.3; RFC 5890 §2.3.2.1.
    """
    if text.startswith("["):
        return _normalise_literal(text)
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode()
        except idna.IDNAError as error:
            raise AddressError("not a valid internationalised domain") from error
    text = text.lower()
    if len(text) > MAX_DOMAIN:
        raise AddressError("domain is longer than 255 octets")
    for label in text.split("."):
        if len(label) > 63 or not _LABEL.match(label):
            raise AddressError("malformed domain")
    return text


def _normalise_literal(text: str) -> str:
    if not text.endswith("]"):
        raise AddressError("address literal without closing bracket")
    content = text[1:-1]
    if "%" in content and content[:5].lower() == "ipv6:":  # a zone (RFC 4007 §11), which Python takes
        raise AddressError("malformed address literal")
    try:
        if content[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(content[5:])}]"
        if ":" not in content:
            return f"[{ipaddress.IPv4Address(content)}]"
    except ipaddress.AddressValueError as error:
        raise AddressError("malformed address literal") from error
    if not _GENERAL_LITERAL.match(content):
        raise AddressError("malformed address literal")
    return text
