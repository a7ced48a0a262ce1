"""`kumo.crypto`: AES by blocks, with keys of 16 or 32 octets and PKCS #7 padding.

CBC's initialisation vector stands in front of the ciphertext.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.digest import BinaryResult
from gateway.policy.kumo.secrets import key_bytes
from gateway.policy.kumo.values import binary, string, text_of

BLOCK = 16  # octets
KEY_SIZES = (16, 32)


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
    function.__name__: function for function in (aes_encrypt_block, aes_decrypt_block)
}
UNSTABLE = frozenset(FUNCTIONS)
