"""`kumo.mimepart` and the objects of `msg:parse_mime()`: the parts of a message, their headers and fields."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from gateway.mail import mime, structured
from gateway.mail.conformance import Nonconformance
from gateway.mail.headers import HeaderField
from gateway.mail.mime import HeaderMap, MimePart
from gateway.policy.kumo.values import Objects, binary, string, text_of, truth

_STABLE_DATE = "Tue, 1 Jul 2003 10:52:37 +0200"  # KumoMTA's, for tests that compare whole messages
_NAMES = (
    "bcc", "cc", "comments", "content_disposition", "content_id", "content_transfer_encoding", "content_type", "from",
    "message_id", "mime_version", "references", "reply_to", "resent_bcc", "resent_cc", "resent_from", "resent_sender",
    "resent_to", "sender", "subject", "to",
)  # fmt: skip


_MISSING = (
    Nonconformance.MISSING_DATE_HEADER | Nonconformance.MISSING_MESSAGE_ID_HEADER | Nonconformance.MISSING_MIME_VERSION
)


class PartBuilder:
    """Puts a message together of texts and attachments."""

    def __init__(self) -> None:
        self.texts: dict[str, MimePart] = {}
        self.attachments: list[MimePart] = []
        self.is_stable = False


# --- the module -----------------------------------------------------------------------------------------------------


def parse(text: Any) -> MimePart:
    """The parts of a message"""
    return mime.parse(binary(string(text, "parse")))


def new_text(content_type: Any, content: Any) -> MimePart:
    """A text of any type"""
    return mime.new_part(string(content_type, "new_text"), binary(string(content, "new_text")))


def new_text_plain(content: Any) -> MimePart:
    """A text/plain"""
    return new_text("text/plain", content)


def new_html(content: Any) -> MimePart:
    """A text/html"""
    return new_text("text/html", content)


def new_binary(content_type: Any, content: Any, options: Any = None) -> MimePart:
    """A part in base64; options: `{ file_name =, inline =, content_id = }`"""
    given = options if isinstance(options, dict) else {}
    unknown = set(given) - {"file_name", "inline", "content_id"}
    if unknown:
        raise ValueError(f"new_binary: unknown option '{min(unknown)}'")
    return mime.new_attachment(string(content_type, "new_binary"), binary(string(content, "new_binary")), given)


def new_multipart(content_type: Any, parts: Any, boundary: Any = None) -> MimePart:
    """A part with parts in it"""
    if not isinstance(parts, list) or not all(isinstance(part, MimePart) for part in parts):
        raise ValueError("new_multipart: expected a list of parts")
    chosen = secrets.token_urlsafe(16) if boundary is None else string(boundary, "new_multipart")
    return mime.new_multipart(string(content_type, "new_multipart"), parts, chosen)


def builder() -> PartBuilder:
    """What puts a message together: `text_plain`, `text_html`, `text_amp_html`, `attach`, `attach_part`, `build`"""
    return PartBuilder()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (parse, new_text, new_text_plain, new_html, new_binary, new_multipart, builder)
}
UNSTABLE = frozenset({"builder", "new_multipart"})

# --- parts ----------------------------------------------------------------------------------------------------------


def append_part(part: MimePart, other: Any) -> None:
    """One more part"""
    if not isinstance(other, MimePart):
        raise ValueError("append_part: expected a part")
    part.append(other)


def replace_body(part: MimePart, content: Any, content_type: Any = None) -> None:
    """Other content, of another type if that is given"""
    chosen = None if content_type is None else string(content_type, "replace_body")
    part.replace_body(binary(string(content, "replace_body")), chosen)


def get_simple_structure(part: MimePart) -> dict[str, Any]:
    """The first text of each kind, and all attachments"""
    found = mime.structure(part)
    attachments = [
        {
            "file_name": one.file_name,
            "inline": one.inline,
            "content_id": one.content_id,
            "content_type": one.content_type,
            "part": one.part,
        }
        for one in found.attachments
    ]
    return {
        "header_part": found.header_part,
        "text_part": found.text_part,
        "html_part": found.html_part,
        "amp_html_part": found.amp_html_part,
        "attachments": attachments,
    }


def rebuild(part: MimePart) -> MimePart:
    """The same, written anew as conforming mail"""
    from gateway.mail import conformance

    data = part.raw()
    wrong = conformance.problems_in(data) & ~_MISSING
    return mime.parse(conformance.fixed(data, wrong, date=str, message_id=str, charsets=[]) if wrong else data)


def set_body(part: MimePart, content: Any) -> None:
    """`part.body = …`"""
    part.replace_body(binary(string(content, "body")))


def _body(part: MimePart) -> Any:
    body = part.body
    return text_of(body) if isinstance(body, bytes) else body


# --- headers --------------------------------------------------------------------------------------------------------


def get_first_named(header: HeaderMap, name: Any) -> HeaderField | None:
    """The first field of that name"""
    return header.first(string(name, "get_first_named"))


def iterate(header: HeaderMap, name: Any = None) -> Callable[..., HeaderField | None]:
    """An iterator over all fields, or those of that name"""
    left = iter(header.named(None if name is None else string(name, "iter")))
    return lambda *_: next(left, None)


def prepend(header: HeaderMap, name: Any, value: Any) -> None:
    """A field in front, folded and encoded"""
    header.add(string(name, "prepend"), string(value, "prepend"), in_front=True)


def append(header: HeaderMap, name: Any, value: Any) -> None:
    """A field behind all others, folded and encoded"""
    header.add(string(name, "append"), string(value, "append"))


def remove_all_named(header: HeaderMap, name: Any) -> None:
    """All fields of that name"""
    header.remove(string(name, "remove_all_named"))


def _getter(field_name: str) -> Callable[[HeaderMap], Any]:
    def get(header: HeaderMap) -> Any:
        field = header.first(field_name)
        return None if field is None else structured.READERS[field_name](field.value)

    return get


def _setter(field_name: str) -> Callable[[HeaderMap, Any], None]:
    shown = "-".join(word.capitalize() for word in field_name.split("-")).replace("Id", "ID").replace("Mime", "MIME")

    def put(header: HeaderMap, value: Any) -> None:
        text = string(value, shown) if isinstance(value, int | float) else value
        body, is_text = structured.written(field_name, text)
        header.set(shown, body, encode=is_text)

    return put


def _value(field: HeaderField) -> Any:
    read = structured.READERS.get(field.name.lower(), structured.unstructured)
    return read(field.value)


def _reader(read: Callable[[str], Any]) -> Callable[[HeaderField], Any]:
    return lambda field: read(field.value)


# --- the builder ----------------------------------------------------------------------------------------------------


def _text(content_type: str) -> Callable[[PartBuilder, Any], None]:
    def put(building: PartBuilder, content: Any) -> None:
        building.texts[content_type] = new_text(content_type, content)

    return put


def attach(building: PartBuilder, content_type: Any, content: Any, options: Any = None) -> None:
    """One more attachment, as `new_binary` makes it"""
    building.attachments.append(new_binary(content_type, content, options))


def attach_part(building: PartBuilder, part: Any) -> None:
    """One more attachment"""
    if not isinstance(part, MimePart):
        raise ValueError("attach_part: expected a part")
    building.attachments.append(part)


def set_stable_content(building: PartBuilder, stable: Any) -> None:
    """For tests: the same boundaries and date every time"""
    building.is_stable = truth(stable)


def build(building: PartBuilder) -> MimePart:
    """The message"""
    texts = [building.texts[one] for one in ("text/plain", "text/x-amp-html", "text/html") if one in building.texts]
    if not texts and not building.attachments:
        texts = [new_text_plain("")]
    boundary = "{}-boundary" if building.is_stable else f"{{}}-{secrets.token_urlsafe(16)}"
    parts = texts if len(texts) < 2 else [new_multipart("multipart/alternative", texts, boundary.format("ma"))]
    parts = [*parts, *building.attachments]
    root = parts[0] if len(parts) == 1 else new_multipart("multipart/mixed", parts, boundary.format("mm"))
    root.headers.set("Mime-Version", "1.0")
    root.headers.set("Date", _STABLE_DATE if building.is_stable else formatdate(localtime=True))
    return root


# --- what Lua sees --------------------------------------------------------------------------------------------------

OBJECTS: Objects = {
    MimePart: (
        {function.__name__: function for function in (append_part, get_simple_structure, rebuild, replace_body)},
        {"body": _body, "headers": lambda part: part.headers, "id": lambda part: part.id},
    ),
    HeaderMap: (
        {
            **{function.__name__: function for function in (append, get_first_named, prepend, remove_all_named)},
            "iter": iterate,
            **{name: _getter(name.replace("_", "-")) for name in _NAMES},
            **{f"set_{name}": _setter(name.replace("_", "-")) for name in _NAMES},
        },
        {},
    ),
    HeaderField: (
        {},
        {
            "name": lambda field: field.name,
            "raw_value": lambda field: text_of(field.raw.partition(b":")[2].strip()),
            "value": _value,
            **{
                read.__name__: _reader(read)
                for read in (
                    *(structured.unstructured, structured.address_list, structured.mailbox_list),
                    *(structured.message_id, structured.message_id_list, structured.mime_params),
                    structured.authentication_results,
                )
            },
        },
    ),
    PartBuilder: (
        {
            "text_plain": _text("text/plain"),
            "text_html": _text("text/html"),
            "text_amp_html": _text("text/x-amp-html"),
            **{function.__name__: function for function in (attach, attach_part, set_stable_content, build)},
        },
        {},
    ),
}
