"""`kumo.secrets`: keys and passwords from where a KeySource says they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.values import binary, described, text_of


def key_bytes(source: Any, function: str) -> bytes:
    """The octets behind a KeySource: a file's path or `{ key_data = … }`. Raises ValueError."""
    if isinstance(source, str):
        try:
            with open(source, "rb") as file:
                return file.read()
        except OSError as error:
            raise ValueError(f"{function}: reading file {source}: {error.strerror}") from None
    if isinstance(source, dict) and set(source) == {"key_data"} and isinstance(source["key_data"], str):
        return binary(source["key_data"])
    if isinstance(source, dict) and set(source) & {"vault_mount", "vault_path", "event_name"}:
        raise ValueError(f"{function}: keys from a vault or an event are not supported by relay-gateway")
    raise ValueError(f"{function}: expected a file's path or {{ key_data = '…' }}, got {described(source)}")


def load(source: Any) -> str:
    """What a KeySource holds, as a string."""
    return text_of(key_bytes(source, "load"))


FUNCTIONS: dict[str, Callable[..., Any]] = {"load": load}
