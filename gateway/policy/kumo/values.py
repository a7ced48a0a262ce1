"""What the modules share in reading their arguments: octets and numbers, with errors that name what was given."""

from __future__ import annotations

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
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{function}: expected an integer, got {described(value)}")
    return value


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
