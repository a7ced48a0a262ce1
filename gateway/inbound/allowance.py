"""Allowance: what the client of one session may do of what its listener limits, as others of its network do as well.

`limits` counts by the peer's network, `limits_per_identity` by who authenticated. Nothing here knows a socket or a
session's state: events go in, and replies that refuse them come out.
"""

from __future__ import annotations

import ipaddress

from gateway import _fastpath as fp
from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Limits
from gateway.delivery.services import Services
from gateway.net.endpoints import Endpoints
from gateway.quotas import Cell, Quotas
from gateway.rates import Rate
from gateway.smtp import replies
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.events import AuthRequested, MessageReceived
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.terms import Terms

RECORDS = Rate.read("60/h,max_burst=20")  # of refusals for want of a quota, of one network: a flood tells nothing new
BY_QUOTA = {  # what a refusal exceeds
    Reason.PEER_CONNECTIONS: "connections",
    Reason.CONNECTION_RATE: "connection_rate",
    Reason.MESSAGE_RATE: "message_rate",
    Reason.RECIPIENT_RATE: "recipient_rate",
    Reason.OCTET_RATE: "octet_rate",
    Reason.AUTH_RATE: "auth_failures",
}
COUNTED = {  # as what its quota is known, by limit
    "connections": "open",
    "connection_rate": "connections",
    "message_rate": "messages",
    "recipient_rate": "recipients",
    "octet_rate": "octets",
    "auth_failures": "guesses",
}
_SHARED = metrics.LIMIT_CELLS_SHARED.slot()


def network_of(endpoints: Endpoints, limits: Limits) -> str:
    """The network that a peer is counted with."""
    packed = endpoints.peer
    bits = limits.ipv4_prefix if len(packed) == 4 else limits.ipv6_prefix
    if bits == 32 and len(packed) == 4:  # the usual: each address for itself
        return f"{endpoints.peer_address}/32"
    others = 8 * len(packed) - bits
    first = int.from_bytes(packed) >> others << others
    return f"{ipaddress.ip_address(first.to_bytes(len(packed)))}/{bits}"


def scope_of_identities(scope: str) -> str:
    """Where who authenticated is counted. scope: where networks are."""
    return f"{scope}\0identity"


class _Account:
    """One network's, or one identity's, at one listener."""

    def __init__(self, quotas: Quotas, limits: Limits, who: str, scope: str) -> None:
        self._quotas, self.limits, self.who, self._scope = quotas, limits, who, scope
        self._connections: Cell | None = None
        self._held = 0

    def may(self, limit: str) -> bool:
        """One more, counted if it may be."""
        rate = self._rate(limit)
        return rate is None or self._quotas.take(COUNTED[limit], self.who, rate, self._scope).retry_after is None

    def has_left(self, limit: str) -> bool:
        """Whether one more may be."""
        rate = self._rate(limit)
        return rate is None or self._quotas.look(COUNTED[limit], self.who, rate, self._scope).retry_after is None

    def charge(self, limit: str, amount: float) -> None:
        """What has been done already."""
        rate = self._rate(limit)
        if rate is not None:
            self._quotas.charge(COUNTED[limit], self.who, rate, self._scope, amount)

    def may_record(self) -> bool:
        """One more record of a refusal."""
        return self._quotas.take("records", self.who, RECORDS, self._scope).retry_after is None

    def connect(self, is_new: bool) -> Reason | None:
        """One more connection; why not. is_new: its rate has not counted it yet."""
        if is_new and self.limits.connection_rate is not None and not self.may("connection_rate"):
            return Reason.CONNECTION_RATE
        most = self.limits.connections
        if most and not self._held:
            self._connections = self._quotas.cell(COUNTED["connections"], self.who, self._scope)
            self._held = self._quotas.hold(self._connections, most)
            if not self._held:
                return Reason.PEER_CONNECTIONS
        return None

    def disconnect(self) -> None:
        """It is over."""
        if self._held and self._connections is not None:
            self._quotas.release(self._connections, self._held)
            self._held = 0

    def _rate(self, limit: str) -> Rate | None:
        rate: Rate | None = getattr(self.limits, limit)
        return rate


