"""The objects that policies hold: conn_meta, addresses and what kumo.make_* returns; messages are messages/table.py's.

Each is a Python object of which Lua sees the methods and fields listed here, and nothing else (runtime.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from gateway._fastpath import CidrSet
from gateway.config import Disposition
from gateway.policy.conn_meta import IDENTITY_KEYS, ConnMeta
from gateway.policy.kumo.values import string
from gateway.policy.options import array_parts, humantime
from gateway.policy.runs import Runs
from gateway.policy.runtime import Exposed, Fault, LuaState, inward, kind_of, outward
from gateway.smtp.address import AddressError, EnvelopeAddress, parse_address


class Made:
    """What a kumo.make_* function returned. maker: its name. options: as given, checked. value: the configuration.
    made_at: file and line, where somebody notes that. found: of what stood in a file of domains: the table of those,
    the domain and the listener that were asked about lately.
    """

    __slots__ = ("found", "made_at", "maker", "options", "value")

    def __init__(self, maker: str, options: dict[str, Any], value: object) -> None:
        self.maker = maker
        self.options = options
        self.value = value
        self.made_at: tuple[str, int] | None = None
        self.found: tuple[object, str, str] | None = None


def lua_option(value: Any) -> Any:
    """An option's value as Lua reads it back: what `make_*` would take for the same meaning."""
    if value is Disposition.LOG:
        return True
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, CidrSet | list | tuple):
        return [lua_option(item) for item in value]
    if isinstance(value, dict):
        return {key: lua_option(item) for key, item in value.items()}
    if isinstance(value, float):  # durations are the only options with fractions
        return humantime(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def name_of(value: object, function: str) -> str:
    """The name argument of a method; a number is its text. Raises Fault."""
    if isinstance(value, str):
        return inward(value)
    try:
        return string(value, function)
    except ValueError:
        raise Fault(f"{function}: expected a name, got a {kind_of(value)}") from None


def address_of(value: object) -> EnvelopeAddress:
    """An address argument, as a plain value: a text, or what an address object becomes. Raises Fault."""
    if isinstance(value, dict):
        value = value.get("email")
    try:
        text = string(value, "address")
    except ValueError:
        raise Fault(f"expected an address, got a {kind_of(value)}") from None
    try:
        return parse_address(text)
    except AddressError as error:
        raise Fault(f"'{text}' is not an address: {error}") from None


def storable(value: Any, function: str) -> Any:
    """A plain value to be kept as metadata. Raises ValueError for what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: storable(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item, function) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{function}: expected a value that JSON can hold, found a {getattr(value, 'kind', 'userdata')}")


class Objects:
    """Exposes the objects to one Lua state."""

    def __init__(self, lua: Callable[[], LuaState], runs: Runs) -> None:
        self._lua = lua
        self._runs = runs

    def exposed(self) -> dict[type, Exposed]:
        """For LuaHost.exposed."""
        return {
            ConnMeta: Exposed(
                {"get_meta": self._get_meta, "set_meta": self._set_meta, "auth_info": self._auth_info}, name="conn_meta"
            ),
            EnvelopeAddress: Exposed({}, _ADDRESS_FIELDS, name="address"),
            Made: Exposed({}, self._made_fields),
        }

    def _get_meta(self, connection: ConnMeta, name: object = None, *_: object) -> Any:
        key = name_of(name, "get_meta")
        value = connection.values.get(key)
        run = self._runs.running
        if run is not None and run.evaluation is not None:
            run.evaluation.read(connection, key, value)
        return value if value.__class__ is str and value.isascii() else self._lua().value(value)

    def _set_meta(self, connection: ConnMeta, name: object = None, value: object = None, *_: object) -> None:
        self._runs.unstable()
        try:
            stored = storable(array_parts(self._lua().plain(value)), "set_meta")
        except ValueError as error:
            raise Fault(str(error)) from None
        connection.values[name_of(name, "set_meta")] = stored

    def _auth_info(self, connection: ConnMeta, *_: object) -> Any:
        run = self._runs.running
        if run is not None and run.evaluation is not None:
            for key in ("received_from", *IDENTITY_KEYS):
                run.evaluation.read(connection, key, connection.values.get(key))
            if connection.identities:
                run.evaluation.stable = False  # the groups are in no value
        return self._lua().value(connection.auth_info())

    def _made_fields(self, made: Made) -> Mapping[str, Any]:
        return {name: self._lua().value(lua_option(value)) for name, value in made.options.items()}


_ADDRESS_FIELDS: dict[str, Callable[[EnvelopeAddress], str]] = {
    "user": lambda address: outward(address.user),
    "domain": lambda address: outward(address.domain),
    "email": lambda address: outward(address.email),
}
