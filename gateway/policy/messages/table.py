"""Every method of messages, and every object that they give, as one Lua state gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from gateway.config import Deployment
from gateway.logs.identity import new_message_id
from gateway.mail.headers import AddressHeader, Mailbox
from gateway.mail.message import Message
from gateway.policy import delivery_side
from gateway.policy.delivery_side import LeftToTheFleet
from gateway.policy.kumo import times
from gateway.policy.kumo.values import binary, string
from gateway.policy.messages import content, envelope, header, scheduling
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.modules import MISTAKES, Modules, parameters_of, refuse
from gateway.policy.objects import address_of
from gateway.policy.options import array_parts
from gateway.policy.outside import mail_auth
from gateway.policy.runtime import Exposed, Fault, LuaState, Unsupported, Waiting, read_fields
from gateway.policy.source import HERE

WITHOUT_EFFECT = ("save", "shrink", "shrink_data", "set_force_sync")
NOT_SUPPORTED = (
    "arc_seal", "dkim_sign",
)  # fmt: skip
LOOKING = ("get_", "from_", "to_", "parse_", "sender", "recipient", "queue_name")  # how methods that only look begin
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **envelope.FUNCTIONS,
    **header.FUNCTIONS,
    **content.FUNCTIONS,
    **scheduling.FUNCTIONS,
}


def _easy(argument: object) -> str | None:
    """An argument that is the same on both sides of the border: a name, mostly."""
    return argument if isinstance(argument, str) and argument.isascii() else None


def made(sender: Any, recipient: Any, body: Any) -> MessageHandle:
    """a message of the policy's own, to be looked at and worked on"""
    octets, to = binary(string(body, "make_message")), [address_of(recipient)]
    now = times.now().nanoseconds
    return MessageHandle(Message(new_message_id(now), address_of(sender), to, data=octets, received_at=now / 1e9))


class Messages:
    """For one Lua state. touched: called whenever Lua uses a message, which is no input of a decision. looked: told
    which method found what, with which arguments. deployment: where the policy runs.
    """

    def __init__(
        self,
        lua: Callable[[], LuaState],
        modules: Modules,
        touched: Callable[[], None],
        looked: Callable[[str, list[Any], Any], None],
        deployment: Deployment = HERE,
    ) -> None:
        self._has_fleet = deployment.fleet is not None
        self._lua = lua
        self._modules = modules
        self._touched = touched
        self._looked = looked
        modules.objects.add(MessageHandle)

    def exposed(self) -> dict[type, Exposed]:
        """For LuaHost.exposed."""
        return {
            MessageHandle: Exposed(self.methods(), name="message"),
            AddressHeader: Exposed({}, self._address_header, name="address header"),
            Mailbox: Exposed({}, read_fields(self._lua, header.MAILBOX_FIELDS), name="mailbox"),
        }

    def functions(self) -> dict[str, Callable[..., Any] | Waiting]:
        """Those of `kumo` that give messages."""
        return {"make_message": self._modules.bound("kumo.make_message", made)}

    def methods(self) -> dict[str, Callable[..., Any] | Waiting]:
        """Every method by its name in Lua."""
        found: dict[str, Callable[..., Any] | Waiting] = {
            name: self._method(name, function) for name, function in FUNCTIONS.items()
        }
        found |= {
            name: self._modules.bound(f"msg:{name}", self._coming(name, function), waits=True)
            for name, function in mail_auth.FUNCTIONS.items()
        }
        found |= {name: lambda *_: None for name in WITHOUT_EFFECT}
        found |= {name: self._missing(name) for name in NOT_SUPPORTED}
        return found

    def _missing(self, name: str) -> Callable[..., None]:
        if name not in delivery_side.METHODS:
            return Unsupported(f"msg:{name}")
        if self._has_fleet:
            return LeftToTheFleet(f"msg:{name}", lambda _: None)
        return Unsupported(f"msg:{name}", hint=delivery_side.HINT)

    def _method(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        count = parameters_of(function)[0] - 1
        looks = name.startswith(LOOKING)

        @wraps(function)
        def call(handle: object = None, *arguments: object) -> Any:
            message = self._message(name, handle)
            if len(arguments) != count:  # as Lua has it: those that are missing are nil, superfluous ones are dropped
                arguments = (*arguments, *([None] * count))[:count]
            lua = self._lua()
            given = [_easy(one) or array_parts(lua.plain(one)) for one in arguments]
            try:
                value = function(message, *given)
            except MISTAKES as error:
                refuse(f"msg:{name}", error)
            if looks:
                self._looked(name, given, value)
            return value if value is None else lua.value(value)

        return call

    def _coming(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A method that takes its time; what it does not get is nil."""

        def call(handle: Any, first: Any) -> Any:
            return function(self._modules.outside, self._message(name, handle), first)

        return call

    def _message(self, name: str, handle: object) -> Message:
        if not isinstance(handle, MessageHandle):
            raise Fault(f"msg:{name}: call it with a colon, on a message")
        if handle.message is None:
            raise Fault(f"msg:{name}: the event that the message came with is over")
        self._touched()
        return handle.message

    def _address_header(self, value: AddressHeader) -> Mapping[str, Any]:
        several = {"list": self._lua().value(value.mailboxes)}
        if len(value.mailboxes) != 1:
            return _OfSeveral(several)
        only = value.mailboxes[0]
        return {**{name: self._lua().value(get(only)) for name, get in header.MAILBOX_FIELDS.items()}, **several}


class _OfSeveral(dict[str, Any]):
    """The fields of a header that has several addresses, so that there is no answer to "its address"."""

    def get(self, key: str, default: Any = None) -> Any:
        if key in header.MAILBOX_FIELDS:
            raise Fault(f"the header has several addresses: .{key} is that of one, use .list")
        return super().get(key, default)
