"""A client without a socket: what it says goes straight into a Reception, as a connection would give it.

In the place of what comes behind: couriers that take everything and deliver nothing, loggers that keep their records.
Nothing leaves the process. `relay-gateway explain`, its kin and the tests talk to the gateway's own code by this; what
is said is the business of whoever uses it. Handlers may wait: every portion is answered by a Later.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway._fastpath import ContentStore, CounterPage
from gateway.config import Destination, LocalLogs
from gateway.delivery.services import Services
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.inbound.connection import MOST_COMMANDS
from gateway.inbound.reception import Reception
from gateway.inbound.refusals import RefusedCommand
from gateway.later import Later, answered
from gateway.logs.disk import settings_of
from gateway.logs.encoding import Record
from gateway.mail.message import Message
from gateway.net.endpoints import Endpoints
from gateway.net.turns import Room
from gateway.policy.engine import Policy
from gateway.policy.listener import TermsTable
from gateway.smtp.capabilities import UNKNOWN, Abilities
from gateway.smtp.replies import Reply

TLS = ("TLSv1_3", "TLS13_AES_256_GCM_SHA384")  # version and cipher, as most clients have them
_KEPT_IN_MEMORY = 1 << 40  # octets: no content gets a file


class MemoryCouriers:
    """In the place of the Couriers: every batch is taken, and nothing delivered. taken: what was, and for where."""

    def __init__(self) -> None:
        self.taken: list[tuple[Batch, Destination]] = []

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """See Couriers."""
        self.taken.append((batch, destination))
        response = Response(250, "2.0.0", "taken", None)
        outcomes = [RecipientOutcome(recipient, Status.DELIVERED, response, None) for recipient in batch.recipients]
        return answered(HandOver(outcomes, "memory", "ESMTP", 0.0, "memory", "192.0.2.99"))

    def fleet_takes(self) -> Abilities:
        """See Couriers: of a fleet nothing is known."""
        return UNKNOWN


class MemoryLogs:
    """In the place of the LogWriter: says where records would have gone, and writes none.

    filter: see LogWriter. kept: each record, and the directories of the loggers that take it.
    """

    full = False
    disk_problem = None

    def __init__(self, loggers: Sequence[LocalLogs], filter: Callable[[str, Message], Later]) -> None:
        self.kept: list[tuple[Record, list[str]]] = []
        self._loggers = [(logger, settings_of(logger)) for logger in loggers]
        self._filter = filter

    def submit(self, record: Record, message: Message | None = None) -> bool:
        """See LogWriter."""
        directories = [
            settings[record.type].log_dir or logger.log_dir
            for logger, settings in self._loggers
            if record.type in settings and self._passes(logger, message)
        ]
        self.kept.append((record, directories))
        return bool(directories)

    def durable(self) -> Later:
        """See LogWriter."""
        return answered(True)

    def _passes(self, logger: LocalLogs, message: Message | None) -> bool:
        if logger.filter_event is None or message is None:
            return True
        answer = self._filter(logger.filter_event, message)
        return answer.done and (answer.failed or bool(answer.result()))


def services_in_memory(
    policy: Policy,
    page: CounterPage,
    couriers: object,
    logs: object,
    *,
    now_ns: Callable[[], int],
    monotonic: Callable[[], float] = lambda: 0.0,
) -> Services:
    """What a session needs, around a policy. couriers, logs: what stands in their place."""
    in_their_place: dict[str, Any] = {"couriers": couriers, "logs": logs}
    contents = ContentStore(tempfile.gettempdir(), _KEPT_IN_MEMORY, 1, _KEPT_IN_MEMORY)
    return Services(
        policy=policy,
        page=page,
        now_ns=now_ns,
        monotonic=monotonic,
        afterwards=lambda call: call(),
        room=Room(contents, lambda _, call: call()),
        **in_their_place,
    )


class Said(NamedTuple):
    """One reply, and what it answers: verb, as an Observer gets it."""

    verb: int
    reply: Reply


class _Noted(Reception):
    """A reception whose replies are noted as the client gets them."""

    def __init__(self, services: Services, table: TermsTable, endpoints: Endpoints, resume: Callable[[], None]) -> None:
        self.said: list[Said] = []
        terms = table.terms_for(endpoints.peer_address, endpoints.local_address)
        super().__init__(services, table, terms, endpoints, resume)

    def released(self, verb: int, reply: Reply, argument: bytes, kept: RefusedCommand | None) -> None:
        self.said.append(Said(verb, reply))
        super().released(verb, reply, argument, kept)


class MemoryClient:
    """One client. Its connection is there, and greeted, unless the policy still thinks about it.

    table: the listener's terms. wants_tls: STARTTLS was answered with 220, and the handshake is due.
    """

    def __init__(self, services: Services, table: TermsTable, endpoints: Endpoints) -> None:
        self._waiter: Later | None = None
        self.wants_tls = False
        self.reception: Reception = _Noted(services, table, endpoints, self._advance)
        self.reception.start()
        self._advance()

    @property
    def said(self) -> list[Said]:
        """Every reply so far."""
        assert isinstance(self.reception, _Noted)
        return self.reception.said

    def send(self, data: bytes) -> Later:
        """Says something; the answer is there when the session has dealt with it."""
        self.reception.receive(data)
        self._advance()
        return self.quiet()

    def quiet(self) -> Later:
        """Settled when nothing that was said is still being thought about."""
        if not self._is_asked():
            return answered(None)
        self._waiter = Later()
        return self._waiter

    def secure(self) -> None:
        """The handshake, after the 220 to STARTTLS."""
        self.wants_tls = False
        self.reception.tls_started(*TLS)

    def received(self) -> bytes:
        """The replies since the last call, as they go over the wire."""
        return self.reception.data_to_send()

    def _is_asked(self) -> bool:
        return self.reception.is_asked() and not self.wants_tls

    def _advance(self) -> None:
        self.wants_tls = self.reception.advance(MOST_COMMANDS)
        while self.reception.session.is_behind():
            self.wants_tls = self.reception.advance(MOST_COMMANDS)
        waiter = self._waiter
        if waiter is not None and not self._is_asked():
            self._waiter = None
            waiter.settle(None)
