"""Conformance: what in a message's content breaks the rules for mail on the wire, and putting it right.

Pure functions over content. Whoever asks decides which problems refuse a message and which are mended
(`msg:check_fix_conformance`). What can be mended in place is; only encodings need the MIME tree, which is Python's.
"""

from __future__ import annotations

import email
import email.encoders
import email.generator
import email.header
import email.policy
import io
import quopri
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message as MimeEntity
from enum import Flag, auto
from typing import Any

from gateway.mail import headers

MAX_LINE = 78  # octets without CRLF: RFC 5322 §2.1.1, "SHOULD be no more than"


class Nonconformance(Flag):
    """Ways in which a content does not conform; KumoMTA's names."""

    MISSING_COLON_VALUE = auto()  # a line of the header without a colon
    NON_CANONICAL_LINE_ENDINGS = auto()  # a CR or LF on its own (RFC 5321 §2.3.8)
    NAME_ENDS_WITH_SPACE = auto()  # "Subject : x", RFC 5322 §4.5
    LINE_TOO_LONG = auto()
    NEEDS_TRANSFER_ENCODING = auto()  # octets above 127
    MISSING_DATE_HEADER = auto()  # RFC 5322 §3.6
    MISSING_MESSAGE_ID_HEADER = auto()
    MISSING_MIME_VERSION = auto()  # or another one than 1.0 (RFC 2045 §4)
    INVALID_MIME_HEADERS = auto()  # a Content-… field that cannot be read


ENCODING = Nonconformance.LINE_TOO_LONG | Nonconformance.NEEDS_TRANSFER_ENCODING | Nonconformance.INVALID_MIME_HEADERS
_LONE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_FIELD = re.compile(rb"([!-9;-~]+)([ \t]*):")
_NAME = re.compile(rb"[!-9;-~]+")
_ENCODINGS = frozenset({"", "7bit", "8bit", "binary", "quoted-printable", "base64"})


def problems_in(content: bytes) -> Nonconformance:
    """What is wrong with a message. content: unstuffed."""
    found = Nonconformance(0)
    if _LONE.search(content):
        found |= Nonconformance.NON_CANONICAL_LINE_ENDINGS
        content = _LONE.sub(b"\r\n", content)
    if not content.isascii():
        found |= Nonconformance.NEEDS_TRANSFER_ENCODING
    if max(map(len, content.split(b"\r\n"))) > MAX_LINE:
        found |= Nonconformance.LINE_TOO_LONG
    names = set()
    for line in _header_lines(content):
        field = _FIELD.match(line)
        if field is None:
            found |= Nonconformance.MISSING_COLON_VALUE
            continue
        names.add(field[1].lower())
        if field[2]:
            found |= Nonconformance.NAME_ENDS_WITH_SPACE
    if b"date" not in names:
        found |= Nonconformance.MISSING_DATE_HEADER
    if b"message-id" not in names:
        found |= Nonconformance.MISSING_MESSAGE_ID_HEADER
    entity = _parsed(content)
    if str(entity.get("MIME-Version", "")).split("(")[0].strip() != "1.0":
        found |= Nonconformance.MISSING_MIME_VERSION
    if any(_unreadable(part) for part in entity.walk()):
        found |= Nonconformance.INVALID_MIME_HEADERS
    return found


def names_of(problems: Nonconformance) -> str:
    """Their names, as a policy writes them."""
    return "|".join(problem.name for problem in problems if problem.name)


def fixed(
    content: bytes,
    wrong: Nonconformance,
    *,
    date: Callable[[], str],
    message_id: Callable[[], str],
    charsets: Sequence[str] = (),
) -> bytes:
    """The content with these problems mended. date, message_id: values for missing fields.

    charsets: to be tried for 8-bit text that is not what it says; what none of them reads is lost.
    """
    if wrong & Nonconformance.NON_CANONICAL_LINE_ENDINGS:
        content = _LONE.sub(b"\r\n", content)
    if wrong & (Nonconformance.NAME_ENDS_WITH_SPACE | Nonconformance.MISSING_COLON_VALUE):
        content = _with_lines_mended(content, wrong)
    if wrong & ENCODING:
        content = _encoded(content, charsets)
    missing = []
    if wrong & Nonconformance.MISSING_DATE_HEADER:
        missing.append(f"Date: {date()}\r\n")
    if wrong & Nonconformance.MISSING_MESSAGE_ID_HEADER:
        missing.append(f"Message-ID: {message_id()}\r\n")
    if wrong & Nonconformance.MISSING_MIME_VERSION:
        content = _without_field(content, b"mime-version")
        missing.append("MIME-Version: 1.0\r\n")
    return _with_fields(content, "".join(missing).encode("ascii")) if missing else content


