"""A session without sockets and disks: what a whole message costs in a worker, for instruction counts.

Real are the session with what its listener limits, the policy with its cache, the decision, the transaction and the
making of records. The courier answers later, as the fleet does; the kernel and what moves octets are not here.
"""

from __future__ import annotations

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.arena import Arena, parts_for
from gateway.config import Destination
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.inbound.allowance import allowance_of
from gateway.inbound.reception import Reception
from gateway.later import Later
from gateway.net.endpoints import Endpoints
from gateway.policy.engine import Policy
from gateway.policy.listener import TermsTable
from gateway.policy.source import PolicySource
from gateway.quotas import Quotas
from gateway.smtp.capabilities import UNKNOWN, Abilities
from gateway.why.client import services_in_memory

POLICY = b"""
kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0', relay_hosts = {} } end)
kumo.on('get_listener_domain', function(domain)
  if domain == 'in.example' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { '127.0.0.1' } } } }
end)
"""
DISCARDING = b"""
kumo.on('smtp_server_message_received', function(msg) msg:set_meta('queue', 'null') end)
"""
ENVELOPE = b"MAIL FROM:<somebody@out.example> SIZE=1100\r\nRCPT TO:<somebody.else@in.example>\r\nDATA\r\n"
CONTENT = b"Subject: a letter\r\nFrom: somebody@out.example\r\n\r\n" + (b"x" * 62 + b"\r\n") * 15 + b".\r\n"
COMMANDS = 100  # more than any portion here has


class AnswersLater:
    """In the place of the couriers: everything is taken, once `answer` is called."""

    def __init__(self) -> None:
        self._asked: list[tuple[Later, HandOver]] = []

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """See Couriers."""
        response = Response(250, "2.0.0", "taken", None)
        outcomes = [RecipientOutcome(recipient, Status.DELIVERED, response, None) for recipient in batch.recipients]
        later = Later()
        self._asked.append((later, HandOver(outcomes, "memory", "ESMTP", 0.0, "memory", "192.0.2.99")))
        return later

    def fleet_takes(self) -> Abilities:
        """See Couriers: of a fleet nothing is known."""
        return UNKNOWN

    def answer(self) -> None:
        """Takes everything that was submitted."""
        while self._asked:
            later, hand_over = self._asked.pop()
            later.settle(hand_over)


class NoLogs:
    """In the place of the log writer: records are made, and dropped."""

    full = False

    def submit(self, record: object, message: object = None) -> bool:
        """See LogWriter."""
        return True


class Client:
    """A client that sends the same message over and over. policy: to follow, besides what every bench needs."""

    def __init__(self, policy: bytes = b"") -> None:
        page = CounterPage(bytearray(metrics.page_size()))
        self._couriers = AnswersLater()
        loaded = Policy.load(PolicySource("bench.lua", {"bench.lua": POLICY + policy}), page=page)
        self._services = services_in_memory(
            loaded, page, self._couriers, NoLogs(), now_ns=lambda: 1_785_847_290_000_000_000
        )
        self._services.quotas = Quotas(Arena(parts_for(1)), 0)
        self._endpoints = Endpoints(("192.0.2.7", 40_000), ("192.0.2.1", 25))
        self._table = TermsTable(loaded.config.listeners[0], offer_auth=False)
        self._terms = self._table.terms_for("192.0.2.7", "192.0.2.1")
        self.connect()

    def connect(self) -> None:
        """A new connection, up to EHLO."""
        self._reception = Reception(self._services, self._table, self._terms, self._endpoints, self._advance)
        self._allowance = allowance_of(self._services, self._terms, self._endpoints)
        assert self._allowance is not None
        assert self._allowance.connect() is None
        self._reception.hold_to(self._allowance)
        self._reception.start()
        self._send(b"EHLO out.example\r\n")

    def message(self) -> bytes:
        """One message; returns the replies."""
        replies = self._send(ENVELOPE)
        self._reception.receive(CONTENT)
        self._advance()
        self._couriers.answer()
        return replies + self._reception.data_to_send()

    def leave(self) -> bytes:
        """The end of the connection; returns the reply."""
        reply = self._send(b"QUIT\r\n")
        self._reception.lost()
        return reply

    def _send(self, data: bytes) -> bytes:
        self._reception.receive(data)
        self._advance()
        return self._reception.data_to_send()

    def _advance(self) -> None:
        self._reception.advance(COMMANDS)
