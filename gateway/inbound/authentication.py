"""AUTH: a client's credentials, shown to the policy and to nobody else.

How credentials look on the wire is smtp/session.py's.
"""

from __future__ import annotations

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.inbound.allowance import Allowance
from gateway.later import Waits
from gateway.policy.conn_meta import ConnMeta, claimed
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.smtp import replies
from gateway.smtp.events import AuthRequested, ExternalRequested
from gateway.smtp.replies import Reply

_RESULTS = {result: metrics.AUTH.slot(result) for result in ("accepted", "refused", "error")}


def log_in(
    event: AuthRequested | ExternalRequested,
    policy: Policy,
    conn: ConnMeta,
    page: CounterPage,
    allowance: Allowance | None,
) -> Waits:
    """Asks the policy; returns the reply. Where it knows the client, that is established then, and counts with its
    allowance. Raises what the policy raises.
    """
    if isinstance(event, ExternalRequested):  # the handshake has shown it
        conn.establish(event.identity, event.identity, claimed(event.identity, event.identity), ())
        return _known(event.identity, page, allowance)
    if conn.witness is not None:
        response = event.authorization, event.authentication, event.password
        conn.witness.conceal(event.password, "\0".join(response))
    answer = policy.auth_plain(event.authorization, event.authentication, event.password, conn)
    try:
        identity = yield answer
    except (Rejected, PolicyError) as error:
        page.add(_RESULTS["refused" if isinstance(error, Rejected) else "error"])
        raise
    finally:
        conn.conceal(event.password)
    if identity is None:
        page.add(_RESULTS["refused"])
        return replies.AUTH_FAILED
    conn.establish(identity.authn_id, identity.authz_id, identity.identities, identity.groups)
    return _known(identity.authz_id, page, allowance)


def _known(identity: str, page: CounterPage, allowance: Allowance | None) -> Reply:
    page.add(_RESULTS["accepted"])
    refusal = None if allowance is None else allowance.logged_in(identity)
    return refusal or replies.AUTH_OK
