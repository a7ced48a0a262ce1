"""Header fields of a message (RFC 5322 §2.2): finding, reading and writing them. Pure functions over bytes.

Reads what real mail contains: LF or CRLF, blanks before the colon, raw 8-bit, lines that are no field at all.
Bodies and MIME structure are not touched here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header
from email.headerregistry import Address, Group, HeaderRegistry
from email.headerregistry import AddressHeader as _ParsedAddresses
from typing import Any

_BLANK_LINE = re.compile(rb"\A\r?\n|\n\r?\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_NAME = re.compile(r"[!-9;-~]+\Z")  # RFC 5322 §3.6.8: ftext
_parsed_header: Callable[[str, str], Any] = HeaderRegistry(use_default_map=False, default_class=_ParsedAddresses)


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field. name: as spelled. raw: all of its lines, line ends included."""

    name: str
    raw: bytes

    @property
    def value(self) -> str:
        """The body on one line, with RFC 2047 encoded words decoded where they can be."""
        return decoded(self.raw.partition(b":")[2])


def block_end(content: bytes) -> int | None:
    """Where the header block's last line ends, before the blank line; None where there is no blank line."""
    match = _BLANK_LINE.search(content)
    if match is None:
        return None
    return match.start() + 1 if match.group().startswith(b"\n") and match.end() - match.start() > 1 else match.start()


def parse(block: bytes) -> list[HeaderField]:
    """The fields of a header block, in order. Joined, their `raw` is the block."""
    groups: list[bytes] = []
    for line in _LINE.findall(block):
        if groups and line[:1] in (b" ", b"\t"):  # RFC 5322 §2.2.3
            groups[-1] += line
        else:
            groups.append(line)
    return [HeaderField(group.partition(b":")[0].strip().decode("latin-1"), group) for group in groups]


def decoded(body: bytes) -> str:
    """A field's body as text: on one line, each run of blanks a single one, RFC 2047 decoded; without that where it
    fails.
    """
    unfolded = _BLANKS.sub(b" ", body).strip()
    try:
        text = unfolded.decode()
    except UnicodeDecodeError:
        text = unfolded.decode("latin-1")
    if "=?" in text:
        try:
            return str(make_header(decode_header(text)))
        except (HeaderParseError, LookupError, UnicodeError, ValueError):
            pass
    return text


def field(name: str, value: str, *, encode: bool = False) -> bytes:
    """A field with its CRLF. encode: fold at 75 columns and use RFC 2047 encoded words where needed.

    Raises ValueError for what would not be one field: a bad name, or a line break that is no folding.
    """
    if not _NAME.match(name):
        raise ValueError(f"'{name}' is no name of a header field")
    value = value.removesuffix("\r\n")
    if re.search(r"[\r\n]", value.replace("\r\n ", "").replace("\r\n\t", "")):
        raise ValueError(f"the value of header field '{name}' contains a line break")
    if encode:
        charset = None if value.isascii() else "utf-8"
        value = Header(value, charset, maxlinelen=75, header_name=name).encode(linesep="\r\n")
    return f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address of a header. name: None where there is no display name."""

    name: str | None
    user: str
    domain: str

    @property
    def email(self) -> str:
        """local-part@domain"""
        return Address(username=self.user, domain=self.domain).addr_spec if self.domain else self.user

    def __str__(self) -> str:
        return json.dumps([{"name": self.name, "address": self.email}], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class AddressHeader:
    """The addresses of a From, To, … field, groups flattened."""

    mailboxes: tuple[Mailbox, ...]

    def __str__(self) -> str:
        addresses = [{"name": box.name, "address": box.email} for box in self.mailboxes]
        return json.dumps(addresses, ensure_ascii=False)


def parse_groups(name: str, value: str) -> tuple[Group, ...]:
    """The groups of an address header's body; a mailbox outside of any is a group without a name.

    Raises ValueError where it is malformed (RFC 5322 §3.4).
    """
    try:
        header = _parsed_header(name, value)
    except Exception as error:  # the standard library's parser fails in many ways on what is malformed
        raise ValueError(f"{name}: {error}") from error
    if header.defects:
        raise ValueError(f"{name}: {'; '.join(map(str, header.defects))}")
    groups: tuple[Group, ...] = header.groups
    return groups


def parse_addresses(name: str, value: str) -> AddressHeader:
    """Reads an address header's body. Raises ValueError where it is malformed, or has no address (RFC 5322 §3.4)."""
    addresses = [address for group in parse_groups(name, value) for address in group.addresses]
    if not addresses:
        raise ValueError(f"{name}: no address")
    return AddressHeader(tuple(Mailbox(one.display_name or None, one.username, one.domain) for one in addresses))
