"""ConnMeta: what is known about one connection, as policies see it (`conn_meta`).

A bag of JSON values that all events of a session share. The gateway's own code uses `values` directly; Lua goes
through get_meta and set_meta, which objects.py exposes and the decision cache listens to. Beside it stand, out of
Lua's reach, who tells of the session and which of the values must not be told.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.tracing.witness import Witness

# What the gateway itself puts into it.
KEYS = (
    "reception_protocol", "received_from", "received_via", "orig_received_from", "orig_received_via", "hostname",
    "ehlo_domain", "authn_id", "authz_id", "tls_cipher", "tls_protocol_version", "tls_peer_subject_name",
)  # fmt: skip
IDENTITY_KEYS = ("authn_id", "authz_id")
AUTHENTICATION, AUTHORIZATION = "SmtpAuthPlainAuthentication", "SmtpAuthPlainAuthorization"

_NONE: frozenset[str] = frozenset()


class ConnMeta:
    """Connection metadata. Keys and meanings are KumoMTA's (docs/policy.md lists them).

    witness: tells of the session; None while nobody looks on. secret: the names of values that hold what the client
    proved itself with. identities, groups: what AUTH established, in KumoMTA's shape.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = {} if values is None else values
        self.witness: Witness | None = None
        self.secret: frozenset[str] = _NONE
        self.identities: tuple[dict[str, str], ...] = ()
        self.groups: tuple[str, ...] = ()

    def conceal(self, password: str) -> None:
        """Remembers which values have a password in them, as it is or in base64."""
        if password:
            encoded = b64encode(password.encode("utf-8", "surrogateescape")).decode()
            self.secret |= {
                key for key, value in self.values.items() if password in (text := str(value)) or encoded in text
            }

    def establish(
        self, authn: str, authz: str, identities: tuple[dict[str, str], ...], groups: tuple[str, ...]
    ) -> None:
        """Somebody has logged in."""
        self.values.update(authn_id=authn, authz_id=authz)
        self.identities, self.groups = identities, groups

    def forget(self) -> None:
        """Everything."""
        self.values.clear()
        self.identities = self.groups = ()

    def auth_info(self) -> dict[str, Any]:
        """Who the peer is, in KumoMTA's shape: its IP address, its identities and their groups."""
        peer = str(self.values.get("received_from") or "").rpartition(":")[0].strip("[]")
        identities = self.identities or self._named()
        return {"peer_address": peer or None, "identities": list(identities), "groups": list(self.groups)}

    def _named(self) -> tuple[dict[str, str], ...]:
        authn, authz = map(self.values.get, IDENTITY_KEYS)
        return claimed(authz, authn) if isinstance(authn, str) and isinstance(authz, str) else ()


def claimed(authz: str, authn: str) -> tuple[dict[str, str], ...]:
    """The identities of whom AUTH PLAIN lets be who it says."""
    return {"identity": authz, "context": AUTHORIZATION}, {"identity": authn, "context": AUTHENTICATION}
