"""Checked reading of option tables: readers for single values, Schema for tables of named options.

Works on plain Python values (Lua tables arrive as dicts), so that a policy's running calls and the static look at
its text share the same rules and words. Which options exist is schemas.py's business. Every mistake is worded
twice: for people reading `relay-gateway check`, and in KumoMTA's words for policies that match on them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from gateway._fastpath import CidrError, CidrSet

_SECRETS = frozenset({"smtp_auth_plain_password", "key_data"})  # options whose values no message shows
Reader = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One mistake. text: for people. serde: KumoMTA's words. keys: where in the table. hint: what to do instead.

    computed: nobody knows, because the policy computes the value. refused: it is none for KumoMTA.
    """

    text: str
    serde: str
    hint: str = ""
    keys: tuple[object, ...] = ()
    computed: bool = False
    refused: bool = False

    def inside(self, key: object) -> Trouble:
        """The same mistake seen from one table further out."""
        return replace(self, keys=(key, *self.keys))

    def __str__(self) -> str:
        return f"{path_of(self.keys)}: {self.text}" if self.keys else self.text


def path_of(keys: Iterable[object]) -> str:
    """Where in a table something is, as Lua would write it."""
    path = ""
    for key in keys:
        if isinstance(key, str) and key.isidentifier():
            path += f".{key}" if path else key
        else:
            path += f"[{key}]" if isinstance(key, int) else f"['{key}']"
    return path


class BadOptions(Exception):
    """A table is not what its function takes. `troubles` has all mistakes, never empty."""

    def __init__(self, troubles: Iterable[Trouble]) -> None:
        self.troubles = tuple(troubles)
        super().__init__("; ".join(map(str, self.troubles)))

    def deserialize_error(self, table: object) -> str:
        """KumoMTA's message for the first mistake, without what is nobody's business."""
        return f"deserialize error: {self.troubles[0].serde}, while processing {as_json(_without_secrets(table))}"


@dataclass(frozen=True, slots=True)
class Opaque:
    """Stands for a Lua value that no option takes: a function, a coroutine, an object."""

    kind: str


UNKNOWN = Opaque("value")  # in a table that is only looked at: a value that the policy computes; every reader passes it


def as_json(value: object) -> str:
    """Compact JSON as KumoMTA prints tables in its messages."""
    return json.dumps(sequences(value), separators=(",", ":"), ensure_ascii=False, default=lambda v: v.kind)


def _without_secrets(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: "…" if key in _SECRETS else _without_secrets(item) for key, item in value.items()}


def sequences(value: object) -> object:
    """A value with every table that is a sequence as a list."""
    if not isinstance(value, dict):
        return value
    items = {key: sequences(item) for key, item in value.items()}
    if items and list(items) == list(range(1, len(items) + 1)):
        return list(items.values())
    return {str(key): item for key, item in items.items()}


def array_parts(value: object) -> object:
    """A value with every table that has an array part as the list that this is; what else is in such a table goes."""
    if not isinstance(value, dict):
        return value
    if value.get(1) is not None and True not in map(_is_boolean, value):
        return [array_parts(value[number]) for number in range(1, _border(value))]
    return {str(key): array_parts(item) for key, item in value.items()}


def _is_boolean(key: object) -> bool:
    return isinstance(key, bool)


def _border(table: dict[Any, Any]) -> int:
    """The first number from 1 on that is no key."""
    number = 1
    while number in table:
        number += 1
    return number


def as_table(value: object) -> object:
    """The opposite: a value with every list as the table of a sequence, as readers take it."""
    if isinstance(value, list):
        return {index: as_table(item) for index, item in enumerate(value, 1)}
    return {key: as_table(item) for key, item in value.items()} if isinstance(value, dict) else value


def mismatch(expected: str, found: object) -> BadOptions:
    """A value of the wrong type, or a right one with the wrong content."""
    kind = "value" if isinstance(found, str) and " one of " in expected else "type"
    serde = f"invalid {kind}: {_serde(found)}, expected {expected}"
    return BadOptions([Trouble(f"expected {expected}, found {_described(found)}", serde, computed=found is UNKNOWN)])


def refusal(text: str, hint: str = "") -> BadOptions:
    """A mistake whose words are the same for everybody."""
    return BadOptions([Trouble(text, text, hint)])


def _described(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the string {json.dumps(value, ensure_ascii=False)}"
        case int() | float():
            return f"the number {value}"
        case dict():
            return "a table"
        case Opaque():
            return f"a {value.kind}"
    return "nil"


def _serde(value: object) -> str:
    match value:
        case bool():
            return f"boolean `{str(value).lower()}`"
        case str():
            return f"string {json.dumps(value, ensure_ascii=False)}"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case dict():
            return "sequence" if isinstance(sequences(value), list) else "map"
    return getattr(value, "kind", "unit value")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean 'x'?" for the nearest known word, or ""."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.7) or [name for name in known if name.startswith(f"{word}_")]
    return f"did you mean '{near[0]}'?" if near else ""


# --- readers of single values -----------------------------------------------------------------------------


