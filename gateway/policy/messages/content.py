"""The methods of messages about their content: octets, parts, conformance, reports."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from gateway.mail import conformance, mime
from gateway.mail.conformance import Nonconformance
from gateway.mail.message import Message
from gateway.mail.mime import MimePart
from gateway.policy.kumo.values import binary, string
from gateway.policy.options import Option, Schema, boolean, list_of
from gateway.policy.options import string as text
from gateway.reports import rfc3464, rfc5965

CONFORMANCE = Schema(
    {
        "detect_encoding": Option(boolean, default=False),
        "include_encodings": Option(list_of(text, "character sets"), default=()),
        "exclude_encodings": Option(list_of(text, "character sets"), default=()),
    }
)


def get_data(message: Message) -> bytes:
    """The whole message."""
    return message.data()


def set_data(message: Message, data: Any) -> None:
    """Another message; lone CRs and LFs become CRLF."""
    message.set_data(binary(string(data, "set_data")))


def parse_rfc3464(message: Message) -> dict[str, Any] | None:
    """A bounce; nil where it is none."""
    return rfc3464.parse(message.data())


def parse_rfc5965(message: Message) -> dict[str, Any] | None:
    """A feedback report; nil where it is none."""
    return rfc5965.parse(message.data())


def parse_mime(message: Message) -> MimePart:
    """Its parts; what is changed there is set with `msg:set_data(tostring(part))`."""
    return mime.parse(message.data())


def append_text_plain(message: Message, content: Any) -> None:
    """More text at the end of the first text/plain, if there is one."""
    root = mime.parse(message.data())
    part = mime.structure(root).text_part
    if part is not None:
        part.replace_body(_octets(part.body) + binary(string(content, "append_text_plain")))
        message.set_data(root.raw())


def append_text_html(message: Message, content: Any) -> None:
    """More of the first text/html, if there is one: before the end of its body."""
    root = mime.parse(message.data())
    part = mime.structure(root).html_part
    if part is not None:
        octets = _octets(part.body)
        end = max(octets.rfind(b"</body>"), octets.rfind(b"</BODY>"))
        end = len(octets) if end < 0 else end
        part.replace_body(octets[:end] + binary(string(content, "append_text_html")) + octets[end:])
        message.set_data(root.raw())


def _octets(body: str | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.encode("utf-8", "surrogateescape")


def check_fix_conformance(message: Message, checks: Any, fixes: Any, settings: Any) -> str | None:
    """A text where one of `checks` is wrong with the message; else mends what `fixes` names."""
    refused, mended = _problems(checks), _problems(fixes)
    options = CONFORMANCE({} if settings is None else settings)
    found = conformance.problems_in(message.data())
    if found & refused:
        return "Message has conformance issues: " + conformance.names_of(found & refused)
    if found & mended:
        guesses = options["include_encodings"] if options["detect_encoding"] else []
        message.set_data(
            conformance.fixed(
                message.data(),
                found & mended,
                date=lambda: format_datetime(datetime.fromtimestamp(message.received_at, UTC)),
                message_id=lambda: f"<{message.id}@{message.sender.domain or 'localhost'}>",
                charsets=[name for name in guesses if name not in options["exclude_encodings"]],
            )
        )
    return None


def _problems(names: Any) -> Nonconformance:
    """Those named in a text such as "LINE_TOO_LONG|MISSING_DATE_HEADER". Raises ValueError."""
    found = Nonconformance(0)
    for name in filter(None, string(names, "check_fix_conformance").split("|")):
        if name not in Nonconformance.__members__:
            known = ", ".join(f"'{one}'" for one in sorted(Nonconformance.__members__))
            raise ValueError(f"invalid flag '{name}', possible values are {known}")
        found |= Nonconformance[name]
    return found


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(get_data, set_data, parse_mime, append_text_plain, append_text_html),
        *(parse_rfc3464, parse_rfc5965, check_fix_conformance),
    )
}
