"""The parts of a message (RFC 2045, RFC 2046): a tree that can be read, changed and written again.

What nobody has changed is written as it was read, octet by octet. What header fields mean is structured.py's.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from dataclasses import dataclass
from email.message import Message as _Lenient
from typing import Any

from gateway.mail import headers, structured
from gateway.mail.headers import HeaderField

DEEPEST = 100  # levels of parts; what is further in is content
MOST_PARTS = 10_000  # of one multipart
_LONGEST_LINE = 990  # octets, RFC 5322 §2.1.1
_LINE_END = re.compile(rb"\r?\n")


class HeaderMap:
    """The header of one part. changed: since it was read."""

    def __init__(self, fields: list[HeaderField]) -> None:
        self.fields = fields
        self.changed = False

    def first(self, name: str) -> HeaderField | None:
        """The first field of that name (any case)."""
        wanted = name.lower()
        return next((field for field in self.fields if field.name.lower() == wanted), None)

    def named(self, name: str | None) -> list[HeaderField]:
        """All fields, or those of that name."""
        return [field for field in self.fields if name is None or field.name.lower() == name.lower()]

    def add(self, name: str, value: str, *, in_front: bool = False) -> None:
        """Adds a field, folded and encoded. Raises ValueError for what would not be one."""
        field = HeaderField(name, headers.field(name, value, encode=True))
        self.fields.insert(0 if in_front else len(self.fields), field)
        self.changed = True

    def remove(self, name: str) -> None:
        """Takes all fields of that name away."""
        kept = [field for field in self.fields if field.name.lower() != name.lower()]
        self.changed = self.changed or len(kept) < len(self.fields)
        self.fields = kept

    def set(self, name: str, value: str, *, encode: bool = True) -> None:
        """Puts one field in the place of the first of that name, or behind all others. encode: it is a text."""
        found = self.first(name)
        self.changed = True
        field = HeaderField(name, headers.field(name, value, encode=encode))
        if found is None:
            self.fields.append(field)
            return
        place = self.fields.index(found)
        self.remove(name)
        self.fields.insert(place, field)

    def __str__(self) -> str:
        return self.raw().decode("utf-8", "surrogateescape")

    def raw(self) -> bytes:
        """The header as it stands in the message."""
        return b"".join(field.raw for field in self.fields)


class MimePart:
    """One part: a leaf with a body, or a multipart with parts in it.

    id: where it stood in the message when that was parsed, "" for the message itself. children: None for a leaf.
    """

    def __init__(
        self, fields: list[HeaderField], body: bytes = b"", children: list[MimePart] | None = None, id: str = ""
    ) -> None:
        """body: as it is transferred; of a multipart, nothing."""
        self.headers = HeaderMap(fields)
        self.id = id
        self.children = children
        self._body = body
        self._source: bytes | None = None  # how it was read
        self._known: list[MimePart] = []  # the children that were read

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def content_type(self) -> str:
        """In lower case, such as "text/plain", which is what a part is that says nothing (RFC 2045 §5.2)."""
        return _parsed(self.headers, "Content-Type").get_content_type()

    @property
    def charset(self) -> str:
        """The character set of a text."""
        return _parsed(self.headers, "Content-Type").get_content_charset("us-ascii")

    @property
    def file_name(self) -> str | None:
        """What an attachment is called (RFC 2183 §2.3)."""
        return _parsed(self.headers, "Content-Disposition", "Content-Type").get_filename()

    @property
    def disposition(self) -> str | None:
        """ "inline", "attachment", or whatever it says."""
        return _parsed(self.headers, "Content-Disposition").get_content_disposition()

    # --- content --------------------------------------------------------------------------------------------------

    @property
    def body(self) -> str | bytes:
        """The content without its transfer encoding: a text as such where its character set is known."""
        if self.children is not None:
            return self._multipart_body()
        octets = self._decoded()
        if self.content_type.startswith("text/"):
            try:
                return octets.decode(self.charset)
            except (UnicodeDecodeError, LookupError):
                pass
        return octets

    def _decoded(self) -> bytes:
        field = self.headers.first("Content-Transfer-Encoding")
        encoding = "" if field is None else field.value.strip().lower()
        if encoding == "base64":
            try:
                return base64.b64decode(b"".join(self._body.split()))
            except (binascii.Error, ValueError):
                return self._body
        return quopri.decodestring(self._body) if encoding == "quoted-printable" else self._body

    def replace_body(self, content: bytes, content_type: str | None = None) -> None:
        """Other content, with the transfer encoding that it needs."""
        self.children = None
        self._source = None
        is_known = self.headers.first("Content-Type") is not None
        if content_type is not None or not is_known:
            chosen = content_type or ("text/plain" if _is_text(content) else "application/octet-stream")
            self.headers.set("Content-Type", chosen)
        if self.content_type.startswith("text/") and _is_text(content):
            content = _LINE_END.sub(b"\r\n", content)
            self._set_charset("us-ascii" if content.isascii() else "utf-8")
            self._encode_text(content)
        else:
            self._encode(_base64(content), "base64")

    def _set_charset(self, charset: str) -> None:
        parsed = _parsed(self.headers, "Content-Type")
        known = parsed.get_content_charset()
        if known != charset and not (charset == "us-ascii" and known == "utf-8"):
            meant = structured.mime_params(str(parsed["Content-Type"]))
            meant["parameters"]["charset"] = charset
            self.headers.set("Content-Type", structured.written_parameters(meant), encode=False)

    def _encode_text(self, content: bytes) -> None:
        is_short = all(len(line) <= _LONGEST_LINE for line in content.split(b"\r\n"))
        if content.isascii() and is_short:
            self.headers.remove("Content-Transfer-Encoding")
            self._body = content
        else:
            encoded = quopri.encodestring(content.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
            self._encode(encoded, "quoted-printable")

    def _encode(self, body: bytes, encoding: str) -> None:
        self._body = body
        self.headers.set("Content-Transfer-Encoding", encoding)

    # --- writing --------------------------------------------------------------------------------------------------

    def append(self, part: MimePart) -> None:
        """One more part of a multipart."""
        self.children = [*(self.children or []), part]

    def raw(self) -> bytes:
        """The part as it is written."""
        if self._source is not None and not self.changed:
            return self._source
        body = self._body if self.children is None else self._multipart_body()
        return self.headers.raw() + b"\r\n" + body

    @property
    def changed(self) -> bool:
        """Since it was read."""
        if self._source is None or self.headers.changed:
            return True
        children = self.children or []
        return children != self._known or any(child.changed for child in children)

    def _multipart_body(self) -> bytes:
        boundary = str(_parsed(self.headers, "Content-Type").get_boundary("")).encode()
        if not boundary:
            raise ValueError("a part with parts in it needs a Content-Type with a boundary")
        assert self.children is not None
        parts = [b"--" + boundary + b"\r\n" + child.raw() + b"\r\n" for child in self.children]
        return b"".join(parts) + b"--" + boundary + b"--\r\n"

    def __str__(self) -> str:
        return self.raw().decode("utf-8", "surrogateescape")


def _parsed(header: HeaderMap, *names: str) -> _Lenient:
    """Fields as the standard library reads them, which takes what real mail has."""
    message = _Lenient()
    for name in names:
        field = header.first(name)
        if field is not None:
            message[name] = " ".join(field.raw.partition(b":")[2].decode("latin-1").split())
    return message


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(data: bytes, id: str = "", depth: int = 0) -> MimePart:
    """The tree of a message's parts."""
    end = headers.block_end(data)
    block, rest = (data, b"") if end is None else (data[:end], data[end:])
    body = _LINE_END.sub(b"", rest, count=1) if rest[:2] in (b"\r\n", b"\n\r") or rest[:1] == b"\n" else rest
    part = MimePart(headers.parse(block), body, id=id)
    boundary = _parsed(part.headers, "Content-Type").get_boundary()
    if boundary and part.content_type.startswith("multipart/") and depth < DEEPEST:
        pieces = _pieces(body, boundary.encode("utf-8", "replace"))
        if pieces:
            prefix = f"{id}." if id else ""
            part.children = [parse(piece, f"{prefix}{number}", depth + 1) for number, piece in enumerate(pieces)]
            part._known = list(part.children)
    part._source = data
    return part


