"""One client connection's way through policy and relay: session events in, answers out.

This is where the SMTP session, the policy, the decision, transactions, records and metrics meet. No sockets (that is
connection.py), no protocol (smtp/session.py), no Lua (policy/). What is refused is counted and recorded by refusals.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway import _fastpath as fp
from gateway import metrics
from gateway.config import ListenerDomain
from gateway.decision import Decision, decide
from gateway.delivery.transaction import SessionFacts, Transaction, TransactionRefused
from gateway.inbound.refusals import Refusals, connection_refused
from gateway.inbound.services import Services
from gateway.later import Steps, Waits
from gateway.logs import records
from gateway.logs.identity import new_session_id
from gateway.net.endpoints import Endpoints
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, address_in
from gateway.smtp.events import (
    AuthRequested,
    EhloRequested,
    Event,
    MessageReceived,
    RcptRequested,
    TlsRequested,
)
from gateway.smtp.replies import MAIL_OK, RCPT_OK, Reason, Reply
from gateway.smtp.session import NO_COMMAND, Observer, ServerSession
from gateway.smtp.states import END_OF_DATA
from gateway.smtp.terms import Terms
from gateway.smtp.trace import received_from, with_protocol

log = logging.getLogger(__name__)

_NAMES = (*fp.VERB_NAMES, "END-OF-DATA")
_COMMAND_SLOTS = [  # by verb, then by the reply's class, from 2xx on
    [metrics.COMMANDS.slot(name if name in metrics.VERBS else "other", f"{digit}xx") for digit in (2, 3, 4, 5)]
    for name in _NAMES
]
_DECIDED_BY_LUA, _DECIDED_FROM_CACHE = (
    {outcome: slot for (outcome, source), slot in metrics.DECISIONS.slots.items() if source == wanted}
    for wanted in ("lua", "cache")
)
_AUTH = {result: metrics.AUTH.slot(result) for result in ("accepted", "refused", "error")}
_NOTHING: dict[str, str | int] = {}
_MESSAGE_DURATION = metrics.MESSAGE_DURATION.slot()


class Reception(Observer):
    """One connection.

    resume: called when an answer that took time has arrived, so that the caller goes on with advance().
    """

    def __init__(self, services: Services, terms: Terms, endpoints: Endpoints, resume: Callable[[], None]) -> None:
        self._services = services
        self._policy: Policy = self._services.policy
        self._page = self._services.page
        self._terms = terms
        self._endpoints = endpoints
        self._resume = resume
        self.session: ServerSession = ServerSession(terms, self)
        self._refusals = Refusals(services)
        self._session_id = new_session_id()
        self._peer_is_relay_host = self._endpoints.peer in self._terms.relay_hosts
        self._conn = ConnMeta(self._known_at_first())
        self._accepted_with: dict[str, Any] | None = None  # the metadata after the policy looked at the connection
        self._facts: SessionFacts | None = None
        self._decisions: list[Decision] = []
        self._tls: tuple[str, str] | None = None  # protocol version and cipher
        self._message: MessageReceived | None = None
        self._transaction: Transaction | None = None
        self._advancing = False
        self._asked_lua = False

    # -- the connection's life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """The greeting, if the policy does not object."""
        try:
            greeting = self._greeting()
        except Exception:
            log.exception("internal error on a new connection")
            greeting = replies.technical_difficulties(self._terms.hostname, Reason.INTERNAL_ERROR)
        if greeting.reason is not None:
            connection_refused(self._services, greeting)
        self.session.greet(greeting)

    def _greeting(self) -> Reply:
        greeting = self._terms.greeting
        if "smtp_server_connection_accepted" in self._policy.handles:
            try:
                self._policy.connection_accepted(self._conn)
            except Rejected as reject:
                greeting = replies.make(reject.code, reject.text, Reason.POLICY_REJECT, closes=True)
            except PolicyError:
                greeting = replies.technical_difficulties(self._terms.hostname, Reason.POLICY_ERROR)
            self._accepted_with = self._conn.values.copy()
        return greeting

    def _known_at_first(self) -> dict[str, Any]:
        """The connection's metadata before anything was said."""
        return {
            "reception_protocol": "ESMTP",
            "received_via": self._endpoints.received_via,
            "received_from": self._endpoints.received_from,
            "hostname": self._terms.hostname,
            **self._terms.params.meta,
        }

    # -- what the connection moves and asks ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Takes octets from the client; nothing happens before advance()."""
        self.session.receive_data(data)

    def data_to_send(self) -> bytes:
        """The replies that are due."""
        return self.session.data_to_send()

    def is_asked(self) -> bool:
        """The client waits for an answer that takes time."""
        return self.session.awaiting is not None

    def is_behind(self) -> bool:
        """The client's next commands only wait for another turn."""
        return self.session.is_behind()

    def is_idle(self) -> bool:
        """No transaction is under way, and nothing that was received waits."""
        return self.session.is_idle()

    def is_closed(self) -> bool:
        """The session is over; its last reply may still have to be sent."""
        return self.session.closed

    def has_quit(self) -> bool:
        """It is over because the client took its leave."""
        return self.session.quit

    def is_secured(self) -> bool:
        """It goes on under TLS."""
        return self.session.tls

    def buffered(self) -> int:
        """Octets that were received and wait."""
        return self.session.buffered()

    def advance(self, most: int) -> bool:
        """Works through what was received, at most so many commands of it.

        True: STARTTLS was answered with 220, and the handshake is the caller's; tls_started() follows it.
        """
        self.session.allow(most)
        self._advancing = True
        try:
            while (event := self.session.next_event()) is not None:
                if type(event) is TlsRequested:
                    return True
                self._answer(event)
        except Exception:  # our own fault, and nobody knows where the session stands
            log.exception("internal error")
            self.session.close(replies.technical_difficulties(self._terms.hostname, Reason.INTERNAL_ERROR))
        finally:
            self._advancing = False
        return False

    def _answer(self, event: Event) -> None:
        try:
            self._dispatch(event)
        except Exception as error:
            self._failed(event, error)

    def _failed(self, event: Event, error: Exception) -> None:
        """The reply to an event that was not to be worked out."""
        if isinstance(error, Rejected):
            self._reply(replies.make(error.code, error.text, Reason.POLICY_REJECT, closes=error.closes))
            if error.follow_with_421 and error.code != 421:
                self.end("disconnecting due to previous error", Reason.POLICY_REJECT)
        elif isinstance(error, PolicyError):
            self._reply(replies.POLICY_FAILED)
        elif isinstance(error, TransactionRefused):
            self._reply(error.reply)
        else:  # our own fault: the client may try again, the operator gets the traceback
            log.error("internal error in %s", type(event).__name__, exc_info=error)
            self._reply(replies.INTERNAL)

    def _dispatch(self, event: Event) -> None:
        """The events in the order of how often they come."""
        if isinstance(event, RcptRequested):
            self._rcpt(event)
        elif isinstance(event, MailCommand):
            self._mail(event)
        elif isinstance(event, MessageReceived):
            self._message_received(event)
        elif isinstance(event, EhloRequested):
            self._ehlo(event)
        elif isinstance(event, AuthRequested):
            self._auth(event)

    def tls_started(self, version: str, cipher: str) -> None:
        """The handshake succeeded: all that the client said in clear is forgotten (RFC 3207 §4.2)."""
        self._tls = (version, cipher)
        self._conn.values.clear()
        known = self._known_at_first() if self._accepted_with is None else self._accepted_with
        self._conn.values.update(known, tls_cipher=cipher, tls_protocol_version=version)
        self._facts = None
        self.session.tls_started()

    def lost(self) -> None:
        """The client is gone. A transaction that is under way goes on without it."""
        self._refusals.begin_anew(self._known_origin(), self._conn.values)
        if self._transaction is None:
            self.session = None  # type: ignore[assignment]  # it refers back to us, and garbage is better not made than collected

    def end(self, what: str, reason: Reason, enhanced: str = "4.3.2") -> None:
        """Ends the session with a 421."""
        self.session.close(replies.closing(self._terms.hostname, what, reason, enhanced))

    # -- answers to events --------------------------------------------------------------------------------------------

    def _ehlo(self, event: EhloRequested) -> None:
        extensions = event.extensions
        if "smtp_server_ehlo" in self._policy.handles:
            changed = self._policy.ehlo(event.name, self._conn, extensions)
            extensions = changed if changed is not None and extensions is not None else extensions
        hostname = self._terms.hostname
        if extensions is None:
            self._reply(replies.helo(hostname, event.name))
        else:
            self._reply(replies.ehlo(hostname, event.name, extensions))
        self._conn.values["ehlo_domain"] = event.name
        self._facts = None

    def _auth(self, event: AuthRequested) -> None:
        try:
            identity = self._policy.auth_plain(event.authorization, event.authentication, event.password, self._conn)
        except Rejected:
            self._page.add(_AUTH["refused"])
            raise
        except PolicyError:
            self._page.add(_AUTH["error"])
            raise
        self._page.add(_AUTH["refused" if identity is None else "accepted"])
        if identity is None:
            self._reply(replies.AUTH_FAILED)
            return
        self._conn.values.update(authn_id=identity.authn_id, authz_id=identity.authz_id)
        self._reply(replies.AUTH_OK)
        self._facts = None

    def _mail(self, event: MailCommand) -> None:
        if "smtp_server_mail_from" in self._policy.handles:
            self._policy.mail_from(event.sender, self._conn)
        self._decisions = []
        self._reply(MAIL_OK)

    def _rcpt(self, event: RcptRequested) -> None:
        decision = self._decide(event.recipient)
        if decision is None:
            self._reply(replies.relay_denied(self._endpoints.received_from))
            return
        if self._decisions and decision.recipient_class != self._decisions[0].recipient_class:
            self._reply(replies.MIXED_RECIPIENTS)
            return
        if "smtp_server_rcpt_to" in self._policy.handles:
            self._policy.rcpt_to(event.recipient, self._conn)
        self._decisions.append(decision)
        self._reply(RCPT_OK)

    def _decide(self, recipient: EnvelopeAddress) -> Decision | None:
        mail = self.session.mail
        assert mail is not None
        outcome = "error"
        self._asked_lua = False
        try:
            decision = decide(
                self._peer_is_relay_host,
                self._endpoints.peer,
                mail.sender.domain,
                recipient.domain,
                self._lookup,
            )
            outcome = "denied" if decision is None else "relay" if decision.relay else "report_only"
        finally:
            self._page.add((_DECIDED_BY_LUA if self._asked_lua else _DECIDED_FROM_CACHE)[outcome])
        return decision

    def _lookup(self, domain: str) -> ListenerDomain | None:
        try:
            found = self._policy.listener_domain(domain, self._endpoints.received_via, self._conn)
        except Exception:
            self._asked_lua = True  # what comes from the cache does not fail
            raise
        if self._policy.answered_from == "lua":
            self._asked_lua = True
        return found

    def _message_received(self, event: MessageReceived) -> None:
        self._message = event
        facts = self._session_facts(event)
        self._transaction = Transaction(self._services, facts, event, self._decisions)
        Steps(self._delivering(event), self._lost_answer).go_on()

    def _delivering(self, event: MessageReceived) -> Waits:
        """The transaction has its reply now or after the fleet's answer."""
        assert self._transaction is not None
        reply, failure = replies.INTERNAL, None
        try:
            reply = yield from self._transaction.steps()
        except Exception as error:
            failure = error
        if self.session.awaiting is not event:
            return  # the client was sent away meanwhile
        if failure is None:
            self._reply(reply)
        else:
            self._failed(event, failure)
        if not self._advancing:
            self._resume()

    def _lost_answer(self, error: Exception) -> None:
        log.error("internal error after a transaction", exc_info=error)

    def _reply(self, reply: Reply) -> None:
        if self._transaction is not None:
            self._page.observe(_MESSAGE_DURATION, self._transaction.seconds())
            if reply.code < 400:
                self._refusals.begin_anew(self._known_origin(), self._conn.values)
        self.session.reply(reply)
        self._message = None
        self._transaction = None

    def _session_facts(self, event: MessageReceived) -> SessionFacts:
        """What records and trace headers say of this session; made again only after EHLO, AUTH or STARTTLS."""
        if self._facts is None:
            self._facts = SessionFacts(self._terms.params, self._conn, self._origin(), self._received_start(False))
        if event.mail.smtputf8:
            return SessionFacts(self._terms.params, self._conn, self._facts.origin, self._received_start(True))
        return self._facts

    def _known_origin(self) -> records.Origin:
        return self._origin() if self._facts is None else self._facts.origin

    def _origin(self) -> records.Origin:
        version, cipher = self._tls or (None, None)
        return records.Origin(
            self.session.ehlo_name,
            self._endpoints.peer_address,
            self._session_id,
            tls_cipher=cipher,
            tls_protocol_version=version,
        )

    def _received_start(self, smtputf8: bool) -> str:
        session = self.session
        protocol = with_protocol(session.esmtp, session.tls, session.authenticated, smtputf8)
        return received_from(
            session.ehlo_name,
            self._endpoints.peer_address,
            self._terms.hostname,
            self._endpoints.local_address,
            protocol,
            ":".join(self._tls) if self._tls is not None else "",
        )

    # -- every reply comes by here ------------------------------------------------------------------------------------

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        """Counts a reply, and records it if it refuses something."""
        if verb != NO_COMMAND:
            self._page.add(_COMMAND_SLOTS[verb][reply.code // 100 - 2])
        if reply.reason is not None:
            self._record_refusal(verb, reply, argument)

    def _record_refusal(self, verb: int, reply: Reply, argument: bytes) -> None:
        command = None
        if verb == END_OF_DATA:
            command = "DATA"
        elif verb != NO_COMMAND:
            command = f"{fp.VERB_NAMES[verb]} {argument.decode('utf-8', 'replace')}".rstrip()
        sender, recipients = self._refused(verb, argument)
        unreadable = self._transaction.unreadable if self._transaction is not None else None
        self._refusals.refused(
            verb,
            reply,
            self._known_origin(),
            self._conn.values,
            command=command,
            sender=sender,
            recipients=recipients,
            added=_NOTHING if unreadable is None else {"report_unreadable": unreadable},
        )

    def _refused(self, verb: int, argument: bytes) -> tuple[EnvelopeAddress | None, list[EnvelopeAddress]]:
        """The sender and the recipients that a refusal concerns."""
        mail = self._message.mail if self._message is not None else self.session.mail
        sender = mail.sender if mail is not None else None
        if verb == fp.MAIL:
            return address_in(argument) or sender, []
        if verb == fp.RCPT:
            recipient = address_in(argument)
            return sender, [] if recipient is None else [recipient]
        if verb == END_OF_DATA:
            return sender, self._message.recipients if self._message is not None else self.session.recipients
        return sender, []
