"""`kumo.encode`: base32, base64, hex and character sets."""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.values import binary, string, text_of, truth

# by Lua name: encoder and decoder of the padded form
_CODECS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "base32": (base64.b32encode, base64.b32decode),
    "base32hex": (base64.b32hexencode, base64.b32hexdecode),
    "base64": (base64.b64encode, lambda data: base64.b64decode(data, validate=True)),
    "base64url": (base64.urlsafe_b64encode, lambda data: base64.b64decode(data, b"-_", validate=True)),
}
FORMS = (*_CODECS, *(f"{name}_nopad" for name in _CODECS))


def encoded(form: str, data: bytes) -> str:
    """Octets in one of FORMS."""
    name = form.removesuffix("_nopad")
    text = _CODECS[name][0](data).decode("ascii")
    return text if form == name else text.rstrip("=")


def _encoder(form: str) -> Callable[..., str]:
    def encode(text: Any) -> str:
        return encoded(form, binary(string(text, f"{form}_encode")))

    encode.__doc__ = f"Octets as {form}."
    return encode


def _decoder(form: str) -> Callable[..., str]:
    name = form.removesuffix("_nopad")
    quantum = 4 if name.startswith("base64") else 8

    def decode(text: Any) -> str:
        data = binary(string(text, f"{form}_decode"))
        if form != name:
            if b"=" in data:
                raise ValueError(f"{form}_decode: padding where there must be none")
            data += b"=" * (-len(data) % quantum)
        try:
            return text_of(_CODECS[name][1](data))
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{form}_decode: {error}") from None

    decode.__doc__ = f"The octets behind {form}."
    return decode


def hex_encode(text: Any) -> str:
    """Octets as lower-case hexadecimal digits."""
    return binary(string(text, "hex_encode")).hex()


def hex_decode(text: Any) -> str:
    """The octets behind hexadecimal digits."""
    digits = string(text, "hex_decode")
    try:
        return text_of(binascii.unhexlify(digits))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"hex_decode: {error}") from None


def charset_encode(charset: Any, text: Any, ignore_errors: Any = None) -> str:
    """UTF-8 text in another character set. ignore_errors: leave out what it does not have (the default)."""
    name = _charset(charset, "charset_encode")
    errors = "ignore" if ignore_errors is None or truth(ignore_errors) else "strict"
    try:
        return text_of(string(text, "charset_encode").encode(name, errors))
    except UnicodeError as error:
        raise ValueError(f"charset_encode: {error}") from None


def charset_decode(charset: Any, octets: Any) -> str:
    """Octets in another character set as UTF-8."""
    name = _charset(charset, "charset_decode")
    try:
        return binary(string(octets, "charset_decode")).decode(name)
    except UnicodeError as error:
        raise ValueError(f"charset_decode: {error}") from None


def _charset(charset: Any, function: str) -> str:
    name = string(charset, function)
    try:
        info = codecs.lookup(name)
        if not info._is_text_encoding:  # base64, zip and the like are no character sets
            raise LookupError
    except (LookupError, ValueError):
        raise ValueError(f"{function}: unknown character set '{name}'") from None
    return info.name


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        _name: _make(form)
        for form in FORMS
        for _name, _make in ((f"{form}_encode", _encoder), (f"{form}_decode", _decoder))
    },
    "hex_encode": hex_encode,
    "hex_decode": hex_decode,
    "charset_encode": charset_encode,
    "charset_decode": charset_decode,
}
