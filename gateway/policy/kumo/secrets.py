"""The octets that a KeySource names, where they are a file's or in the policy's text."""

from __future__ import annotations

from typing import Any

from gateway.policy.kumo.values import binary, described


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
    if isinstance(source, dict) and not {"event_name", "vault_mount", "vault_path"}.isdisjoint(source):
        raise ValueError(f"{function}: write {{ key_data = kumo.secrets.load {{ … }} }} for a key from elsewhere")
    raise ValueError(f"{function}: expected a file's path or {{ key_data = '…' }}, got {described(source)}")
