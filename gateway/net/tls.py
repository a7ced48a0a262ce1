"""TLS for clients (RFC 3207, RFC 8314 §3): contexts from the policy's certificates, or a self-signed one."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config import KeySource, Listener, ListenerParams

_SELF_SIGNED_LIFE = datetime.timedelta(days=365)


class ServerContexts:
    """The TLS contexts of a worker, made when they are first needed and kept."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str, KeySource | None, KeySource | None], ssl.SSLContext] = {}

    def context(self, params: ListenerParams) -> ssl.SSLContext:
        """The context for a connection with these parameters.

        Raises OSError or ssl.SSLError where the certificate or key cannot be used.
        """
        key = (params.hostname, params.tls_certificate, params.tls_private_key)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _make_context(*key)
        return context


def problems(listeners: Iterable[Listener]) -> list[str]:
    """What is wrong with the certificates and keys that listeners name, one text for each; [] where all can be used."""
    return [
        f"listener {listener.listen}: {problem}"
        for listener in listeners
        for block in _blocks({**listener.overrides, "peer": listener.peer, "via": listener.via})
        if (problem := key_problem(block.get("tls_certificate"), block.get("tls_private_key")))
    ]


def key_problem(certificate: KeySource | None, key: KeySource | None) -> str | None:
    """Why these cannot be used together; None if they can, or if neither is given."""
    if (certificate is None) != (key is None):
        return "tls_certificate and tls_private_key belong together"
    if certificate is not None:
        try:
            _make_context("", certificate, key)
        except (OSError, ssl.SSLError) as error:
            return f"{_shown(certificate)}, {_shown(key)}: {error}"
    return None


def _blocks(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield block
    for name in ("peer", "via"):
        for inner in (block.get(name) or {}).values():
            yield from _blocks(inner)


def _shown(source: KeySource | None) -> str:
    return "key_data" if source is None or source.path is None else source.path


def _make_context(hostname: str, certificate: KeySource | None, private_key: KeySource | None) -> ssl.SSLContext:
    if certificate is None or private_key is None:
        certificate_pem, key_pem = _self_signed(hostname)
    else:
        certificate_pem, key_pem = _read(certificate), _read(private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    with _in_memory(certificate_pem) as certificate_path, _in_memory(key_pem) as key_path:
        context.load_cert_chain(certificate_path, key_path)
    return context


def _read(source: KeySource) -> bytes:
    if source.key_data is not None:
        return source.key_data.encode()
    assert source.path is not None
    with open(source.path, "rb") as file:
        return file.read()


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path for what ssl only takes from files; a key given as text never touches a disk."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _self_signed(hostname: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem


def shown_names(transport_cipher: tuple[str, str, int] | None) -> tuple[str, str]:
    """(protocol version, cipher) as KumoMTA's records spell them: ("TLSv1_3", "TLS13_AES_256_GCM_SHA384")."""
    if transport_cipher is None:
        return "", ""
    cipher, version, _ = transport_cipher
    if version == "TLSv1.3":
        cipher = cipher.replace("TLS_", "TLS13_", 1)
    return version.replace(".", "_"), cipher
