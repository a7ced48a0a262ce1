"""`kumo.secrets`: keys and passwords from where a KeySource says they are: a file, the policy's text, a vault.

A vault is HashiCorp Vault, or who speaks as it does, with a key-value engine of version 2. What it said while the
policy was loaded is part of its snapshot, like the files: a worker that is started later needs no vault.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson

from gateway.policy.kumo.secrets import key_bytes
from gateway.policy.kumo.values import described, text_of
from gateway.policy.options import Option, Schema
from gateway.policy.options import string as text
from gateway.policy.outside.http import BUILD_CLIENT, HttpClient, HttpRequest, send, shown
from gateway.policy.outside.outside import Outside, read_options

ADDRESS = "http://127.0.0.1:8200"
TIMEOUT = 10.0  # seconds
NO_SECRET = "none"  # where nobody is asked

VAULT = Schema(
    {
        "vault_mount": Option(text, required=True),
        "vault_path": Option(text, required=True),
        "vault_key": Option(text, default="key"),
        "vault_address": Option(text),
        "vault_token": Option(text),
    }
)


def load(outside: Outside, source: Any) -> Any:
    """What a KeySource holds, as a string"""
    if isinstance(source, dict) and set(source) & {"vault_mount", "vault_path"}:
        return _from_vault(outside, read_options(VAULT, source))
    return text_of(key_bytes(source, "load"))


async def _from_vault(outside: Outside, options: dict[str, str]) -> str:
    address = (options.get("vault_address") or os.environ.get("VAULT_ADDR") or ADDRESS).rstrip("/")
    mount, path, key = options["vault_mount"].strip("/"), options["vault_path"].strip("/"), options["vault_key"]
    name = f"{address} {mount}/{path} {key}"
    if not outside.background.may_ask(f"the vault at {shown(address)}"):
        return NO_SECRET
    if outside.loading() and name in outside.secrets:
        return text_of(outside.secrets[name])
    found = _field(await _asked(address, mount, path, options.get("vault_token"), outside), f"{mount}/{path}", key)
    if outside.loading():
        outside.secrets[name] = found.encode()
    return found


async def _asked(address: str, mount: str, path: str, token: str | None, outside: Outside) -> bytes:
    token = token or os.environ.get("VAULT_TOKEN")
    if not token:
        raise ValueError("load: there is no token for the vault: neither vault_token nor VAULT_TOKEN is set")
    client = HttpClient(outside, read_options(BUILD_CLIENT, None))
    request = HttpRequest(client, "GET", f"{address}/v1/{quote(mount)}/data/{quote(path)}", TIMEOUT)
    request.headers.append(("X-Vault-Token", token))
    response = await send(request)
    if response.status != 200:
        why = {403: "the token may not read it", 404: "there is no such secret"}.get(response.status, "")
        raise ValueError(f"load: the vault answers {response.status} for {mount}/{path}" + (f": {why}" if why else ""))
    return response.body


def _field(body: bytes, secret: str, key: str) -> str:
    try:
        value = orjson.loads(body)["data"]["data"][key]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"load: {secret} in the vault has no '{key}'") from None
    if not isinstance(value, str):
        raise ValueError(f"load: '{key}' of {secret} in the vault is {described(value)}, not a string")
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {"load": load}
WAITING = frozenset({"secrets.load"})