def _header_lines(content: bytes) -> list[bytes]:
    """The header's lines that are no continuations; CRLF only."""
    end = headers.block_end(content)
    block = content if end is None else content[:end]
    return [line for line in block.split(b"\r\n") if line and line[:1] not in b" \t"]


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """The header's lines and what follows, the empty line included."""
    end = headers.block_end(content)
    block, rest = (content, b"") if end is None else (content[:end], content[end:])
    return block.split(b"\r\n"), rest


def _with_lines_mended(content: bytes, wrong: Nonconformance) -> bytes:
    lines, rest = _split(content)
    kept: list[bytes] = []
    for line in lines:
        field = _FIELD.match(line)
        if not line or line[:1] in b" \t":
            kept.append(line)
        elif field is not None:
            kept.append(field[1] + line[field.end() - 1 :] if wrong & Nonconformance.NAME_ENDS_WITH_SPACE else line)
        elif not wrong & Nonconformance.MISSING_COLON_VALUE:
            kept.append(line)
        elif _NAME.fullmatch(line):
            kept.append(line + b": ")
        # what is no name either cannot be a field, and goes
    return b"\r\n".join(kept) + rest


def _without_field(content: bytes, name: bytes) -> bytes:
    lines, rest = _split(content)
    kept: list[bytes] = []
    dropping = False
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            field = _FIELD.match(line)
            dropping = field is not None and field[1].lower() == name
        if not dropping:
            kept.append(line)
    return b"\r\n".join(kept) + rest


def _with_fields(content: bytes, fields: bytes) -> bytes:
    """Behind the last field."""
    end = headers.block_end(content)
    if end is None:
        return fields + content
    return content[:end] + fields + content[end:]


# --- the MIME tree ----------------------------------------------------------------------------------------------------


def _parsed(content: bytes) -> MimeEntity:
    return email.message_from_bytes(content, policy=email.policy.compat32)


def _unreadable(part: MimeEntity) -> bool:
    """A Content-Type that is none, a transfer encoding that nobody knows, a multipart without its parts."""
    kind = part.get("Content-Type")
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if kind is not None and not re.match(r"\s*[!-'*+\-.0-9A-Z^-~]+/[!-'*+\-.0-9A-Z^-~]+\s*(;|\(|$)", str(kind), re.I):
        return True
    return encoding not in _ENCODINGS or (part.get_content_maintype() == "multipart" and not part.is_multipart())


def _encoded(content: bytes, charsets: Sequence[str]) -> bytes:
    """Written again in 7 bits and short lines: text quoted-printable, other parts base64, RFC 2047 in the header."""
    entity = _parsed(content)
    for part in entity.walk():
        _encode_fields(part, charsets)
        if part.is_multipart():
            if "Content-Transfer-Encoding" in part:
                part.replace_header("Content-Transfer-Encoding", "7bit")
        else:
            _encode_body(part, charsets)
    out = io.BytesIO()
    policy = email.policy.compat32.clone(linesep="\r\n", max_line_length=MAX_LINE)
    email.generator.BytesGenerator(out, mangle_from_=False, policy=policy).flatten(entity)
    return out.getvalue()


def _encode_fields(part: MimeEntity, charsets: Sequence[str]) -> None:
    fields: list[tuple[str, Any]] = list(part.items())
    for name in {name for name, _ in fields}:
        del part[name]
    for name, value in fields:
        text = str(value)
        if isinstance(value, email.header.Header):  # compat32's way of saying that it has 8-bit octets
            octets = b"".join(chunk for chunk, _ in email.header.decode_header(value))
            text = _text(octets, None, charsets)
        part[name] = text if text.isascii() else email.header.Header(text, "utf-8", header_name=name).encode()


def _encode_body(part: MimeEntity, charsets: Sequence[str]) -> None:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return
    is_text = part.get_content_maintype() == "text"
    lines_fit = max(map(len, payload.split(b"\r\n"))) <= MAX_LINE
    if payload.isascii() and lines_fit and is_text:
        return
    del part["Content-Transfer-Encoding"]
    if not is_text:
        part.set_payload(payload)
        email.encoders.encode_base64(part)
        return
    text = _text(payload, part.get_content_charset(), charsets)
    subtype = part.get_content_subtype()
    if "Content-Type" not in part:
        part["Content-Type"] = f"text/{subtype}"
    part.set_param("charset", "us-ascii" if text.isascii() else "utf-8")
    part.set_payload(_quoted_printable(text))
    part["Content-Transfer-Encoding"] = "quoted-printable"


def _text(payload: bytes, declared: str | None, charsets: Sequence[str]) -> str:
    for charset in ("utf-8" if declared in (None, "us-ascii") else declared, *charsets):
        with suppress(LookupError, UnicodeError):
            return payload.decode(charset)
    return payload.decode("utf-8", "replace")


def _quoted_printable(text: str) -> str:
    lines = re.sub(r"\r\n|\r", "\n", text).encode()
    return quopri.encodestring(lines).replace(b"\n", b"\r\n").decode("ascii")
