"""What a member is shown and asked for: certificates and passwords, out of the files that the egress path names.

They are read when they are first needed; a reload, whose workers are new, reads them again.
"""

from __future__ import annotations

import ssl
from functools import cache

from gateway.config import EgressPath, KeySource
from gateway.net.tls import ClientTls, KeyFiles, client_context
from gateway.smtp.introduction import INSECURE


def tls_context(path: EgressPath) -> ssl.SSLContext:
    """The context of connections with this path. Raises UnusableKey."""
    return context_of(client_tls(path))


def client_tls(path: EgressPath) -> ClientTls:
    """What its context is made of."""
    pair = path.tls_certificate and path.tls_private_key and (path.tls_certificate, path.tls_private_key)
    return ClientTls(pair or None, path.tls_ca, path.openssl_cipher_list, path.enable_tls in INSECURE)


context_of = cache(client_context)


@cache
def _password(source: KeySource) -> str:
    return KeyFiles().read(source).decode().rstrip("\r\n")


def password(path: EgressPath) -> str:
    """For AUTH, "" where there is none. Raises OSError, and ValueError where it is no text."""
    return "" if path.smtp_auth_plain_password is None else _password(path.smtp_auth_plain_password)
