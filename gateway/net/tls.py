"""TLS for clients (RFC 3207, RFC 8314 §3): contexts from the policy's certificates, or a self-signed one; and towards
servers.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config import KeySource, Listener, ListenerParams, TlsVersion

T = TypeVar("T")

MOST_CONTEXTS = 1024  # that are kept of each kind: a policy may name another host or key for every connection
KEYS_LAST = 86400.0  # seconds that the keys of tickets are in use
SHARED_AHEAD = 14  # times that new ones are there for all workers without a reload; from then on each has its own
EXPIRES_SOON = datetime.timedelta(days=21)  # from when on it is told
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

    @property
    def contents(self) -> Mapping[str, bytes]:
        """What was read so far, by path."""
        return self._contents

    def read(self, source: KeySource) -> bytes:
        """The PEM text; the first content of a file stays. Raises OSError."""
        if source.key_data is not None:
            return source.key_data.encode()
        assert source.path is not None
        if source.path not in self._contents:
            with open(source.path, "rb") as file:
                self._contents[source.path] = file.read()
        return self._contents[source.path]


Pair = tuple[KeySource, KeySource]  # a certificate with its chain, and its key


class TlsSettings(NamedTuple):
    """What a context is made of. pair: None for a self-signed certificate. sni: further pairs, by name. ca: whose
    certificates clients may have, or must.
    """

    pair: Pair | None = None
    sni: tuple[tuple[str, Pair], ...] = ()
    ca: KeySource | None = None
    required: bool = False
    ciphers: str | None = None
    minimum: TlsVersion = TlsVersion.V1_2


def settings_of(values: Mapping[str, Any]) -> TlsSettings:
    """values: a listener's parameters by name."""
    certificate, key = values.get("tls_certificate"), values.get("tls_private_key")
    required = values.get("tls_required_client_ca")
    return TlsSettings(
        None if certificate is None or key is None else (certificate, key),
        tuple((values.get("sni") or {}).items()),
        required or values.get("tls_optional_client_ca"),
        required is not None,
        values.get("tls_ciphers"),
        values.get("tls_minimum_version") or TlsVersion.V1_2,
    )


