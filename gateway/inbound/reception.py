"""One client connection's way through policy and relay: session events in, answers out.

This is where the SMTP session, the policy, the decision, transactions, records and metrics meet. No sockets (that is
connection.py), no protocol (smtp/session.py), no Lua (policy/). What is refused is counted and recorded by refusals.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.config import ListenerDomain, ListenerParams
from gateway.decision import Decision, decide, grants_anybody, ground, sender_matters
from gateway.delivery.services import Services
from gateway.delivery.transaction import SessionFacts, Transaction
from gateway.inbound import counted
from gateway.inbound.allowance import Allowance
from gateway.inbound.authentication import log_in
from gateway.inbound.facts import Secured, known_at_first, known_of_tls, limited_as_relay_host, origin, received_start
from gateway.inbound.failures import reply_to, words_for
from gateway.inbound.offer import as_policy_wants, begun
from gateway.inbound.refusals import Refusals, RefusedCommand, connection_refused
from gateway.inbound.watching import SessionWatch, explain
from gateway.inbound.welcome import allowed_instead, introduced, welcome
from gateway.inbound.wording import release
from gateway.later import Later, Steps, Waits, outcome_or_steps
from gateway.logs import records
from gateway.logs.identity import new_session_id
from gateway.net.endpoints import Endpoints
from gateway.policy.conn_meta import ConnMeta, claimed
from gateway.policy.decision_cache import Known
from gateway.policy.engine import Policy, Rejected
from gateway.policy.events import EHLO, MAIL_FROM, RCPT_TO
from gateway.policy.listener import TermsTable
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.events import (
    AuthRequested,
    EhloRequested,
    Event,
    ExternalRequested,
    MessageReceived,
    Observer,
    ReplyMade,
    TlsRequested,
)
from gateway.smtp.replies import MAIL_OK, RCPT_OK, Reason, Reply
from gateway.smtp.rewriting import RewritingSession
from gateway.smtp.session import NO_COMMAND, ServerSession
from gateway.smtp.terms import Terms
from gateway.smtp.xclient import XclientRequested

log = logging.getLogger(__name__)

_COMMAND_SLOTS, _MESSAGE_DURATION = counted.COMMANDS, counted.MESSAGE_DURATION
_DECIDED_BY_LUA, _DECIDED_FROM_CACHE = counted.DECIDED_BY_LUA, counted.DECIDED_FROM_CACHE


class Reception(Observer):
    """One connection.

    table: where its terms are from; the policy may have others for it. resume: called when advance() can go on.
    """

    def __init__(
        self,
        services: Services,
        table: TermsTable,
        terms: Terms,
        endpoints: Endpoints,
        resume: Callable[[], None],
    ) -> None:
        self._services = services
        self._policy: Policy = self._services.policy  # of what has a C type: attributes cost next to nothing
        self._page = self._services.page
        self._table = table
        self._count = table.count
        self._terms = terms
        self._endpoints = endpoints
        self._resume = resume
        made = RewritingSession if self._policy.rewrites_replies else ServerSession
        self.session: ServerSession = made(terms, self, self._services.contents)
        self._refusals = Refusals(services)
        self.allowance: Allowance | None = None  # see hold_to()
        self._is_rated = False  # it counts messages
        self._session_id = new_session_id()
        self._peer_is_relay_host = limited_as_relay_host(self.session, endpoints, terms)
        self._conn = ConnMeta(known_at_first(endpoints, terms))
        self._accepted_with: dict[str, Any] | None = None  # the metadata after the policy looked at the connection
        self._facts: SessionFacts | None = None
        self._decisions: list[Decision] = []
        self._asks_about_recipients = RCPT_TO in self._policy.handles
        self._tls: Secured | None = None
        self._message: MessageReceived | None = None
        self._transaction: Transaction | None = None
        self._why: dict[str, str] | None = None  # what is refused now, where that needs words of its own
        self._steps: Steps | None = None  # those that wait for an answer; the session stands still meanwhile

    # -- the connection's life ----------------------------------------------------------------------------------------

    def hold_to(self, allowance: Allowance | None) -> None:
        """What the client may do of what its listener limits; None: all."""
        self.allowance = allowance
        self._is_rated = allowance is not None and allowance.counts_messages

    def start(self) -> None:
        """The greeting, if the policy does not object."""
        if self._services.traced:
            self._watched(self._services.monotonic()).begin()
        self.session.may_introduce = self._terms.takes_xclient and self._terms.trusts(self._endpoints.peer)
        if self._policy.is_asked_at_first or self._terms.greets_late:
            self.session.hold()
            self._walk(self._welcome(self.session))
        else:
            self._greet(self._terms.greeting)
        if self._policy.rewrites_replies:
            self.advance(0)

    def _welcome(self, waiting: ServerSession | None) -> Waits:
        found = yield from welcome(
            self._policy, self._conn, self._endpoints, self._terms, self._table, self._adopt, waiting
        )
        self._why = None if found.rule is None else {"rule": found.rule}
        self._accepted_with = self._conn.values.copy()
        self._greet(found.greeting)
        if found.follow_with_421:
            self._close("disconnecting due to previous error", Reason.POLICY_REJECT)

    def _introduce(self, event: XclientRequested) -> Waits:
        """Another client is there from now on, and is greeted."""
        self._endpoints = introduced(event, self._endpoints)
        if self._tls is not None:
            self._tls = self._tls._replace(certificate=None)  # the proxy's
        refusal = self._adopt(self._table.terms_for(self._endpoints.peer_address, self._endpoints.local_address), event)
        self._know(known_at_first(self._endpoints, self._terms))
        if refusal is not None:
            self._reply(refusal)
            return
        yield from self._welcome(None)
        if event.login:
            self._conn.establish(event.login, event.login, claimed(event.login, event.login), ())

    def _know(self, known: dict[str, Any]) -> None:
        """Everything that was learned before is forgotten."""
        self._facts = None
        self._conn.forget()
        self._conn.values.update(known)
        if self._tls is not None:
            self._conn.values.update(known_of_tls(self._tls))

    def _adopt(self, terms: Terms, event: XclientRequested | None = None) -> Reply | None:
        allowance, refusal = allowed_instead(self.allowance, self._services, self._terms, terms, self._endpoints, event)
        self.hold_to(allowance)
        self._terms = terms
        self.session.adopt(terms)
        self._peer_is_relay_host = limited_as_relay_host(self.session, self._endpoints, terms)
        self._conn.values.update(hostname=terms.hostname, **terms.params.meta)
        return refusal

    def _greet(self, greeting: Reply) -> None:
        if type(self.session.awaiting) is XclientRequested:
            self._reply(greeting)
            return
        if greeting.reason is not None:
            connection_refused(self._services, greeting)
        self.session.greet(greeting)

    def watch(self, began: float) -> None:
        """Others look on than before. began: when the connection was opened."""
        under_way = self.session if self._message is None else self._message
        self._watched(began).join(under_way.mail, under_way.recipients)

    def _watched(self, began: float) -> SessionWatch:
        return SessionWatch(self._services, self._conn, self._session_id, self._endpoints, began)

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

    def params(self) -> ListenerParams:
        """The listener's parameters for this connection."""
        return self._terms.params

    def peer_address(self) -> str:
        """The client's IP address."""
        return self._endpoints.peer_address

    def advance(self, most: int) -> bool:
        """Works through what was received, at most so many commands of it, and up to what has to be waited for.

        True: STARTTLS was answered with 220, and the handshake is the caller's; tls_started() follows it.
        """
        self.session.allow(most)
        try:
            while (event := self.session.next_event()) is not None:
                if type(event) is TlsRequested:
                    return True
                self._answer(event)
        except Exception:  # our own fault, and nobody knows where the session stands
            log.exception("internal error")
            self.session.give_up()
            self.session.close(replies.technical_difficulties(self._terms.hostname, Reason.INTERNAL_ERROR))
        return False

    def _answer(self, event: Event) -> None:
        if self._conn.witness is not None and type(event) is not ReplyMade:
            self._conn.witness.command(*self.session.command(), event)
        try:
            if self.allowance is not None and (self._is_rated or isinstance(event, AuthRequested)):
                refusal = self.allowance.asked(event)
                if refusal is not None:
                    self._reply(refusal)
                    return
            steps = self._dispatch(event)
        except Exception as error:
            self._failed(error)
        else:
            if steps is not None:
                self._walk(steps)

    def _dispatch(self, event: Event) -> Waits | None:
        """The events in the order of how often they come. What can be answered at once is; for the rest the steps
        towards the answer are returned."""
        if isinstance(event, RcptCommand):
            return self._rcpt(event)
        if isinstance(event, MailCommand):
            return self._mail(event)
        if isinstance(event, MessageReceived):
            return self._message_received(event)
        if isinstance(event, EhloRequested):
            return self._ehlo(event)
        if isinstance(event, ReplyMade):
            assert isinstance(self.session, RewritingSession)
            return release(event, self.session, self._policy, self._conn)
        if isinstance(event, XclientRequested):
            return self._introduce(event)
        assert isinstance(event, AuthRequested | ExternalRequested)
        return self._auth(event)

    def _walk(self, steps: Waits) -> None:
        try:
            outcome = outcome_or_steps(steps)
        except Exception as error:
            self._failed(error)
            return
        if type(outcome) is Steps:
            self._steps = outcome
            self._steps.then(self._go_on)
        else:
            self._arrive(outcome)

    def _go_on(self) -> None:
        """The steps that had to wait are over."""
        walk = self._steps
        assert walk is not None
        self._steps = None
        try:
            reply = walk.result()
        except Exception as error:
            self._failed(error)
        else:
            self._arrive(reply)
        if self.session is not None:
            self._resume()

    def _arrive(self, reply: Reply | None) -> None:
        """Says the reply to which the steps have led, unless they have said it themselves."""
        if reply is not None and self.session.awaiting is self._message:  # else the client was sent away meanwhile
            self._reply(reply)

    def _failed(self, error: Exception) -> None:
        """Answers an event with what went wrong on the way to its answer."""
        event = self.session.awaiting
        if event is None:
            log.error("an error that nobody waits for any more", exc_info=error)
        else:
            self._why = words_for(error, event)
            self._reply(reply_to(error, event))
            if isinstance(error, Rejected) and error.follow_with_421:
                self._close("disconnecting due to previous error", Reason.POLICY_REJECT)

    def tls_started(self, version: str, cipher: str, *more: Any) -> None:
        """The handshake succeeded: all that was said in clear is forgotten (RFC 3207 §4.2). more: for Secured."""
        self._tls = Secured(version, cipher, *more)
        if self._tls.certificate is not None and "AUTH" not in self._terms.params.withhold_extensions:
            self.session.identities = self._tls.certificate.identities
        accepted_with = self._accepted_with
        self._know(known_at_first(self._endpoints, self._terms) if accepted_with is None else accepted_with)
        if self._conn.witness is not None:
            self._conn.witness.tls(version, cipher)
        self.session.tls_started()

    def tls_failed(self, cause: str, text: str) -> None:
        """The handshake did not succeed, and the connection ends."""
        if self._conn.witness is not None:
            self._conn.witness.tls_failed(cause, text)

    def lost(self) -> None:
        """The client is gone, and nobody waits for the policy any more; but a transaction that is under way goes on."""
        self._refusals.begin_anew(self._known_origin(), self._conn.values)
        if self.allowance is not None:
            self.allowance.disconnect()
        if self._conn.witness is not None:
            self._conn.witness.closed(self._transaction is not None)
        if self._transaction is None:
            if self._steps is not None:
                self._steps.cancel()
                self._steps = None
            self.session.give_up()
            self.session = None  # type: ignore[assignment]  # it refers back to us, and garbage is better not made than collected

    def end(self, what: str, reason: Reason, enhanced: str = "4.3.2") -> None:
        """Ends the session with a 421."""
        self._close(what, reason, enhanced)
        if self._policy.rewrites_replies:
            self.advance(0)

    def _close(self, what: str, reason: Reason, enhanced: str = "4.3.2") -> None:
        self.session.close(replies.closing(self._terms.hostname, what, reason, enhanced))

    # -- answers to events --------------------------------------------------------------------------------------------

    def _ehlo(self, event: EhloRequested) -> Waits | None:
        if event.extensions is not None:
            taken = self._services.couriers.fleet_takes()
            event.extensions = self._terms.offered(event.extensions, taken, self.session.tls)
        if EHLO in self._policy.handles:
            return self._ask_about_ehlo(event)
        self._begin(event)
        return None

    def _ask_about_ehlo(self, event: EhloRequested) -> Waits:
        yield from as_policy_wants(event, self._policy, self._conn, self.session.tls)
        self._begin(event)

    def _begin(self, event: EhloRequested) -> None:
        self._reply(replies.ehlo(self._terms.hostname, event.name, event.extensions))
        self._conn.values["ehlo_domain"] = event.name
        self._facts = None

    def _auth(self, event: AuthRequested | ExternalRequested) -> Waits:
        reply = yield from log_in(event, self._policy, self._conn, self._page, self.allowance)
        self._facts = None
        self._reply(reply)

    def _mail(self, event: MailCommand) -> Waits | None:
        reply = MAIL_OK
        if event.requests is not None:
            reply = begun(event.requests, self._services.now_ns(), self._peer_is_relay_host, self.session)
        if MAIL_FROM in self._policy.handles:
            return self._ask_about_sender(event, reply)
        self._decisions = []
        self._reply(reply)
        return None

    def _ask_about_sender(self, event: MailCommand, reply: Reply) -> Waits:
        yield self._policy.mail_from(event.sender, self._conn)
        self._decisions = []
        self._reply(reply)

    def _rcpt(self, event: RcptCommand) -> Waits | None:
        """Answers at once where all that matters is in the cache."""
        recipient = self._listener_domain(event.recipient)
        sender: Later | None = None
        if type(recipient) is Known and event.recipient.domain:
            granted = recipient.result()
            if sender_matters(self._peer_is_relay_host, granted):
                sender = self._senders_domain()
            if (sender is None or type(sender) is Known) and not self._asks_about_recipients:
                decision = self._decide(granted, None if sender is None else sender.result(), _DECIDED_FROM_CACHE)
                if not self._refuses(decision):
                    self._take(decision)
                return None
        return self._ask_about_recipient(event, recipient, sender)

    def _ask_about_recipient(self, event: RcptCommand, recipient: Later, sender: Later | None) -> Waits:
        try:
            granted = yield recipient
            if not event.recipient.domain and not grants_anybody(granted):
                # RFC 5321 §4.5.1: <Postmaster> is somebody wherever mail is taken for a domain, and means our own
                recipient = self._policy.listener_domain(
                    self._terms.hostname.lower(), self._endpoints.received_via, self._conn
                )
                granted = yield recipient
            if sender is None and sender_matters(self._peer_is_relay_host, granted):
                sender = self._senders_domain()
            granted_to_sender = None if sender is None else (yield sender)
        except Exception:
            self._page.add(_DECIDED_BY_LUA["error"])  # what comes from the cache does not fail
            raise
        cached = type(recipient) is Known and (sender is None or type(sender) is Known)
        decision = self._decide(granted, granted_to_sender, _DECIDED_FROM_CACHE if cached else _DECIDED_BY_LUA)
        if self._refuses(decision):
            return
        if self._asks_about_recipients:
            yield self._policy.rcpt_to(event.recipient, self._conn)
        self._take(decision)

    def _listener_domain(self, address: EnvelopeAddress) -> Later:
        return self._policy.listener_domain(address.domain, self._endpoints.received_via, self._conn)

    def _senders_domain(self) -> Later:
        mail = self.session.mail
        assert mail is not None
        return self._listener_domain(mail.sender)

    def _decide(
        self, recipient: ListenerDomain | None, sender: ListenerDomain | None, slots: dict[str, int]
    ) -> Decision | None:
        decision = decide(self._peer_is_relay_host, self._endpoints.peer, recipient, sender)
        self._page.add(slots["denied" if decision is None else "relay" if decision.relay else "report_only"])
        if decision is None or self._conn.witness is not None:
            known = ground(self._peer_is_relay_host, self._endpoints.peer, recipient, sender), recipient, sender
            self._why = explain(self._policy, self._conn, self.session, decision, *known, slots is _DECIDED_FROM_CACHE)
        return decision

    def _refuses(self, decision: Decision | None) -> bool:
        """Answers a recipient that the decision keeps out."""
        if decision is None:
            self._reply(replies.relay_denied(self._endpoints.received_from))
            return True
        if self._decisions and decision.recipient_class != self._decisions[0].recipient_class:
            self._reply(replies.MIXED_RECIPIENTS)
            return True
        return False

    def _take(self, decision: Decision | None) -> None:
        assert decision is not None
        self._decisions.append(decision)
        self._reply(RCPT_OK)

    def _message_received(self, event: MessageReceived) -> Waits:
        self._count.messages += 1
        self._message = event
        self._transaction = Transaction(self._services, self._session_facts(event), event, self._decisions)
        return self._transaction.steps()

    def _reply(self, reply: Reply) -> None:
        if self._transaction is not None:
            self._page.observe(_MESSAGE_DURATION, self._transaction.seconds())
            if reply.code < 400:
                self._refusals.begin_anew(self._known_origin(), self._conn.values)
        self.session.reply(reply)
        self._message = self._transaction = None

    def _session_facts(self, event: MessageReceived) -> SessionFacts:
        """What records and trace headers say of this session; made again only after EHLO, AUTH or STARTTLS."""
        if self._facts is None:
            self._facts = self._made_facts(False)
        return self._made_facts(True) if event.mail.smtputf8 else self._facts

    def _made_facts(self, smtputf8: bool) -> SessionFacts:
        start = received_start(self.session, self._endpoints, self._terms.hostname, self._tls, smtputf8)
        return SessionFacts(self._terms, self._conn, self._known_origin(), start)

    def _known_origin(self) -> records.Origin:
        if self._facts is not None:
            return self._facts.origin
        return origin(self.session, self._endpoints, self._session_id, self._tls)

    # -- every reply comes by here ------------------------------------------------------------------------------------

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        """Counts a reply, and records it if it refuses something."""
        self.released(verb, reply, argument, None if reply.reason is None else self._refused(verb, argument))

    def held(self, verb: int, reply: Reply, argument: bytes) -> RefusedCommand | None:
        """What the record of a refusal says that is sent later."""
        return None if reply.reason is None else self._refused(verb, argument)

    def released(self, verb: int, reply: Reply, argument: bytes, kept: RefusedCommand | None) -> None:
        """Counts and records a reply that was held."""
        if verb != NO_COMMAND:
            self._page.add(_COMMAND_SLOTS[verb][reply.code // 100 - 2])
        if kept is not None:
            told = self.allowance is None or self.allowance.refused(verb, reply)
            self._refusals.refused(verb, reply, self._known_origin(), self._conn, kept, told)
        if self._conn.witness is not None:
            self._conn.witness.replied(verb, reply, argument)

    def _refused(self, verb: int, argument: bytes) -> RefusedCommand:
        unreadable = self._transaction.unreadable if self._transaction is not None else None
        under_way = self.session if self._message is None else self._message
        refused = RefusedCommand(verb, argument, under_way, unreadable, self._why)
        self._why = None
        return refused
