"""`kumo.crypto`: AES by blocks, with keys of 16 or 32 octets and PKCS #7 padding; signatures of requests to AWS.

CBC's initialisation vector stands in front of the ciphertext.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from functools import reduce
from typing import Any
from urllib.parse import quote

from gateway.policy.kumo import times
from gateway.policy.kumo.digest import BinaryResult
from gateway.policy.kumo.secrets import key_bytes
from gateway.policy.kumo.values import binary, described, string, text_of

BLOCK = 16  # octets
KEY_SIZES = (16, 32)
_SIGNED = ("region", "service", "method", "uri")  # besides the keys, what there has to be of a request
_MORE = ("query_params", "headers", "payload", "timestamp", "session_token")


def aes_encrypt_block(algorithm: Any, plaintext: Any, key: Any) -> str:
    """Encrypts with `'Cbc'` or `'Ecb'`; the key is a KeySource"""
    octets = binary(string(plaintext, "aes_encrypt_block"))
    padding = BLOCK - len(octets) % BLOCK
    vector = os.urandom(BLOCK) if _is_cbc(algorithm, "aes_encrypt_block") else b""
    encryptor = _cipher(key, vector, "aes_encrypt_block").encryptor()
    return text_of(vector + encryptor.update(octets + bytes([padding]) * padding) + encryptor.finalize())


def aes_decrypt_block(algorithm: Any, ciphertext: Any, key: Any) -> BinaryResult:
    """What was encrypted"""
    octets = binary(string(ciphertext, "aes_decrypt_block"))
    start = BLOCK if _is_cbc(algorithm, "aes_decrypt_block") else 0
    if len(octets) % BLOCK or len(octets) < start + BLOCK:
        raise ValueError("aes_decrypt_block: the ciphertext has not the length of one")
    decryptor = _cipher(key, octets[:start], "aes_decrypt_block").decryptor()
    found = decryptor.update(octets[start:]) + decryptor.finalize()
    padding = found[-1]
    if not 1 <= padding <= BLOCK or found[-padding:] != bytes([padding]) * padding:
        raise ValueError("aes_decrypt_block: it is not encrypted with this key")
    return BinaryResult(found[:-padding])


def aws_sign_v4(request: Any) -> dict[str, str]:
    """Signs a request to AWS (Signature Version 4). `authorization` is the field's value, `timestamp` that of
    `X-Amz-Date`, which is signed with the headers
    """
    name = "aws_sign_v4"
    if not isinstance(request, dict):
        raise ValueError(f"{name}: expected a table, got {described(request)}")
    for key in request:
        if key not in ("access_key", "secret_key", *_SIGNED, *_MORE):
            raise ValueError(f"{name}: unknown option '{key}'")
    region, service, method, uri = (string(request.get(key), f"{name}: {key}") for key in _SIGNED)
    payload = binary(string(request.get("payload", ""), f"{name}: payload"))
    stamp = _stamp(request.get("timestamp"), name)
    headers = {key.lower(): value for key, value in _table(request, "headers", name).items()} | {"x-amz-date": stamp}
    if service == "s3":  # which wants this signed
        headers.setdefault("x-amz-content-sha256", hashlib.sha256(payload).hexdigest())
    if "session_token" in request:
        headers["x-amz-security-token"] = string(request["session_token"], f"{name}: session_token")
    fields = sorted((key, " ".join(value.split())) for key, value in headers.items())
    query = sorted((_escaped(key), _escaped(value)) for key, value in _table(request, "query_params", name).items())
    signed = ";".join(key for key, _ in fields)
    canonical = "\n".join(
        [
            method.upper(),
            _escaped(uri, safe="/") or "/",
            "&".join(f"{key}={value}" for key, value in query),
            *(f"{key}:{value}" for key, value in fields),
            "",
            signed,
            hashlib.sha256(payload).hexdigest(),
        ]
    )
    scope = (stamp[:8], region, service, "aws4_request")
    digest = hashlib.sha256(binary(canonical)).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope), digest])
    secret = b"AWS4" + key_bytes(request.get("secret_key"), name).strip()
    signature = reduce(_mac, (*scope, to_sign), secret).hex()
    access = text_of(key_bytes(request.get("access_key"), name).strip())
    return {
        "authorization": f"AWS4-HMAC-SHA256 Credential={access}/{'/'.join(scope)}, "
        f"SignedHeaders={signed}, Signature={signature}",
        "timestamp": stamp,
        "signature": signature,
        "canonical_request": canonical,
        "string_to_sign": to_sign,
    }


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, binary(text), "sha256")


def _escaped(text: str, safe: str = "") -> str:
    return quote(binary(text), safe=f"-_.~{safe}")


def _stamp(moment: Any, function: str) -> str:
    """moment: None for now, or what a time of kumo.time is in a table: its fields by name."""
    if moment is None:
        when = times.now()
    elif isinstance(moment, dict) and "unix_timestamp" in moment:
        when = times.from_unix_timestamp(moment["unix_timestamp"])
    elif isinstance(moment, str):
        when = times.parse_rfc3339(moment)
    else:
        raise ValueError(f"{function}: timestamp: expected a time of kumo.time, got {described(moment)}")
    return when.moment.strftime("%Y%m%dT%H%M%SZ")


def _table(request: dict[Any, Any], name: str, function: str) -> dict[str, str]:
    table = request.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{function}: {name}: expected a table, got {described(table)}")
    return {string(key, function): string(value, f"{function}: {name}") for key, value in table.items()}


def _is_cbc(algorithm: Any, function: str) -> bool:
    if algorithm not in ("Cbc", "Ecb"):
        raise ValueError(f"{function}: expected 'Cbc' or 'Ecb' as the algorithm")
    return bool(algorithm == "Cbc")


def _cipher(source: Any, vector: bytes, function: str) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if isinstance(source, dict) and set(source) == {"key"}:  # as KumoMTA's page shows it
        source = source["key"]
    key = key_bytes(source, function)
    if len(key) not in KEY_SIZES:
        raise ValueError(f"{function}: the key has {len(key)} octets, not 16 or 32")
    return Cipher(algorithms.AES(key), modes.CBC(vector) if vector else modes.ECB())


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (aes_encrypt_block, aes_decrypt_block, aws_sign_v4)
}
UNSTABLE = frozenset(FUNCTIONS)
