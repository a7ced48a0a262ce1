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

MOST_CONTEXTS = 1024  # that are kept of each kind: a policy may name another host or key for every connection
_SELF_SIGNED_LIFE = datetime.timedelta(days=365)


class UnusableKey(ssl.SSLError):
    """A certificate or key that no connection can use; the text says which and why. may_pass: whether it may be over
    without an edit, such as a file that is not there yet.
    """

    def __init__(self, text: str, *, may_pass: bool) -> None:
        super().__init__(text)
        self.text, self.may_pass = text, may_pass

    def __str__(self) -> str:
        return self.text


class KeyFiles:
    """The PEM files that listeners name, as they were when the policy was checked. Picklable.

    A worker that is started again later must use the certificates that were found good, whatever the disk says by
    then; a reload is what brings new ones.
    """

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def read(self, source: KeySource) -> bytes:
        """The PEM text; the first content of a file stays. Raises OSError."""
        if source.key_data is not None:
            return source.key_data.encode()
        assert source.path is not None
        if source.path not in self._contents:
            with open(source.path, "rb") as file:
                self._contents[source.path] = file.read()
        return self._contents[source.path]


class ServerContexts:
    """The TLS contexts of a worker: those with certificates from the start, self-signed ones when first needed."""

    def __init__(self, listeners: Iterable[Listener], files: KeyFiles) -> None:
        """Raises UnusableKey, which `problems` would have told."""
        self._files = files
        self._contexts: dict[tuple[KeySource, KeySource], ssl.SSLContext] = {}
        self._self_signed: dict[str, ssl.SSLContext] = {}
        for _, certificate, key in _pairs(listeners):
            if certificate is not None and key is not None:
                self._loaded(certificate, key)

    def context(self, params: ListenerParams) -> ssl.SSLContext:
        """The context for a connection with these parameters. Raises UnusableKey for a pair no listener named."""
        if params.tls_certificate is not None and params.tls_private_key is not None:
            return self._loaded(params.tls_certificate, params.tls_private_key)
        context = self._self_signed.get(params.hostname)
        if context is None:
            context = _make_context(*_self_signed(params.hostname))
            _keep(self._self_signed, params.hostname, context)
        return context

    def _loaded(self, certificate: KeySource, key: KeySource) -> ssl.SSLContext:
        context = self._contexts.get((certificate, key))
        if context is None:
            context = _load(certificate, key, self._files)
            _keep(self._contexts, (certificate, key), context)
        return context


def _keep(contexts: dict[Any, ssl.SSLContext], key: Any, context: ssl.SSLContext) -> None:
    if len(contexts) >= MOST_CONTEXTS:
        del contexts[next(iter(contexts))]  # the oldest
    contexts[key] = context


def problems(
    listeners: Iterable[Listener], files: KeyFiles, at: datetime.datetime | None = None
) -> list[tuple[str, UnusableKey]]:
    """What is wrong with the certificates and keys that listeners name: (the listener's address, the error).

    at: certificates have to be valid then; without it, when they are is not looked at.
    """
    found = [(listen, unusable(certificate, key, files, at)) for listen, certificate, key in _pairs(listeners)]
    return [(listen, error) for listen, error in found if error is not None]


def unusable(
    certificate: KeySource | None, key: KeySource | None, files: KeyFiles, at: datetime.datetime | None = None
) -> UnusableKey | None:
    """Why these cannot be used together; None if they can, or if neither is given."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        return UnusableKey("tls_certificate and tls_private_key belong together", may_pass=False)
    try:
        _load(certificate, key, files)
    except UnusableKey as error:
        return error
    return None if at is None else _out_of_date(certificate, files, at)


def _out_of_date(certificate: KeySource, files: KeyFiles, at: datetime.datetime) -> UnusableKey | None:
    first = x509.load_pem_x509_certificates(files.read(certificate))[0]  # the listener's own; its issuers' follow
    if at > first.not_valid_after_utc:
        text = f"{_shown(certificate)}: the certificate has expired at {first.not_valid_after_utc}"
    elif at < first.not_valid_before_utc:
        text = f"{_shown(certificate)}: the certificate is not valid before {first.not_valid_before_utc}"
    else:
        return None
    return UnusableKey(text, may_pass=True)


def _pairs(listeners: Iterable[Listener]) -> Iterator[tuple[str, KeySource | None, KeySource | None]]:
    """(address, certificate, key) of every block of every listener."""
    for listener in listeners:
        for block in _blocks({**listener.overrides, "peer": listener.peer, "via": listener.via}):
            yield listener.listen, block.get("tls_certificate"), block.get("tls_private_key")


def _blocks(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield block
    for name in ("peer", "via"):
        for inner in (block.get(name) or {}).values():
            yield from _blocks(inner)


def _shown(source: KeySource | None) -> str:
    return "key_data" if source is None or source.path is None else source.path


def _load(certificate: KeySource, key: KeySource, files: KeyFiles) -> ssl.SSLContext:
    names = f"{_shown(certificate)}, {_shown(key)}"
    try:
        pems = files.read(certificate), files.read(key)
    except OSError as error:
        raise UnusableKey(f"{names}: {error}", may_pass=True) from error
    try:
        return _make_context(*pems)
    except ssl.SSLError as error:
        raise UnusableKey(f"{names}: {error}", may_pass=False) from error


def _make_context(certificate_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    with _in_memory(certificate_pem) as certificate_path, _in_memory(key_pem) as key_path:
        context.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
    return context


def _no_passphrase() -> bytes:
    """Instead of OpenSSL's question on the terminal."""
    raise ssl.SSLError("the key is encrypted, and a service has nobody to ask for its passphrase")


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
    """A certificate and its key."""
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