class ServerContexts:
    """The TLS contexts of all workers of a policy: those with certificates, and the self-signed one of each listener,
    from the start, the others when first needed.

    They are made before the workers are forked. A context has had the keys of its tickets since it was made, so that a
    worker resumes what another one began (RFC 8446 §4.6.1), and shows the same self-signed certificate; the next
    policy's have others. Python's ssl cannot give a context keys: so that there are new ones with time as well, what
    has its turn later is made before the fork, too, and what had it is forgotten. Calls of this class are one
    process's; only what is there before the fork is everybody's.
    """

    def __init__(self, listeners: Iterable[Listener], files: KeyFiles, now: float, ahead: int = SHARED_AHEAD) -> None:
        """now: seconds, on a clock that all processes have. Raises UnusableKey, which `problems` would have told."""
        self._files = files
        self._since = now
        self._ahead = ahead  # successors that each of the first ones has
        self._contexts: dict[tuple[TlsSettings, str], list[ssl.SSLContext]] = {}  # in the order of their turns
        self._earlier: dict[tuple[TlsSettings, str], ssl.SSLContext] = {}  # whose turn it was last
        self._self_signed: dict[str, tuple[bytes, bytes]] = {}
        listeners = list(listeners)
        for listener in listeners:
            self._context(settings_of(listener.overrides), listener.overrides.get("hostname") or os.uname().nodename)
        for _, block in _blocks_of(listeners):
            settings = settings_of(block)
            if settings.pair is not None or settings.sni or settings.ca is not None:
                self._context(settings, str(block.get("hostname", "")))
        self._ahead = 0

    def renew(self, now: float) -> None:
        """Forgets the keys whose time is over: those of one turn back are for tickets that are shown, and make few new
        ones. To be called from time to time, in every process that has them.
        """
        turns = int((now - self._since) // KEYS_LAST)
        if turns < 1:
            return
        self._since += turns * KEYS_LAST
        self._earlier = {key: those[turns - 1] for key, those in self._contexts.items() if len(those) >= turns}
        self._contexts = {key: kept for key, those in self._contexts.items() if (kept := those[turns:])}

    def context(self, params: ListenerParams) -> ssl.SSLContext:
        """The context for a connection with these parameters. Raises UnusableKey for a pair no listener named."""
        return self._context(_settings_for(params), params.hostname)

    def earlier(self, params: ListenerParams) -> ssl.SSLContext | None:
        """The one before it, whose tickets are good as well."""
        return self._earlier.get(_key(_settings_for(params), params.hostname)) if self._earlier else None

    def _context(self, settings: TlsSettings, hostname: str) -> ssl.SSLContext:
        key = _key(settings, hostname)
        contexts = self._contexts.get(key)
        if contexts is None:
            contexts = _made(settings, self._files, lambda: self._own_pair(hostname), 1 + self._ahead)
            _keep(self._contexts, key, contexts)
        return contexts[0]

    def _own_pair(self, hostname: str) -> tuple[bytes, bytes]:
        pair = self._self_signed.get(hostname)
        if pair is None:
            pair = _self_signed(hostname)
            _keep(self._self_signed, hostname, pair)
        return pair


def _key(settings: TlsSettings, hostname: str) -> tuple[TlsSettings, str]:
    return settings, "" if settings.pair is not None else hostname


_NAMES = (
    *("tls_certificate", "tls_private_key", "sni", "tls_required_client_ca", "tls_optional_client_ca"),
    *("tls_ciphers", "tls_minimum_version"),
)


def _settings_for(params: ListenerParams) -> TlsSettings:
    return settings_of({name: getattr(params, name) for name in _NAMES})


def _made(
    settings: TlsSettings, files: KeyFiles, own_pair: Callable[[], tuple[bytes, bytes]], times: int = 1
) -> list[ssl.SSLContext]:
    """So many that differ in the keys of their tickets alone. Raises UnusableKey."""
    pems = own_pair() if settings.pair is None else _read(settings.pair, files)
    contexts = [_with(settings, files, pems, settings.pair) for _ in range(times)]
    if settings.sni:
        others = {name: _with(settings, files, _read(pair, files), pair) for name, pair in settings.sni}

        def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            """RFC 6066 §3. A name that is not here gets the usual certificate: its owner may do without."""
            name = (name or "").lower()
            found = others.get(name) or others.get(f"*.{name.partition('.')[2]}")
            if found is not None:
                connection.context = found  # the keys of tickets stay those of the first context

        for context in contexts:
            context.sni_callback = choose
    return contexts


def _with(settings: TlsSettings, files: KeyFiles, pems: tuple[bytes, bytes], pair: Pair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum]  # RFC 8996: 1.2 at least
    _show(context, pems, pair)
    if settings.ciphers is not None:
        _restrict(context, settings.ciphers, "tls_ciphers")
    if settings.ca is not None:
        _trusting(lambda pem: context.load_verify_locations(cadata=pem), settings.ca, files)
        context.verify_mode = ssl.CERT_REQUIRED if settings.required else ssl.CERT_OPTIONAL
    return context


_VERSIONS = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}


def _read(pair: Pair, files: KeyFiles) -> tuple[bytes, bytes]:
    return content(pair[0], files), content(pair[1], files)


def content(source: KeySource, files: KeyFiles) -> bytes:
    """The PEM text. Raises UnusableKey where it cannot be read."""
    try:
        return files.read(source)
    except OSError as error:
        raise UnusableKey(f"{_shown(source)}: {error.strerror}", may_pass=True) from error