def boolean(value: object) -> bool:
    """true or false, nothing that looks like it."""
    if not isinstance(value, bool):
        raise mismatch("a boolean", value)
    return value


def string(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise mismatch("a string", value)
    return value


def header_name(value: object) -> str:
    """The name of a header field (RFC 5322 §2.2)."""
    if not (isinstance(value, str) and re.fullmatch(r"[!-9;-~]+", value)):
        raise mismatch("the name of a header field", value)
    return value


def one_line(value: object) -> str:
    """A text for a line of SMTP."""
    if not (isinstance(value, str) and value.isprintable()):
        raise mismatch("a text without control characters", value)
    return value


def host_name(value: object) -> str:
    """What a host calls itself (RFC 5321 §4.1.3): a domain name in ASCII, or an address literal."""
    if not (isinstance(value, str) and re.fullmatch(r"\w[\w.-]{0,254}|\[[\w.:]+\]", value, re.ASCII)):
        raise mismatch("a host name in ASCII such as 'mx.example.com'", value)
    return value


MOST = 10**15  # what every C type behind an option holds, with room for sums and for a time to be added
LONGEST = 100 * 365 * 86400.0  # seconds; in nanoseconds, added to a time of day, it still fits


class integer:
    """Reads a whole number; `1e6` counts as one. Bounds are inclusive."""

    def __init__(self, minimum: int = 0, maximum: int = MOST) -> None:
        self.minimum, self.maximum = minimum, maximum

    def __call__(self, value: object) -> int:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(whole, bool) or not isinstance(whole, int) or not self.minimum <= whole <= self.maximum:
            raise mismatch(self._expected(whole), value)
        return whole

    def _expected(self, value: object) -> str:
        if self.maximum != MOST:
            return f"a whole number from {self.minimum} to {self.maximum}"
        too_much = isinstance(value, int) and value > MOST
        return f"a whole number of at most {MOST}" if too_much else f"a whole number of at least {self.minimum}"


_UNITS = {
    "nsec": 1e-9, "ns": 1e-9, "usec": 1e-6, "us": 1e-6, "msec": 1e-3, "ms": 1e-3,
    "seconds": 1.0, "second": 1.0, "secs": 1.0, "sec": 1.0, "s": 1.0,
    "minutes": 60.0, "minute": 60.0, "mins": 60.0, "min": 60.0, "m": 60.0,
    "hours": 3600.0, "hour": 3600.0, "hrs": 3600.0, "hr": 3600.0, "h": 3600.0,
    "days": 86400.0, "day": 86400.0, "d": 86400.0, "weeks": 604800.0, "week": 604800.0, "w": 604800.0,
}  # fmt: skip
_DURATION = re.compile(r"\s*(?:\d+\s*[a-z]+\s*)+", re.ASCII)


def duration(value: object) -> float:
    """Seconds, from a number of seconds or a text such as "5 minutes" or "1h 30m"."""
    seconds = _seconds(value)
    if seconds is None:
        raise mismatch("a number of seconds or a duration such as '5 minutes'", value)
    if seconds > LONGEST:
        raise mismatch(f"at most {humantime(LONGEST)}", value)
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value) if value <= LONGEST else float("inf")
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = re.findall(r"(\d+)\s*([a-z]+)", value)
        if all(unit in _UNITS for _, unit in parts):
            return sum(min(int(number), MOST) * _UNITS[unit] for number, unit in parts)
    return None


