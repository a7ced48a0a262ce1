"""The methods of messages about their header, and the addresses that are in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.mail import headers
from gateway.mail.headers import AddressHeader, HeaderField, Mailbox
from gateway.mail.message import Message
from gateway.policy.kumo.values import string, truth
from gateway.policy.options import BadOptions, Option, Schema, boolean, integer, list_of, map_of, mismatch, refusal
from gateway.policy.options import string as text


def _match(value: object) -> str:
    if value not in ("first", "last", "all"):
        raise mismatch("one of 'first', 'last', 'all'", value)
    return str(value)


def _words(name: str) -> list[str]:
    return name.lower().split("-")


TRANSFORMS: dict[str, Callable[[str], str]] = {
    "snake_case": lambda name: "_".join(_words(name)),
    "kebab_case": lambda name: "-".join(_words(name)),
    "camel_case": lambda name: _words(name)[0] + "".join(word.capitalize() for word in _words(name)[1:]),
    "pascal_case": lambda name: "".join(word.capitalize() for word in _words(name)),
}


def _transform(value: object) -> str:
    if value not in TRANSFORMS:
        raise mismatch("one of " + ", ".join(f"'{name}'" for name in TRANSFORMS), value)
    return str(value)


def _pattern(value: object) -> str:
    name = text(value)
    if "*" in name[:-1] or name == "*":
        raise refusal("'*' may only stand at the end of a name", "such as 'X-*'")
    return name


IMPORT_SPEC = Schema(
    {
        "name": Option(_pattern, required=True),
        "match": Option(_match, default="last"),
        "transform": Option(_transform, default="snake_case"),
        "target": Option(text),
        "remove": Option(boolean, default=False),
    }
)


RESULT = Schema(
    {
        "method": Option(text, required=True),
        "method_version": Option(integer()),
        "result": Option(text, required=True),
        "reason": Option(text),
        "props": Option(lambda value: {} if value == [] else map_of(text, "properties")(value), default={}),
    }
)

# --- reading --------------------------------------------------------------------------------------------------------


def get_first_named_header_value(message: Message, name: Any) -> str | None:
    """Decoded, on one line; nil where there is no such field."""
    return message.first_header(string(name, "get_first_named_header_value"))


def get_all_named_header_values(message: Message, name: Any) -> list[str]:
    """Likewise, of all fields of that name."""
    return message.all_headers(string(name, "get_all_named_header_values"))


def get_all_headers(message: Message) -> list[tuple[str, str]]:
    """Name and value of each field."""
    return message.headers()


def get_address_header(message: Message, name: Any) -> AddressHeader | None:
    """The addresses in a field; an error where it is malformed."""
    wanted = string(name, "get_address_header")
    value = message.first_header(wanted)
    return None if value is None else headers.parse_addresses(wanted, value)


def from_header(message: Message) -> AddressHeader | None:
    """Those of From."""
    return get_address_header(message, "From")


def to_header(message: Message) -> AddressHeader | None:
    """Those of To."""
    return get_address_header(message, "To")


# --- changing -------------------------------------------------------------------------------------------------------


def prepend_header(message: Message, name: Any, value: Any, encode: Any) -> None:
    """A field in front. encode: fold it, and use encoded words where they are needed."""
    message.prepend(_field(name, value, encode, "prepend_header"))


def append_header(message: Message, name: Any, value: Any, encode: Any) -> None:
    """A field at the end of the header."""
    field = HeaderField(string(name, "append_header"), _field(name, value, encode, "append_header"))
    message.replace_fields([*message.fields(), field])


def _field(name: Any, value: Any, encode: Any, function: str) -> bytes:
    return headers.field(string(name, function), string(value, function), encode=truth(encode))


def add_authentication_results(message: Message, server_id: Any, results: Any) -> None:
    """An Authentication-Results field in front (RFC 8601)."""
    from gateway.mail.authentication import results_field

    given: tuple[dict[str, Any], ...] = list_of(RESULT, "authentication results")([] if results == {} else results)
    message.prepend(results_field(string(server_id, "add_authentication_results"), list(given)))


def remove_all_named_headers(message: Message, name: Any) -> None:
    """All fields of that name."""
    _remove(message, [string(name, "remove_all_named_headers").lower()])


def remove_x_headers(message: Message, names: Any) -> None:
    """All X- fields, or those that are named."""
    _remove(message, _x_headers(message, names, "remove_x_headers"))


def _x_headers(message: Message, names: Any, function: str) -> list[str]:
    if names is None:
        return [field.name.lower() for field in message.fields() if field.name[:2].lower() == "x-"]
    if names != {} and not isinstance(names, list):
        raise ValueError(f"{function}: expected a list of names")
    return [string(name, function).lower() for name in names]


def _remove(message: Message, names: list[str]) -> None:
    kept = [field for field in message.fields() if field.name.lower() not in names]
    if len(kept) < len(message.fields()):
        message.replace_fields(kept)


# --- into metadata --------------------------------------------------------------------------------------------------


def import_x_headers(message: Message, names: Any) -> None:
    """X- fields, or those that are named: X-Campaign-Id becomes x_campaign_id."""
    wanted = _x_headers(message, names, "import_x_headers")
    for field in message.fields():
        if field.name.lower() in wanted:
            message.meta[field.name.lower().replace("-", "_")] = field.value


def import_headers(message: Message, specs: Any) -> None:
    """Fields by rules, of which the first that covers a field is its own."""
    rules: tuple[dict[str, Any], ...] = list_of(IMPORT_SPEC, "header specifications")(specs)
    for number, rule in enumerate(rules, 1):
        if "target" in rule and rule["name"].endswith("*"):
            raise BadOptions(
                trouble.inside("target").inside(number)
                for trouble in refusal("only a name without '*' may have a target").troubles
            )
    imported: dict[str, Any] = {}
    removed = []
    for field in message.fields():
        for rule in rules:
            if _covers(rule["name"], field.name):
                _import(imported, rule, field)
                if rule["remove"]:
                    removed.append(field.name.lower())
                break
    message.meta.update(imported)
    _remove(message, removed)


def _import(meta: dict[str, Any], rule: Mapping[str, Any], field: HeaderField) -> None:
    key = rule.get("target") or TRANSFORMS[rule["transform"]](field.name)
    match rule["match"]:
        case "first":
            meta.setdefault(key, field.value)
        case "last":
            meta[key] = field.value
        case "all":
            meta.setdefault(key, []).append(field.value)


def _covers(pattern: str, name: str) -> bool:
    pattern, name = pattern.lower(), name.lower()
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(get_first_named_header_value, get_all_named_header_values, get_all_headers),
        *(get_address_header, from_header, to_header, prepend_header, append_header, add_authentication_results),
        *(remove_all_named_headers, remove_x_headers, import_x_headers, import_headers),
    )
}

# --- addresses ------------------------------------------------------------------------------------------------------

MAILBOX_FIELDS: dict[str, Callable[[Mailbox], str | None]] = {
    "name": lambda box: box.name,
    "user": lambda box: box.user,
    "domain": lambda box: box.domain,
    "email": lambda box: box.email,
}