def _trusting(make: Callable[[str], T], ca: KeySource, files: KeyFiles) -> T:
    """What is made of the certificates of authorities."""
    pem = content(ca, files)
    try:
        return make(pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UnusableKey(f"{_shown(ca)}: no certificates in PEM", may_pass=False) from error


def _keep(contexts: dict[Any, Any], key: Any, context: Any) -> None:
    if len(contexts) >= MOST_CONTEXTS:
        del contexts[next(iter(contexts))]  # the oldest
    contexts[key] = context


class ClientTls(NamedTuple):
    """What a context towards a server is made of. pair: the certificate to show, and its key. ca: instead of those that
    the system trusts. insecure: nobody looks at the server's certificate.
    """

    pair: Pair | None = None
    ca: KeySource | None = None
    ciphers: str | None = None
    insecure: bool = False


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """A context towards a server, of files as they are now. Raises UnusableKey."""
    files = KeyFiles()
    if settings.ca is None:
        context = ssl.create_default_context()
    else:
        context = _trusting(lambda pem: ssl.create_default_context(cadata=pem), settings.ca, files)
    # Since 3.13 Python would turn away what many an authority of one's own issues (RFC 5280 §4.2.1.3).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.pair is not None:
        _show(context, _read(settings.pair, files), settings.pair)
    if settings.ciphers is not None:
        _restrict(context, settings.ciphers, "openssl_cipher_list")
    return context


def _show(context: ssl.SSLContext, pems: tuple[bytes, bytes], pair: Pair | None) -> None:
    try:
        with _in_memory(pems[0]) as certificate_path, _in_memory(pems[1]) as key_path:
            context.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
    except ssl.SSLError as error:
        raise UnusableKey(_why(error, pems, pair), may_pass=False) from error


def _why(error: ssl.SSLError, pems: tuple[bytes, bytes], pair: Pair | None) -> str:
    """What is wrong with a certificate and its key, in words of our own where OpenSSL's say little."""
    if pair is None:
        return f"the self-signed certificate: {error}"
    if b" CERTIFICATE-----" not in pems[0]:
        return f"{_shown(pair[0])}: no certificate in PEM"
    if b" PRIVATE KEY-----" not in pems[1]:
        return f"{_shown(pair[1])}: no private key in PEM"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        which = "another certificate" + (
            " in that file: the listener's own comes first" if _is_further_on(*pems) else ""
        )
        return f"{_shown(pair[0])}, {_shown(pair[1])}: the key is of {which}"
    return f"{_shown(pair[0])}, {_shown(pair[1])}: {error.args[-1]}"


def _is_further_on(certificates: bytes, key: bytes) -> bool:
    """Whether the key's certificate is in the file, but not the first one (RFC 8446 §4.4.2)."""
    try:
        own = serialization.load_pem_private_key(key, None).public_key()
        return any(own == one.public_key() for one in x509.load_pem_x509_certificates(certificates)[1:])
    except (ValueError, UnsupportedAlgorithm):
        return False


def _restrict(context: ssl.SSLContext, ciphers: str, option: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        text = f"{ciphers or '(nothing)'}: no cipher that OpenSSL knows is in {option}"
        raise UnusableKey(text, may_pass=False) from error


def problems(
    listeners: Iterable[Listener], files: KeyFiles, at: datetime.datetime | None = None
) -> list[tuple[str, UnusableKey]]:
    """What is wrong with the certificates, keys and ciphers that listeners name: (the listener's address, the error).

    at: certificates have to be valid then; without it, when they are is not looked at.
    """
    found = [(listen, _wrong(block, files, at)) for listen, block in _blocks_of(listeners)]
    return [(listen, error) for listen, error in found if error is not None]


def unusable(
    certificate: KeySource | None, key: KeySource | None, files: KeyFiles, at: datetime.datetime | None = None
) -> UnusableKey | None:
    """Why these cannot be used together; None if they can, or if neither is given."""
    return _wrong({"tls_certificate": certificate, "tls_private_key": key}, files, at)


def _wrong(block: Mapping[str, Any], files: KeyFiles, at: datetime.datetime | None) -> UnusableKey | None:
    if (block.get("tls_certificate") is None) != (block.get("tls_private_key") is None):
        return UnusableKey("tls_certificate and tls_private_key belong together", may_pass=False)
    settings = settings_of(block)
    if settings == TlsSettings():
        return None
    try:
        _made(settings, files, _any_pair)
    except UnusableKey as error:
        return error
    if at is None:
        return None
    wrong = (_out_of_date(certificate, files, at) for certificate in _certificates(settings))
    return next((error for error in wrong if error is not None), None)


@cache
def _any_pair() -> tuple[bytes, bytes]:
    return _self_signed("localhost")


def _certificates(settings: TlsSettings) -> Iterator[KeySource]:
    if settings.pair is not None:
        yield settings.pair[0]
    for _, pair in settings.sni:
        yield pair[0]


def ends(listeners: Iterable[Listener], files: KeyFiles) -> dict[str, datetime.datetime]:
    """When the certificates that listeners name expire, by their file's path; that of one without is "key_data"."""
    found: dict[str, datetime.datetime] = {}
    for _, block in _blocks_of(listeners):
        for certificate in _certificates(settings_of(block)):
            end = x509.load_pem_x509_certificates(files.read(certificate))[0].not_valid_after_utc
            name = _shown(certificate)
            found[name] = min(end, found.get(name, end))
    return found


def _out_of_date(certificate: KeySource, files: KeyFiles, at: datetime.datetime) -> UnusableKey | None:
    first = x509.load_pem_x509_certificates(files.read(certificate))[0]  # the listener's own; its issuers' follow
    if at > first.not_valid_after_utc:
        text = f"{_shown(certificate)}: the certificate has expired at {first.not_valid_after_utc}"
    elif at < first.not_valid_before_utc:
        text = f"{_shown(certificate)}: the certificate is not valid before {first.not_valid_before_utc}"
    else:
        return None
    return UnusableKey(text, may_pass=True)


def _blocks_of(listeners: Iterable[Listener]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(address, parameters) of every block of every listener."""
    for listener in listeners:
        for block in _blocks({**listener.overrides, "peer": listener.peer, "via": listener.via}):
            yield listener.listen, block


def _blocks(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield block
    for name in ("peer", "via"):
        for inner in (block.get(name) or {}).values():
            yield from _blocks(inner)


def _shown(source: KeySource | None) -> str:
    return "key_data" if source is None or source.path is None else source.path


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


@cache  # there are few, and each session keeps what it gets
def shown_names(transport_cipher: tuple[str, str, int] | None) -> tuple[str, str]:
    """(protocol version, cipher) as KumoMTA's records spell them: ("TLSv1_3", "TLS13_AES_256_GCM_SHA384")."""
    if transport_cipher is None:
        return "", ""
    cipher, version, _ = transport_cipher
    if version == "TLSv1.3":
        cipher = cipher.replace("TLS_", "TLS13_", 1)
    return version.replace(".", "_"), cipher


class PeerCertificate(NamedTuple):
    """A client's certificate that was verified. subject: as KumoMTA shows it: ("CN=mx.example",). fingerprint: SHA-256,
    in hexadecimal digits. identities: the addresses, host names and common names in it.
    """

    subject: tuple[str, ...]
    fingerprint: str
    identities: tuple[str, ...]


def peer_certificate(der: bytes | None) -> PeerCertificate | None:
    """der: the certificate; None where the client has shown none."""
    if der is None:
        return None
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.RFC822Name), *names.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        found = []
    common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return PeerCertificate(
        tuple(part.rfc4514_string() for part in certificate.subject.rdns),
        certificate.fingerprint(hashes.SHA256()).hex(),
        tuple(dict.fromkeys([*found, *common])),
    )
