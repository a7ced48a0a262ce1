"""What the modules share in reading their arguments: octets and numbers, with errors that name what was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

# by class: methods and fields, each a function by its name that is called with the object first
Objects: TypeAlias = "dict[type, tuple[Mapping[str, Callable[..., Any]], Mapping[str, Callable[[Any], Any]]]]"


def binary(text: str) -> bytes:
    """The octets of a Lua string."""
    return text.encode("utf-8", "surrogateescape")


def text_of(octets: bytes) -> str:
    """Octets as a Lua string."""
    return octets.decode("utf-8", "surrogateescape")


def string(value: Any, function: str) -> str:
    """A string argument; a number is its text, as everywhere in Lua. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    raise ValueError(f"{function}: expected a string, got {described(value)}")


def integer(value: Any, function: str) -> int:
    """An integer argument; a float or text that is one counts, as everywhere in Lua. Raises ValueError."""
    found = number_in(value) if isinstance(value, str) else value
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f"{function}: expected an integer, got {described(value)}")
    return found


def number(value: Any, function: str) -> int | float:
    """A number argument; a text that is one counts, as everywhere in Lua. Raises ValueError."""
    found = number_in(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{function}: expected a number, got {described(value)}")
    return found


def truth(value: Any) -> bool:
    """Whether a value counts as true: in Lua all do but nil and false."""
    return value is not None and value is not False


_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_HEXADECIMAL = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?", re.ASCII)
_BLANKS = " \t\n\v\f\r"


def number_in(text: str) -> int | float | None:
    """What Lua's `tonumber` makes of a text; None where that is no number."""
    text = text.strip(_BLANKS)
    with suppress(OverflowError):
        if _DECIMAL.fullmatch(text):
            return float(text) if any(mark in text for mark in ".eE") else _or_float(int(text))
        if _HEXADECIMAL.fullmatch(text):
            return float.fromhex(text) if any(mark in text for mark in ".pP") else _wrapped(int(text, 16))
    return None


def _or_float(whole: int) -> int | float:
    return whole if -(2**63) <= whole < 2**63 else float(whole)


def _wrapped(whole: int) -> int:
    return (whole + 2**63) % 2**64 - 2**63


def number_text(value: float) -> str:
    """A number as Lua writes it: `%.14g`, and a float always looks like one."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.14g}"
    return text if any(mark in text for mark in ".einf") else f"{text}.0"


def described(value: Any) -> str:
    """What kind of value was given instead."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, dict | list):
        return "a table"
    return "an object"
