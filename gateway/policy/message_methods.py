"""The methods of messages in Lua (`msg:get_meta(…)` and so on), each a thin layer over gateway/mail/message.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import wraps
from typing import Any

from gateway.mail import conformance, headers
from gateway.mail.conformance import Nonconformance
from gateway.mail.headers import AddressHeader, HeaderField, Mailbox
from gateway.mail.message import Message
from gateway.policy.objects import address_of, name_of, plain_json
from gateway.policy.options import BadOptions, Option, Schema, boolean, list_of, mismatch, string
from gateway.policy.runtime import Exposed, Fault, LuaState, Unsupported, inward, kind_of, outward
from gateway.reports import rfc3464, rfc5965
from gateway.smtp.address import EnvelopeAddress

WITHOUT_EFFECT = ("save", "shrink", "shrink_data", "set_force_sync")
NOT_SUPPORTED = (
    "add_authentication_results", "append_text_html", "append_text_plain", "arc_seal", "arc_verify",
    "dkim_sign", "dkim_verify", "import_scheduling_header", "parse_mime", "set_due",
    "set_scheduling",
)  # fmt: skip


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


IMPORT_SPEC = Schema(
    {
        "name": Option(string, required=True),
        "match": Option(_match, default="last"),
        "transform": Option(_transform, default="snake_case"),
        "target": Option(string),
        "remove": Option(boolean, default=False),
    }
)

CONFORMANCE = Schema(
    {
        "detect_encoding": Option(boolean, default=False),
        "include_encodings": Option(list_of(string, "character sets"), default=()),
        "exclude_encodings": Option(list_of(string, "character sets"), default=()),
    }
)


class MessageHandle:
    """A message as Lua holds it, for as long as an event lasts.

    Lua's collector sees a few octets where a whole message hangs on, so it would keep messages for a long time.
    """

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message: Message | None = message

    def __enter__(self) -> MessageHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.message = None


class MessageMethods:
    """The methods of one Lua state's messages. Called with the message first; Lua's strings come and go as they are."""

    def __init__(self, lua: Callable[[], LuaState], touched: Callable[[], None]) -> None:
        """touched: called whenever Lua uses a message, which is no input of a decision."""
        self._lua = lua
        self._touched = touched

    def exposed(self) -> dict[type, Exposed]:
        """For LuaHost.exposed."""
        return {
            MessageHandle: Exposed(self.methods(), name="message"),
            AddressHeader: Exposed({}, self._address_header_fields, name="address header"),
            Mailbox: Exposed({}, _MAILBOX_FIELDS, name="mailbox"),
        }

    def methods(self) -> dict[str, Callable[..., Any]]:
        """Every method by its name in Lua."""
        found: dict[str, Callable[..., Any]] = {
            name.removeprefix("lua_"): self._guarded(name.removeprefix("lua_"), getattr(self, name))
            for name in dir(self)
            if name.startswith("lua_")
        }
        found |= {name: lambda *_: None for name in WITHOUT_EFFECT}
        found |= {name: Unsupported(f"msg:{name}") for name in NOT_SUPPORTED}
        return found

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        count = method.__code__.co_argcount - 2  # without self and message

        @wraps(method)
        def call(handle: object = None, *arguments: object) -> Any:
            if not isinstance(handle, MessageHandle):
                raise Fault(f"msg:{name}: call it with a colon, on a message")
            message = handle.message
            if message is None:
                raise Fault(f"msg:{name}: the event that the message came with is over")
            self._touched()
            if len(arguments) != count:  # as Lua has it: those that are missing are nil, superfluous ones are dropped
                arguments = (*arguments, *([None] * count))[:count]
            try:
                return method(message, *arguments)
            except ValueError as error:
                raise Fault(f"msg:{name}: {error}") from None

        return call

    # --- conformance --------------------------------------------------------------------------------------

    def lua_check_fix_conformance(self, message: Message, checks: object, fixes: object, settings: object) -> Any:
        """A text where one of `checks` is wrong with the message; else mends what `fixes` names."""
        refused, mended = _problems(checks), _problems(fixes)
        options = CONFORMANCE.read({} if settings is None else self._lua().plain(settings))
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

    # --- envelope and metadata ----------------------------------------------------------------------------

    def lua_id(self, message: Message) -> str:
        return message.id

    def lua_sender(self, message: Message) -> EnvelopeAddress:
        return message.sender

    def lua_set_sender(self, message: Message, address: object) -> None:
        message.sender = address_of(self._lua().plain(address))

    def lua_recipient(self, message: Message) -> Any:
        if len(message.recipients) == 1:
            return message.recipients[0]
        return self._lua().value(message.recipients) if message.recipients else None

    def lua_recipient_list(self, message: Message) -> Any:
        return self._lua().value(message.recipients)

    def lua_set_recipient(self, message: Message, recipient: object) -> None:
        if isinstance(recipient, str | EnvelopeAddress):
            message.recipients = [address_of(self._lua().plain(recipient))]
        else:
            items = self._lua().items(recipient)
            if not items:
                raise Fault("msg:set_recipient: expected at least one address")
            message.recipients = [address_of(self._lua().plain(item)) for item in items]

    def lua_get_meta(self, message: Message, name: object) -> Any:
        return self._lua().value(message.meta.get(name_of(name, "get_meta")))

    def lua_set_meta(self, message: Message, name: object, value: object = None) -> None:
        message.meta[name_of(name, "set_meta")] = plain_json(self._lua(), value, "set_meta")

    def lua_queue_name(self, message: Message) -> str:
        return outward(message.queue_name())

    def lua_num_attempts(self, message: Message) -> int:
        return message.attempts

    def lua_increment_num_attempts(self, message: Message) -> None:
        message.attempts += 1

    # --- content ------------------------------------------------------------------------------------------

    def lua_get_data(self, message: Message) -> bytes:
        return message.data()

    def lua_set_data(self, message: Message, data: object) -> None:
        message.set_data(_text(data).encode("latin-1"))

    def lua_parse_rfc3464(self, message: Message) -> Any:
        return self._lua().value(rfc3464.parse(message.data()))

    def lua_parse_rfc5965(self, message: Message) -> Any:
        return self._lua().value(rfc5965.parse(message.data()))

    # --- header -------------------------------------------------------------------------------------------

    def lua_get_first_named_header_value(self, message: Message, name: object) -> str | None:
        value = message.first_header(_text(name))
        return None if value is None else outward(value)

    def lua_get_all_named_header_values(self, message: Message, name: object) -> Any:
        return self._lua().value(message.all_headers(_text(name)))

    def lua_get_all_headers(self, message: Message) -> Any:
        return self._lua().value(message.headers())

    def lua_get_address_header(self, message: Message, name: object) -> AddressHeader | None:
        value = message.first_header(_text(name))
        return None if value is None else headers.parse_addresses(_text(name), value)

    def lua_from_header(self, message: Message) -> AddressHeader | None:
        return self.lua_get_address_header(message, "From")

    def lua_to_header(self, message: Message) -> AddressHeader | None:
        return self.lua_get_address_header(message, "To")

    def lua_prepend_header(self, message: Message, name: object, value: object, encode: object = False) -> None:
        message.prepend(headers.field(inward(_text(name)), inward(_text(value)), encode=encode is True))

    def lua_append_header(self, message: Message, name: object, value: object, encode: object = False) -> None:
        field = headers.field(inward(_text(name)), inward(_text(value)), encode=encode is True)
        message.replace_fields([*message.fields(), HeaderField(_text(name), field)])

    def lua_remove_all_named_headers(self, message: Message, name: object) -> None:
        self._remove(message, [_text(name).lower()])

    def lua_remove_x_headers(self, message: Message, names: object = None) -> None:
        self._remove(message, self._x_headers(message, names))

    def lua_import_x_headers(self, message: Message, names: object = None) -> None:
        wanted = self._x_headers(message, names)
        for field in message.fields():
            if field.name.lower() in wanted:
                message.meta[field.name.lower().replace("-", "_")] = field.value

    def lua_import_headers(self, message: Message, specs: object) -> None:
        try:
            rules: tuple[dict[str, Any], ...] = list_of(IMPORT_SPEC, "header specifications")(self._lua().plain(specs))
        except BadOptions as bad:
            raise Fault(f"msg:import_headers: {bad}") from None
        imported: dict[str, Any] = {}
        removed = []
        for field in message.fields():
            rule = next((rule for rule in rules if _covers(rule["name"], field.name)), None)
            if rule is not None:
                _import(imported, rule, field)
                if rule["remove"]:
                    removed.append(field.name.lower())
        message.meta.update(imported)
        self._remove(message, removed)

    def _address_header_fields(self, header: AddressHeader) -> Mapping[str, Any]:
        several = {"list": self._lua().value(header.mailboxes)}
        if len(header.mailboxes) != 1:
            return _Several(several)
        return {**{name: get(header.mailboxes[0]) for name, get in _MAILBOX_FIELDS.items()}, **several}

    def _x_headers(self, message: Message, names: object) -> list[str]:
        if names is not None:
            return [_text(name).lower() for name in self._lua().items(names)]
        return [field.name.lower() for field in message.fields() if field.name[:2].lower() == "x-"]

    def _remove(self, message: Message, names: list[str]) -> None:
        kept = [field for field in message.fields() if field.name.lower() not in names]
        if len(kept) < len(message.fields()):
            message.replace_fields(kept)


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


def _problems(names: object) -> Nonconformance:
    """Those named in a text such as "LINE_TOO_LONG|MISSING_DATE_HEADER". Raises Fault."""
    found = Nonconformance(0)
    for name in filter(None, _text(names).split("|")):
        if name not in Nonconformance.__members__:
            known = ", ".join(f"'{one}'" for one in sorted(Nonconformance.__members__))
            raise Fault(f"invalid flag '{name}', possible values are {known}")
        found |= Nonconformance[name]
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Fault(f"expected a string, got a {kind_of(value)}")
    return value


_MAILBOX_FIELDS: dict[str, Callable[[Mailbox], Any]] = {
    "name": lambda box: box.name and outward(box.name),
    "user": lambda box: outward(box.user),
    "domain": lambda box: outward(box.domain),
    "email": lambda box: outward(box.email),
}


class _Several(dict[str, Any]):
    """The fields of a header that has several addresses, so that there is no answer to "its address"."""

    def get(self, key: str, default: Any = None) -> Any:
        if key in ("name", "user", "domain", "email"):
            raise Fault(f"the header has several addresses: .{key} is that of one, use .list")
        return super().get(key, default)
