"""`kumo.digest`: checksums, digests and HMACs."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.encode import FORMS, encoded
from gateway.policy.kumo.secrets import key_bytes
from gateway.policy.kumo.serde import json_encode
from gateway.policy.kumo.values import Objects, binary, string, text_of

HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512", "sha512_256", "sha3_256", "sha3_384", "sha3_512")
HMACS = ("sha1", "sha224", "sha256", "sha384", "sha512")


class BinaryResult:
    """The octets of a digest; printed as hexadecimal digits."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def __str__(self) -> str:
        return self.octets.hex()


def _in_form(form: str) -> Callable[[BinaryResult], str]:
    return lambda result: encoded(form, result.octets)


RESULT_FIELDS: dict[str, Callable[[BinaryResult], str]] = {
    "bytes": lambda result: text_of(result.octets),
    "hex": str,
    **{form: _in_form(form) for form in FORMS},
}


def _fed(arguments: tuple[Any, ...]) -> bytes:
    """Strings as they are, anything else as JSON, one behind the other."""
    return b"".join(binary(value if isinstance(value, str) else json_encode(value)) for value in arguments)


def _digest(name: str) -> Callable[..., BinaryResult]:
    def digest(*arguments: Any) -> BinaryResult:
        return BinaryResult(hashlib.new(name, _fed(arguments)).digest())

    digest.__doc__ = f"The {name} digest of all arguments."
    return digest


def _hmac(name: str) -> Callable[..., BinaryResult]:
    def keyed(key: Any, message: Any) -> BinaryResult:
        function = f"hmac_{name}"
        return BinaryResult(hmac.digest(key_bytes(key, function), binary(string(message, function)), name))

    keyed.__doc__ = f"The HMAC of a message with {name}; the key is a KeySource."
    return keyed


def crc32(*arguments: Any) -> BinaryResult:
    """The CRC-32 of all arguments: a checksum, nothing more."""
    return BinaryResult(zlib.crc32(_fed(arguments)).to_bytes(4, "big"))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "crc32": crc32,
    **{name: _digest(name) for name in HASHES},
    **{f"hmac_{name}": _hmac(name) for name in HMACS},
}
OBJECTS: Objects = {BinaryResult: ({}, RESULT_FIELDS)}
