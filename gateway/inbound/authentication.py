"""AUTH: a client's credentials, shown to the policy and to nobody else.

What is sent back is reception.py's; how credentials look on the wire is smtp/session.py's.
"""

from __future__ import annotations

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Waits
from gateway.policy.conn_meta import ConnMeta, claimed
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.smtp.events import AuthRequested, ExternalRequested

_RESULTS = {result: metrics.AUTH.slot(result) for result in ("accepted", "refused", "error")}


def log_in(event: AuthRequested | ExternalRequested, policy: Policy, conn: ConnMeta, page: CounterPage) -> Waits:
    """Asks the policy; returns whether it knows the client, who is then established. Raises what the policy raises."""
    if isinstance(event, ExternalRequested):  # the handshake has shown it
        conn.establish(event.identity, event.identity, claimed(event.identity, event.identity), ())
        page.add(_RESULTS["accepted"])
        return True
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
    page.add(_RESULTS["refused" if identity is None else "accepted"])
    if identity is None:
        return False
    conn.establish(identity.authn_id, identity.authz_id, identity.identities, identity.groups)
    return True
