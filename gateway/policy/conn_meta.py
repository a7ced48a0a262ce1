"""ConnMeta: what is known about one connection, as policies see it (`conn_meta`).

A bag of JSON values that all events of a session share. The gateway's own code uses `values` directly; Lua goes
through get_meta and set_meta, which objects.py exposes and the decision cache listens to.
"""

from __future__ import annotations

from typing import Any

IDENTITY_KEYS = ("authn_id", "authz_id")


class ConnMeta:
    """Connection metadata. Keys and meanings are KumoMTA's (docs/policy.md lists them)."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = {} if values is None else values

    def auth_info(self) -> dict[str, Any]:
        """Who the peer is, in KumoMTA's shape: its address and its authenticated identities."""
        identities = [
            {"identity": self.values[key], "context": context}
            for key, context in zip(
                IDENTITY_KEYS, ("SmtpAuthPlainAuthentication", "SmtpAuthPlainAuthorization"), strict=True
            )
            if self.values.get(key) is not None
        ]
        return {"peer_address": self.values.get("received_from"), "identities": identities, "groups": {}}
