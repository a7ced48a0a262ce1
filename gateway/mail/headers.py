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
from email.header import decode_header, make_header
from email.headerregistry import Address, Group, HeaderRegistry
from email.headerregistry import AddressHeader as _ParsedAddresses
from typing import Any

_BLANK_LINE = re.compile(rb"\A\r?\n|\n\r?\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_FOLDS = re.compile(rb"\r?\n[ \t]+")
_FOLD = "\r\n\t"
LINE = 75  # octets at which lines of a field are folded where they can be
LONGEST_LINE = 900  # where they are folded in any case
_WORD = ("=?UTF-8?q?", "?=")  # what stands around a text in an encoded word (RFC 2047 §2)
_LONGEST_WORD = 72
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

    def __str__(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")


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
    fails. What is no UTF-8 stays as it is, each octet that is none a surrogate, and only its folds go.
    """
    try:
        text = _BLANKS.sub(b" ", body).strip().decode()
    except UnicodeDecodeError:
        return _FOLDS.sub(b" ", body).strip().decode("utf-8", "surrogateescape")
    if "=?" in text:
        try:
            return str(make_header(decode_header(text)))
        except (HeaderParseError, LookupError, UnicodeError, ValueError):
            pass
    return text


def field(name: str, value: str, *, encode: bool = False) -> bytes:
    """A field with its CRLF. encode: it is a text, to be folded and written in RFC 2047 encoded words where needed.

    Raises ValueError for what would not be one field: a bad name, or a line break that is no folding.
    """
    if not _NAME.match(name):
        raise ValueError(f"'{name}' is no name of a header field")
    value = value.removesuffix("\r\n")
    if re.search(r"[\r\n]", value.replace("\r\n ", "").replace("\r\n\t", "")):
        raise ValueError(f"the value of header field '{name}' contains a line break")
    if encode:
        used = len(name) + 2
        value = wrapped(value, used=used) if value.isascii() or not is_utf8(value) else encoded_words(value, used)
    return f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")


def wrapped(text: str, soft: int = LINE, hard: int = LONGEST_LINE, *, used: int = 0) -> str:
    """Lines of at most `soft` characters where there is white space to break at, of `hard` in any case. used: of the
    first line, by what stands in front.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > min(soft if lines else soft - used, hard):
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while len(line) > hard:
            lines.append(line[:hard])
            line = line[hard:]
    return _FOLD.join([*lines, line] if line else lines)


def encoded_words(text: str, used: int = 0) -> str:
    """A text as RFC 2047 encoded words in UTF-8, of 72 characters at most, each on a line of its own. used: of the
    first line, by what stands in front.
    """
    words = [""]
    room = _LONGEST_WORD - len("".join(_WORD))
    for char in text:
        if char == " ":
            written = "_"
        elif char.isascii() and char.isprintable() and char not in "?=_":
            written = char
        else:
            written = "".join(f"={octet:02X}" for octet in char.encode())
        if words[-1] and len(words[-1]) + len(written) > (room if len(words) > 1 else room - used):
            words.append("")
        words[-1] += written
    return _FOLD.join(f"{_WORD[0]}{word}{_WORD[1]}" for word in words)


def is_utf8(text: str) -> bool:
    """Whether a text has no octets in it that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        return _json({"name": self.name, "address": self.email})


@dataclass(frozen=True, slots=True)
class AddressHeader:
    """The addresses of a From, To, … field, groups flattened."""

    mailboxes: tuple[Mailbox, ...]

    def __str__(self) -> str:
        return _json([{"Address": {"name": box.name, "address": box.email}} for box in self.mailboxes])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
