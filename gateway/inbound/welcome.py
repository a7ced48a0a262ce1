"""What happens before a client is greeted: the policy's say, the wait that shows who talks first, and who it is.

No session's state, and no reply is sent here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from gateway.config import EarlyTalker
from gateway.delivery.services import Services
from gateway.inbound.allowance import Allowance, allowance_of
from gateway.later import Waits
from gateway.net.endpoints import Endpoints
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.policy.listener import TermsTable
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from gateway.smtp.xclient import XclientRequested

log = logging.getLogger(__name__)

LEAST_LOOK = 0.01  # seconds, for what is on its way when a client has connected; an early talker does not hesitate
NOWHERE = "0.0.0.0"  # stands for the address of a client that nobody knows


class Welcome(NamedTuple):
    """greeting: opens the session, or refuses it. rule: of the policy, that refused. follow_with_421: as it said."""

    greeting: Reply
    rule: str | None = None
    follow_with_421: bool = False


def welcome(
    policy: Policy,
    conn: ConnMeta,
    endpoints: Endpoints,
    terms: Terms,
    table: TermsTable,
    adopt: Callable[[Terms], Reply | None],
    waiting: ServerSession | None,
) -> Waits:
    """Asks what becomes of a client; returns a Welcome. Raises nothing.

    table: where the terms are from. adopt: is given others, where the policy has computed parameters, and returns what
    refuses the client then. waiting: the session of a client that waits for the banner.
    """
    try:
        computed = yield policy.dynamic_parameters(endpoints.received_via, conn)
        if computed is not None:
            terms = table.terms_with(endpoints, computed)
            refusal = adopt(terms)
            if refusal is not None:
                return Welcome(refusal)
        yield policy.connection_accepted(conn)
        stranger = endpoints.peer and endpoints.peer not in terms.relay_hosts  # a proxy that speaks for itself is none
        if waiting is not None and terms.greets_late and stranger:
            yield policy.pause(max(terms.params.banner_delay, LEAST_LOOK))
            # RFC 5321 §4.3.1: a client waits for the greeting
            if waiting.buffered() and terms.params.early_talker is EarlyTalker.REJECT:
                return Welcome(replies.EARLY_TALKER)
    except Rejected as reject:
        greeting = replies.make(reject.code, reject.text, Reason.POLICY_REJECT, closes=True)
        return Welcome(greeting, reject.place, reject.follow_with_421)
    except PolicyError:
        return Welcome(replies.technical_difficulties(terms.hostname, Reason.POLICY_ERROR))
    except Exception:
        log.exception("internal error on a new connection")
        return Welcome(replies.technical_difficulties(terms.hostname, Reason.INTERNAL_ERROR))
    return Welcome(terms.greeting)


def introduced(event: XclientRequested, endpoints: Endpoints) -> Endpoints:
    """The ends, as a proxy tells them that is at one of these."""
    known = event.client != "" and (event.client is not None or endpoints.peer != b"")
    peer = local = None
    if event.client is not None or event.client_port is not None:
        host = endpoints.peer_address if event.client is None else event.client or NOWHERE
        peer = host, event.client_port or 0
    if event.server or event.server_port is not None:
        host = event.server or endpoints.local_address
        port = event.server_port if event.server_port is not None else int(endpoints.received_via.rpartition(":")[2])
        local = host, port
    told = {"xclient_name": event.name, "reception_protocol": event.protocol, "ehlo_domain": event.helo}
    return endpoints.behind(peer, local, {key: value for key, value in told.items() if value}, known=known)


def allowed_instead(
    before: Allowance | None,
    services: Services,
    old: Terms,
    terms: Terms,
    endpoints: Endpoints,
    event: XclientRequested | None,
) -> tuple[Allowance | None, Reply | None]:
    """What the client at these ends may do by these terms, which counts instead of what counted before, by old ones;
    and what refuses it. event: told who it is; None where it is the same.
    """
    is_new = event is not None
    names = ("limits", "limits_per_identity", "relay_hosts")
    if not is_new and all([getattr(old.params, name) is getattr(terms.params, name) for name in names]):
        return before, None
    login = (event.login or "") if event is not None else "" if before is None else before.identity
    if before is not None:
        before.disconnect()
    allowance = allowance_of(services, terms, endpoints)
    if allowance is None:
        return None, None
    is_new = is_new or before is None
    return allowance, allowance.connect(is_new) or (allowance.logged_in(login, is_new) if login else None)
