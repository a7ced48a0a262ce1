"""What header fields mean, as plain values, and the fields that say so: addresses, parameters, message ids, results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from email.headerregistry import Address
from email.message import Message as _Lenient
from typing import Any

import authres

from gateway.mail import headers

_MESSAGE_ID = re.compile(r"<([^<>\s]+)>")
Value = Any  # None, a text, or lists and dicts of texts


# --- reading ----------------------------------------------------------------------------------------------------------


def unstructured(value: str) -> str:
    """The text."""
    return value


def address_list(value: str) -> list[Value]:
    """Mailboxes {name, address = {local_part, domain}} and groups {name, entries}. Raises ValueError."""
    found: list[Value] = []
    for group in headers.parse_groups("the field", value):
        mailboxes = [_mailbox(address) for address in group.addresses]
        if group.display_name is None:
            found += mailboxes
        else:
            found.append({"name": group.display_name, "entries": mailboxes})
    return found


def _mailbox(address: Address) -> Value:
    parts = {"local_part": address.username, "domain": address.domain}
    return {"name": address.display_name or None, "address": parts}


def mailbox_list(value: str) -> list[Value]:
    """The same without groups. Raises ValueError."""
    found = address_list(value)
    if any("entries" in one for one in found):
        raise ValueError("a group stands where only mailboxes may")
    return found


def mailbox(value: str) -> Value:
    """The only one. Raises ValueError."""
    found = mailbox_list(value)
    if len(found) != 1:
        raise ValueError(f"expected one mailbox, found {len(found)}")
    return found[0]


def message_id(value: str) -> str:
    """Without its angle brackets. Raises ValueError."""
    match = _MESSAGE_ID.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"'{value}' is no message id")
    return match[1]


def message_id_list(value: str) -> list[str]:
    """Those that there are. Raises ValueError where there is none."""
    found = _MESSAGE_ID.findall(value)
    if not found:
        raise ValueError(f"'{value}' has no message id")
    return found


def mime_params(value: str) -> Value:
    """{value, parameters} (RFC 2045 §5.1, RFC 2231)."""
    message = _Lenient()
    message["X"] = value
    (first, _), *rest = message.get_params(header="x", unquote=True) or [("", "")]
    parameters = {name.lower(): _parameter(given) for name, given in rest}
    return {"value": first, "parameters": parameters}


def _parameter(given: str | tuple[str, str, str]) -> str:
    if isinstance(given, str):
        return given
    charset, _, text = given
    try:
        return text.encode("latin-1").decode(charset or "us-ascii")
    except (UnicodeError, LookupError):
        return text


def authentication_results(value: str) -> Value:
    """{serv_id, results} (RFC 8601 §2.2). Raises ValueError."""
    try:
        parsed = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {value}")
    except authres.AuthResError as error:
        raise ValueError(f"no authentication results: {error}") from None
    results = [
        {
            "method": result.method,
            "method_version": int(result.version) if str(result.version or "").isdigit() else None,
            "result": result.result,
            "reason": str(result.reason) if getattr(result, "reason", None) else None,
            "props": {f"{one.type}.{one.name}": str(one.value) for one in result.properties},
        }
        for result in parsed.results
        if not isinstance(result, authres.NoneAuthenticationResult)
    ]
    return {"serv_id": parsed.authserv_id, "results": results}


# by field, in lower case (what KumoMTA reads of each)
READERS: dict[str, Callable[[str], Value]] = {
    "authentication-results": authentication_results,
    **dict.fromkeys(("bcc", "cc", "to", "reply-to", "resent-bcc", "resent-cc", "resent-to"), address_list),
    **dict.fromkeys(("from", "resent-from"), mailbox_list),
    **dict.fromkeys(("sender", "resent-sender"), mailbox),
    **dict.fromkeys(("comments", "mime-version", "subject"), unstructured),
    **dict.fromkeys(("content-disposition", "content-transfer-encoding", "content-type"), mime_params),
    **dict.fromkeys(("content-id", "message-id"), message_id),
    "references": message_id_list,
}


# --- writing ----------------------------------------------------------------------------------------------------------


def written(name: str, value: Value) -> tuple[str, bool]:
    """The body of a field with this meaning, and whether it is a text that is still to be folded. A text has to be what
    can be read as the field. Raises ValueError.

    name: of the field, one of READERS.
    """
    if isinstance(value, str):
        try:
            READERS[name](value)
        except ValueError as error:
            raise ValueError(f"invalid header: {error}") from None
        return value, True
    writer = _WRITERS.get(READERS[name])
    if writer is None or not isinstance(value, dict | list):
        raise ValueError(f"{name}: expected a text")
    try:
        return writer(value), False
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{name}: the value has not the form that reading the field gives") from None


_FOLD = "\r\n\t"
_NO_ATOM = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~-]")  # RFC 5322 §3.2.3
_NO_QUOTED_TEXT = re.compile(r"[^!#-\[\]-~\s]")  # §3.2.4


def _written_mailbox(value: Value) -> str:
    name, address = value.get("name"), value["address"]
    if isinstance(address, dict):
        address = Address(username=address["local_part"], domain=address["domain"]).addr_spec
    return f"{_phrase(name)} <{address}>" if name else f"<{address}>"


def _phrase(name: str) -> str:
    if not name.isascii():
        return headers.encoded_words(name)
    if not _NO_ATOM.search(name):
        return name
    return '"' + _NO_QUOTED_TEXT.sub(r"\\\g<0>", name) + '"'


def _written_address(value: Value) -> str:
    if "entries" in value:
        return f"{value['name']}:{f',{_FOLD}'.join(map(_written_mailbox, value['entries']))};"
    return _written_mailbox(value)


def _written_list(value: Value) -> str:
    return f",{_FOLD}".join(map(_written_address, value if isinstance(value, list) else [value]))


_NO_TOKEN = re.compile(r"[^!#$%&'*+.0-9A-Z^_`a-z{|}~-]")  # RFC 2045 §5.1
_LONGEST_PARAMETER = 74


def written_parameters(value: Value, words: Iterable[str] = ()) -> str:
    """{value, parameters}, each parameter on a line of its own; in several where it is longer than that (RFC 2231 §3).

    words: names of parameters that are no ASCII as encoded words, not in the way of RFC 2231 §4.
    """
    lines = [str(value["value"])]
    for name, given in sorted((value.get("parameters") or {}).items()):
        if given.isascii():
            lines += _sections(name, [re.sub(r'[\\"]', r"\\\g<0>", char) for char in given], '"', '"')
        elif name in words:
            lines.append(f'{name}="{headers.encoded_words(given)}"')
        else:
            lines += _sections(name, [_escaped(char) for char in given], "UTF-8''", "")
    return f";{_FOLD}".join(lines)


def _escaped(char: str) -> str:
    if char.isascii() and char != "%" and not _NO_TOKEN.match(char):
        return char
    return "".join(f"%{octet:02X}" for octet in char.encode("utf-8", "surrogateescape"))


def _sections(name: str, pieces: list[str], opening: str, closing: str) -> list[str]:
    limit = _LONGEST_PARAMETER - len(name) - 4 - len(opening)
    sections = [""]
    for piece in pieces:
        if len(sections[-1]) >= limit:
            sections.append("")
        sections[-1] += piece
    mark = "" if closing else "*"
    numbered = [f"*{number}" for number in range(len(sections))] if len(sections) > 1 else [""]
    return [
        f"{name}{number}{mark}={opening if closing or not index else ''}{section}{closing}"
        for index, (number, section) in enumerate(zip(numbered, sections, strict=True))
    ]


def _written_ids(value: Value) -> str:
    return _FOLD.join(f"<{one.strip('<>')}>" for one in value)


_WRITERS: dict[Callable[[str], Value], Callable[[Value], str]] = {
    address_list: _written_list,
    mailbox_list: _written_list,
    mailbox: _written_mailbox,
    mime_params: written_parameters,
    message_id_list: _written_ids,
}
