"""A rehearsal: the handlers of a policy are called as for the first message of a client, and what fails is a problem.

Nothing is sent anywhere: what a handler would be told by others never comes, and there it ends, which is told where the
policy names the service. No session and no socket is in play, only the events in their order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from gateway.config import Listener, ListenerDomain
from gateway.decision import grants_anybody
from gateway.later import Later
from gateway.mail.message import Message
from gateway.policy import events, runs
from gateway.policy.background import Idle, Unasked
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyError, Problem, Rejected, Severity
from gateway.smtp.address import parse_address

# RFC 2606 §2: .invalid is nobody's domain; RFC 5737: 192.0.2.0/24 is nobody's network.
STRANGER = "192.0.2.1"
NOBODYS_DOMAIN = "nobody-has-heard-of-this.invalid"
_LOCAL = "192.0.2.2"
_SENDER = f"sender@{NOBODYS_DOMAIN}"
_RECIPIENT = f"recipient@{NOBODYS_DOMAIN}"
_MESSAGE = (
    f"From: <{_SENDER}>\r\nTo: <{_RECIPIENT}>\r\nSubject: relay-gateway check\r\n"
    f"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@{NOBODYS_DOMAIN}>\r\n\r\nHello\r\n"
).encode()
_EXTENSIONS = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")


class _Over(Exception):
    """The session goes no further: a handler refused, or failed."""


class Rehearsal:
    """Of one policy and its background, which is idle. problems: what failed, and what could not be tried."""

    def __init__(self, policy: Policy, background: Idle) -> None:
        self.problems: list[Problem] = []
        self._policy = policy
        self._event = ""  # whose handlers run
        background.asked = self._not_tried

    def run(self) -> None:
        """One session of a stranger, and one of a relay host, at each listener."""
        runs.log.addFilter(_nothing)
        try:
            for listener in self._policy.config.listeners or (Listener(listen=f"{_LOCAL}:25"),):
                for peer in (STRANGER, *_relay_host(listener)):
                    self._session(listener, peer)
        finally:
            runs.log.removeFilter(_nothing)
        self.problems = list(dict.fromkeys(self.problems))

    def granted(self, domain: str) -> ListenerDomain | None:
        """What a stranger's mail for a domain is granted; None for nothing, and where nobody knows."""
        runs.log.addFilter(_nothing)
        try:
            return self._listener_domain(domain, f"{_LOCAL}:25", _conn(STRANGER, f"{_LOCAL}:25"))
        except _Over:
            return None
        finally:
            runs.log.removeFilter(_nothing)

    def _session(self, listener: Listener, peer: str) -> None:
        local = _local_address(listener)
        conn = _conn(peer, local)
        conn.values.update(listener.overrides.get("meta", {}))
        try:
            self._before_the_decision(local, conn)
            granted = self._listener_domain(NOBODYS_DOMAIN, local, conn)
            if peer != STRANGER or grants_anybody(granted):
                self._after_the_decision(conn)
        except _Over:
            pass

    def _before_the_decision(self, local: str, conn: ConnMeta) -> None:
        policy = self._policy
        self._ask(events.DYNAMIC_PARAMETERS, lambda: policy.dynamic_parameters(local, conn))
        self._ask(events.CONNECTION_ACCEPTED, lambda: policy.connection_accepted(conn))
        self._ask(events.EHLO, lambda: policy.ehlo(NOBODYS_DOMAIN, conn, _EXTENSIONS))
        conn.values["ehlo_domain"] = NOBODYS_DOMAIN
        self._ask(events.REWRITE_RESPONSE, lambda: policy.rewrite_response(250, "OK", "EHLO", conn))
        self._ask(events.MAIL_FROM, lambda: policy.mail_from(parse_address(_SENDER), conn))

    def _listener_domain(self, domain: str, local: str, conn: ConnMeta) -> ListenerDomain | None:
        answer = self._ask(events.LISTENER_DOMAIN, lambda: self._policy.listener_domain(domain, local, conn))
        return answer if isinstance(answer, ListenerDomain) else None

    def _after_the_decision(self, conn: ConnMeta) -> None:
        policy = self._policy
        self._ask(events.RCPT_TO, lambda: policy.rcpt_to(parse_address(_RECIPIENT), conn))
        message = Message(
            "0" * 32, parse_address(_SENDER), [parse_address(_RECIPIENT)], data=_MESSAGE, meta=conn.values.copy()
        )
        self._ask(events.DATA, lambda: policy.data(message, conn))
        self._ask(events.SPLIT_TRANSACTION, lambda: policy.split_transaction(message, conn))
        self._ask(events.MESSAGE_RECEIVED, lambda: policy.message_received(message, conn))
        for logger in policy.config.local_logs:
            if logger.filter_event:
                event = logger.filter_event
                self._ask(event, lambda event=event: policy.log_filter(event, message))  # type: ignore[misc]
        self._ask(events.QUEUE_CONFIG, lambda: policy.destination(message.queue_name()))

    def _ask(self, event: str, ask: Callable[[], Later]) -> Any:
        """The answer; None where the handler waits for it. Raises _Over."""
        if event not in self._policy.handles and event != events.QUEUE_CONFIG:
            return None
        self._event = event
        try:
            answer = ask()
            if not answer.done:
                answer.cancel()
                return None
            return answer.result()
        except Rejected:
            raise _Over from None
        except PolicyError as error:
            self.problems.append(self._failure(event, str(error)))
            raise _Over from None

    def _not_tried(self, answer: Unasked) -> None:
        """A handler asks somebody. What the policy names is the operator's to keep up; the DNS is everybody's."""
        if not answer.who:
            return
        event = self._event
        message = f"asks {answer.who}, which check does not: what follows in {event} was not tried"
        hint = "without an answer the handler fails, unless it is prepared for that"
        self.problems.append(Problem(*self._policy.calls_from(), message, hint, Severity.WARNING))

    def _failure(self, event: str, text: str) -> Problem:
        policy = self._policy
        text = text.removeprefix(f"{event}: ").removeprefix(f"{events.EGRESS_PATH}: ")
        file, line = policy.registered_at(event) if event in policy.handles else (policy.source.path, 0)
        found = Problem.from_lua(text, file, policy.source.files)
        return Problem(found.file, found.line or line, found.message, f"so {event} fails for a first message")


def _nothing(_: object) -> bool:
    """A filter: what fails in a rehearsal is told by the command."""
    return False


def _conn(peer: str, local: str) -> ConnMeta:
    return ConnMeta({"received_from": f"{peer}:40000", "received_via": local, "reception_protocol": "ESMTP"})


def _local_address(listener: Listener) -> str:
    host, _, port = listener.listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "fd"):
        host = _LOCAL
    return f"{host}:{port if port.isdigit() and port != '0' else 25}"


def _relay_host(listener: Listener) -> Iterator[str]:
    """An address that may relay to anywhere, if there is one."""
    for text in listener.overrides.get("relay_hosts", ("127.0.0.1",)):
        network = ipaddress.ip_network("192.0.2.3" if text == "any" else text)
        yield str(network.network_address if network.num_addresses == 1 else network[1])
        return