def allowance_of(services: Services, terms: Terms, endpoints: Endpoints) -> Allowance | None:
    """A new session's; None where it is held to nothing."""
    if services.quotas is None:
        return None
    # nobody has no network: a proxy of ours that speaks for itself, a client that it does not know
    exempt = not endpoints.peer or (not terms.params.limits.trusted and endpoints.peer in terms.relay_hosts)
    if exempt and not terms.counts_identities:
        return None
    return Allowance(services.quotas, services.page, terms, endpoints, exempt)


class Allowance:
    """Of one session."""

    def __init__(self, quotas: Quotas, page: CounterPage, terms: Terms, endpoints: Endpoints, exempt: bool) -> None:
        """exempt: its network is held to nothing."""
        self._quotas, self._page = quotas, page
        self._terms: Terms = terms  # of what has a C type: attributes cost next to nothing
        self._peer: _Account | None = None
        self._accounts: tuple[_Account, ...] = ()
        self.identity = ""  # who has authenticated
        self.counts_messages = self._terms.counts_identities  # else only AUTH needs asked()
        if not exempt:
            limits = self._terms.params.limits
            self._peer = _Account(quotas, limits, network_of(endpoints, limits), self._terms.scope)
            self._accounts = (self._peer,)
            self.counts_messages = self._terms.counts_identities or self._terms.counts_networks

    def connect(self, is_new: bool = True) -> Reply | None:
        """A connection: the reply that turns it away; None where it is welcome, and counts until disconnect().

        is_new: it has not counted by other terms.
        """
        reason = None if self._peer is None else self._peer.connect(is_new)
        return None if reason is None else _closing(self._terms.hostname, reason)

    def disconnect(self) -> None:
        """The connection is over."""
        for account in self._accounts:
            account.disconnect()
        shared = self._quotas.newly_shared()
        if shared:
            self._page.add(_SHARED, shared)

    def asked(self, event: object) -> Reply | None:
        """What a command or content is refused with; None where it may go on."""
        if isinstance(event, RcptCommand):
            return None if self._all("recipient_rate") else replies.RECIPIENT_RATE
        if isinstance(event, MailCommand):
            return self._sender()
        if isinstance(event, MessageReceived):
            for account in self._accounts:
                account.charge("octet_rate", event.content.size)
        elif isinstance(event, AuthRequested):
            peer = self._peer
            if peer is not None and not peer.has_left("auth_failures"):
                return _closing(self._terms.hostname, Reason.AUTH_RATE)
        return None

    def logged_in(self, identity: str, is_new: bool = True) -> Reply | None:
        """Somebody has authenticated, whose connection counts from now on: the reply that turns them away, or None."""
        self.identity = identity
        limits = self._terms.params.limits_per_identity
        if limits is None:
            return None
        account = _Account(self._quotas, limits, identity, scope_of_identities(self._terms.scope))
        self._accounts = (*self._accounts, account)
        reason = account.connect(is_new)
        return None if reason is None else _closing(self._terms.hostname, reason)

    def refused(self, verb: int, reply: Reply) -> bool:
        """A reply that refuses something; whether it is worth a record."""
        peer = self._peer
        if verb == fp.AUTH and reply.code >= 500 and reply.reason in (Reason.AUTH_FAILED, Reason.POLICY_REJECT):
            if peer is not None:
                peer.charge("auth_failures", 1.0)
        elif reply.reason in BY_QUOTA and peer is not None:
            return peer.may_record()
        return True

    def _sender(self) -> Reply | None:
        for account in self._accounts:
            if not account.has_left("octet_rate"):
                return replies.OCTET_RATE
        return None if self._all("message_rate") else replies.MESSAGE_RATE

    def _all(self, limit: str) -> bool:
        for account in self._accounts:  # noqa: SIM110 - once for each recipient: a generator costs more than the rest
            if not account.may(limit):
                return False
        return True


_WORDS = {
    Reason.PEER_CONNECTIONS: "too many connections at a time from your network, or of yours",
    Reason.CONNECTION_RATE: "too many connections from your network, or of yours; try later",
    Reason.AUTH_RATE: "too many failures to authenticate from your network; try later",
}


def _closing(hostname: str, reason: Reason) -> Reply:
    return replies.closing(hostname, _WORDS[reason], reason, enhanced="4.7.0")