def humantime(seconds: float) -> str:
    """A duration as KumoMTA writes it back: "1m", "1h 30m"."""
    parts = []
    for unit, size in (("day", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{int(number)}{unit}" + ("s" if unit == "day" and number > 1 else ""))
    if seconds:
        parts.append(f"{round(seconds * 1000)}ms")
    return " ".join(parts) or "0s"


def one_of(kind: type[Enum]) -> Reader:
    """A member of an enumeration by its value; case matters."""
    names = [member.value for member in kind]

    def read(value: object) -> Enum:
        if not isinstance(value, str) or value not in names:
            raise mismatch("one of " + ", ".join(f"'{name}'" for name in names), value)
        return kind(value)

    return read


# --- readers of tables ------------------------------------------------------------------------------------


def collected(parts: Iterable[tuple[object, Reader, object]]) -> list[Any]:
    """Reads (key, reader, value) triples; raises BadOptions with the mistakes of all of them."""
    results, troubles = [], []
    for key, read, value in parts:
        try:
            results.append(value if value is UNKNOWN else read(value))
        except BadOptions as bad:
            troubles += [trouble.inside(key) for trouble in bad.troubles]
    if troubles:
        raise BadOptions(troubles)
    return results


def items_of(value: object, expected: str) -> list[object]:
    """The items of a Lua sequence, or of a list that was made of one."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or sorted(value, key=str) != sorted(range(1, len(value) + 1), key=str):
        raise mismatch(expected, value)
    return [value[index] for index in range(1, len(value) + 1)]


def list_of(read: Reader, what: str) -> Reader:
    """An array; the result is a tuple. what: names the items in messages, plural."""

    def read_list(value: object) -> tuple[Any, ...]:
        items = items_of(value, f"a list of {what}")
        return tuple(collected((index, read, item) for index, item in enumerate(items, 1)))

    return read_list


def map_of(read: Reader, what: str) -> Reader:
    """A table with string keys. what: names its entries in messages."""

    def read_map(value: object) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise mismatch(f"a table of {what}", value)
        return dict(zip(value, collected((key, read, item) for key, item in value.items()), strict=True))

    return read_map


def cidrs(value: object) -> CidrSet:
    """A list of CIDRs."""
    texts = list_of(string, "CIDRs")(value)
    try:
        return CidrSet(text for text in texts if text is not UNKNOWN)
    except CidrError as error:
        raise refusal(str(error)) from None


def _cidr(value: object) -> CidrSet:
    try:
        return CidrSet((string(value),))
    except CidrError as error:
        raise refusal(str(error)) from None


def cidr_map(read: Reader) -> Reader:
    """A table whose keys are CIDRs."""

    def read_cidr_map(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise mismatch("a table of CIDRs and their parameters", value)
        keys: list[tuple[object, Reader, object]] = [(key, _cidr, key) for key in value]
        blocks = collected([*((key, read, item) for key, item in value.items()), *keys])
        return dict(zip(value, blocks, strict=False))

    return read_cidr_map


def json_value(value: object) -> Any:
    """Anything that JSON can hold; a sequence becomes a list."""
    if isinstance(value, Opaque):
        raise mismatch("a value that JSON can hold", value)
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        return [json_value(item) for item in items_of(value, "a sequence without gaps")]
    return map_of(json_value, "values")(value)


# --- tables of named options ------------------------------------------------------------------------------


class Role(Enum):
    """What an option does here."""

    SUPPORTED = "supported"
    ACCEPTED = "accepted"  # read and checked, without effect
    REFUSED = "refused"  # an error unless its value asks for nothing


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a Schema.

    default: filled in when it is not None and the option is absent. harmless: the values of a REFUSED option that
    change nothing. reason: why it is refused. ours: KumoMTA has no such option.
    """

    read: Reader
    role: Role = Role.SUPPORTED
    required: bool = False
    default: Any = None
    harmless: tuple[object, ...] = ()
    reason: str = ""
    ours: bool = False


def accepted(read: Reader, default: object = None) -> Option:
    """An option without effect that is harmless to accept."""
    return Option(read, Role.ACCEPTED, default=default)


def refused(reason: str, *harmless: object) -> Option:
    """An option that would mislead if it were accepted without effect."""

    def read(value: object) -> object:
        if any(value is one or (type(value) is type(one) and value == one) for one in harmless):
            return value
        text = "not supported yet by relay-gateway"
        raise BadOptions([Trouble(text, text, reason, refused=True)])

    return Option(read, Role.REFUSED, harmless=harmless, reason=reason)


@dataclass(frozen=True, slots=True)
class Schema:
    """The options that a function's table takes, and what is made of them.

    build: receives the supported options that were given or have defaults. pairs: of options that belong together.
    """

    options: Mapping[str, Option]
    build: Callable[[dict[str, Any]], Any] = field(default=dict)
    pairs: tuple[tuple[str, str], ...] = ()

    def __call__(self, value: object) -> Any:
        """Checks a table and builds its result. Raises BadOptions with everything that is wrong."""
        return self.built(self.read(value))

    def built(self, options: dict[str, Any]) -> Any:
        """The result for options that `read` returned."""
        return self.build({name: item for name, item in options.items() if self.options[name].role is Role.SUPPORTED})

    def read(self, value: object) -> dict[str, Any]:
        """The checked options by name, with defaults. Raises BadOptions."""
        if not isinstance(value, dict):
            raise mismatch("a table", value)
        troubles = [self._unknown(key).inside(key) for key in value if key not in self.options]
        troubles += [
            Trouble(f"'{name}' is missing", f"missing field `{name}`")
            for name, option in self.options.items()
            if option.required and name not in value
        ]
        for one, other in self.pairs:
            if (one in value) != (other in value):
                there, missing = (one, other) if one in value else (other, one)
                text = f"'{missing}' is missing, which belongs to it"
                troubles.append(Trouble(text, f"missing field `{missing}`").inside(there))
        given = [name for name in self.options if name in value]
        try:
            values = collected((name, self.options[name].read, value[name]) for name in given)
        except BadOptions as bad:
            troubles += bad.troubles
        if troubles:
            raise BadOptions(troubles)
        options = {name: option.default for name, option in self.options.items() if option.default is not None}
        options.update(zip(given, values, strict=True))
        return options

    def _unknown(self, key: object) -> Trouble:
        names = list(self.options)
        quoted = [f"`{name}`" for name in names]
        expected = " or ".join(quoted) if len(quoted) <= 2 else "one of " + ", ".join(quoted)
        hint = did_you_mean(str(key), names) or "accepted: " + ", ".join(names)
        return Trouble("unknown option", f"unknown field `{key}`, expected {expected}", hint)