def _pieces(body: bytes, boundary: bytes) -> list[bytes]:
    """What stands between the boundaries (RFC 2046 §5.1.1); a last one that is missing is at the end."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    pieces: list[bytes] = []
    start: int | None = None
    for match in delimiter.finditer(body):
        if start is not None:
            pieces.append(body[start : max(start, match.start())])
        start = None
        if match[1] or len(pieces) >= MOST_PARTS:
            break
        line_end = _LINE_END.match(body, match.end())
        start = match.end() if line_end is None else line_end.end()
    if start is not None:
        pieces.append(body[start:])
    return pieces


# --- the whole at a glance --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attachment:
    """One part that is no text of the message. inline: it is shown within it."""

    file_name: str | None
    inline: bool
    content_id: str | None
    content_type: str
    part: MimePart


@dataclass(slots=True)
class Structure:
    """What matters in a tree: the first text of each kind, and all attachments."""

    header_part: MimePart
    text_part: MimePart | None
    html_part: MimePart | None
    amp_html_part: MimePart | None
    attachments: list[Attachment]


_TEXTS = {"text/plain": "text_part", "text/html": "html_part", "text/x-amp-html": "amp_html_part"}


def structure(root: MimePart) -> Structure:
    """Walks the tree from its root."""
    found = Structure(root, None, None, None, [])
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.children is not None:
            waiting += reversed(part.children)
            continue
        place = _TEXTS.get(part.content_type)
        if place is not None and part.disposition != "attachment" and getattr(found, place) is None:
            setattr(found, place, part)
        else:
            found.attachments.append(_attachment(part))
    return found


def _attachment(part: MimePart) -> Attachment:
    field = part.headers.first("Content-ID")
    content_id = None if field is None else field.value.strip().removeprefix("<").removesuffix(">")
    return Attachment(part.file_name, part.disposition == "inline", content_id, part.content_type, part)


# --- new parts --------------------------------------------------------------------------------------------------------


def new_part(content_type: str, content: bytes) -> MimePart:
    """A leaf."""
    part = MimePart([])
    part.replace_body(content, content_type)
    return part


def new_multipart(content_type: str, parts: list[MimePart], boundary: str) -> MimePart:
    """A multipart of these parts."""
    part = MimePart([], children=list(parts))
    meant = structured.mime_params(content_type)
    meant["parameters"]["boundary"] = boundary
    part.headers.set("Content-Type", structured.written_parameters(meant), encode=False)
    return part


def new_attachment(content_type: str, content: bytes, options: dict[str, Any]) -> MimePart:
    """A part in base64. options: file_name, inline and content_id, each where it is known."""
    part = MimePart([])
    meant = structured.mime_params(content_type)
    file_name = options.get("file_name")
    if options:
        named = {} if file_name is None else {"filename": file_name}
        disposition = {"value": "inline" if options.get("inline") else "attachment", "parameters": named}
        if file_name is not None:
            meant["parameters"]["name"] = file_name
        part.headers.set("Content-Disposition", structured.written_parameters(disposition), encode=False)
    if options.get("content_id") is not None:
        part.headers.set("Content-ID", f"<{options['content_id']}>")
    # RFC 2231 is for filename; name is what older mailers read
    part.headers.set("Content-Type", structured.written_parameters(meant, words={"name"}), encode=False)
    part._encode(_base64(content), "base64")
    return part


def _base64(content: bytes) -> bytes:
    return base64.encodebytes(content).rstrip(b"\n").replace(b"\n", b"\r\n")
