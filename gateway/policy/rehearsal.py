"""A rehearsal: the handlers of a policy are called as for the first message of a client, and what fails is a problem.

Nothing is sent anywhere, and nobody is asked. Where a handler asks, everything is tried twice: with empty answers, and
without any. What fails whatever is answered is a problem of the policy; the rest is only told, with who is asked where.
No session and no socket is in play, only the events in their order.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, NamedTuple

from gateway._fastpath import CidrSet
from gateway.config import BatchHandling, Listener, ListenerDomain
from gateway.decision import grants_anybody
from gateway.later import Later
from gateway.mail.message import Message
from gateway.net.endpoints import Endpoints
from gateway.policy import events, runs
from gateway.policy.background import UNANSWERED, Idle
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.listener import Block, TermsTable
from gateway.policy.printing import nowhere
from gateway.policy.problems import PolicyError, Problem, Rejected, Severity
from gateway.smtp.address import parse_address
from gateway.smtp.terms import Terms

# RFC 2606 §2: .invalid is nobody's domain; RFC 5737: 192.0.2.0/24 is nobody's network.
STRANGER = "192.0.2.1"
NOBODYS_DOMAIN = "nobody-has-heard-of-this.invalid"
_LOCAL = "192.0.2.2"
_SENDER = f"sender@{NOBODYS_DOMAIN}"
_FIRST = "a first message"
# Sender, how many recipients, and what such a message is called.
_SEVERAL = "a message to two recipients"
_MESSAGES = ((_SENDER, 1, _FIRST), ("", 1, "a message from <>"), (_SENDER, 2, _SEVERAL))
_EXTENSIONS = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")
_TLS = {"tls_protocol_version": "TLSv1_3", "tls_cipher": "TLS13_AES_256_GCM_SHA384"}
_MOST_CLIENTS = 16  # of a listener, that are tried
_MOST_OCTETS = 65_536  # of a file with domains, that are looked through
_MOST_NAMED = 200  # domains, and pairs of words, in a policy's text that are tried

_TEXT = re.compile(r"(?P<quote>[\"'])(?P<text>(?:(?!(?P=quote))[^\\\n])+)(?P=quote)|(?P<key>[a-z]\w*)\s*=\s*(?=[\"'])")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]", re.IGNORECASE)


class _Over(Exception):
    """The session goes no further: a handler refused, or failed."""


class _Client(NamedTuple):
    """local: our end, with its port; "" where a handler has sent the client away. relays: it may, to anywhere."""

    local: str
    conn: ConnMeta
    relays: bool


class _Question(NamedTuple):
    """Somebody is asked at a place in the policy."""

    file: str
    line: int
    whom: str


class Rehearsal:
    """Of one policy and its background, which is idle. problems: what failed, and who is asked. computed: the
    parameters that a handler gave strangers, by the number of the listener.
    """

    def __init__(self, policy: Policy, background: Idle) -> None:
        self.problems: list[Problem] = []
        self.computed: dict[int, Mapping[str, Any]] = {}
        self._policy = policy
        self._background = background
        self._asked: list[_Question] = []  # in what runs
        self._unanswered: dict[_Question, list[str]] = {}  # with the events that fail without an answer
        self._message = _FIRST
        self._splits = False  # whether each recipient gets a message of its own
        self._failures: dict[Problem, str] = {}  # of one round: with whose answers they came, "" where nobody's did
        self._names = list(dict.fromkeys(_named(policy)))
        background.asked = self._note

    def run(self) -> None:
        """Sessions of those whom each listener tells apart, of a stranger who may write to some domain, of one who may
        relay as some domain, and of somebody who logs in.
        """
        with _silence():
            given = self._round()
            certain = [problem for problem, whom in given.items() if not whom]
            if self._unanswered:
                self._background.age()
                self._background.away = True
                away = self._round()
                certain += [problem for problem in given if given[problem] and problem in away]
                self._tell(given, certain, "an empty answer")
                self._tell(away, certain, "no answer")
        self.problems = [*certain, *self.problems, *map(self._told, sorted(self._unanswered))]

    def granted(self, domain: str) -> ListenerDomain | None:
        """What a stranger's mail for a domain is granted; None for nothing, and where nobody knows."""
        listeners = [*self._policy.config.listeners, Listener(listen=f"{_LOCAL}:25")]
        with _silence(), suppress(_Over):
            stranger = self._client(STRANGER, _local_end(listeners[0]), TermsTable(listeners[0], offer_auth=False))
            self._before_the_decision(stranger)
            return self._listener_domain(domain, stranger)
        return None

    # --- what is told -------------------------------------------------------------------------------------------------

    def _tell(self, failures: dict[Problem, str], certain: list[Problem], answer: str) -> None:
        for problem, whom in failures.items():
            if problem not in certain:
                hint = f"{problem.hint}, where there is {answer} from {whom}"
                self.problems.append(Problem(problem.file, problem.line, problem.message, hint, Severity.NOTE))

    def _told(self, question: _Question) -> Problem:
        failing = ", ".join(self._unanswered[question])
        hint = f"without an answer {failing} fails" if failing else ""
        message = f"asks {question.whom}, which check does not"
        return Problem(question.file, question.line, message, hint, Severity.NOTE)

    def _note(self, whom: str) -> None:
        """A handler asks somebody."""
        question = _Question(*self._policy.calls_from(), whom)
        self._asked.append(question)
        self._unanswered.setdefault(question, [])

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _round(self) -> dict[Problem, str]:
        """What failed in all sessions."""
        self._failures, self._asked = {}, []
        for number, listener in enumerate(self._policy.config.listeners or (Listener(listen=f"{_LOCAL}:25"),)):
            self._splits = listener.overrides.get("batch_handling") is BatchHandling.BIFURCATE
            table = TermsTable(listener, offer_auth=False)
            stranger, *others = _clients(listener)
            self._session(self._client(*stranger, table, number))
            for client in [*others, *_among(self.computed.get(number, {}).get("relay_hosts", ()), stranger)]:
                self._session(self._client(*client, table, number))
            self._where_granted(lambda peer, t=table, local=stranger[1]: self._client(peer, local, t))  # type: ignore[misc]
            self._session_after_login(self._client(*stranger, table))
        return self._failures

    def _client(self, peer: str, local: tuple[str, int], table: TermsTable, number: int | None = None) -> _Client:
        """Somebody who has just connected. number: of the listener, whose computed parameters are noted then."""
        endpoints = Endpoints((peer, 40_000), local)
        terms = table.terms_for(endpoints.peer_address, endpoints.local_address)
        conn = _conn(endpoints, terms)
        with suppress(_Over):
            via = endpoints.received_via
            block = self._ask(events.DYNAMIC_PARAMETERS, lambda: self._policy.dynamic_parameters(via, conn))
            if isinstance(block, Block):
                terms = table.terms_with(endpoints, block)
                conn = _conn(endpoints, terms)
                if number is not None:
                    self.computed.setdefault(number, block.plain)
            return _Client(endpoints.received_via, conn, endpoints.peer in terms.relay_hosts)
        return _Client("", conn, False)

    def _session(self, client: _Client, domain: str = NOBODYS_DOMAIN) -> None:
        try:
            self._before_the_decision(client)
        except _Over:
            return
        for sender, copies, self._message in _MESSAGES:
            with suppress(_Over):
                self._mail(client, [f"recipient{number}@{domain}" for number in range(copies)], sender)
        self._message = _FIRST

    def _session_after_login(self, client: _Client) -> None:
        with suppress(_Over):
            self._before_the_decision(client)
            if self._login(client.conn):
                self._mail(client._replace(relays=False), [f"recipient@{NOBODYS_DOMAIN}"], _SENDER)

    def _where_granted(self, client_at: Callable[[str], _Client]) -> None:
        """Mail to a domain that the policy names and strangers may write to, and from one whose clients may relay."""
        to_anybody = from_somebody = False
        stranger = client_at(STRANGER)
        with suppress(_Over):
            self._before_the_decision(stranger)
            self._ask(events.MAIL_FROM, lambda: self._policy.mail_from(parse_address(_SENDER), stranger.conn))
        for domain in (name.lower() for name in self._names if _DOMAIN.fullmatch(name)):
            with suppress(_Over):
                granted = self._listener_domain(domain, stranger)
                if not to_anybody and grants_anybody(granted):
                    to_anybody = True
                    self._session(client_at(STRANGER), domain)
                if not from_somebody and granted is not None and (peers := list(_addresses(granted.relay_from))):
                    from_somebody = True
                    client = client_at(peers[0])._replace(relays=True)
                    self._before_the_decision(client)
                    self._mail(client, [f"recipient@{NOBODYS_DOMAIN}"], f"sender@{domain}")

    def _before_the_decision(self, client: _Client) -> None:
        policy, conn = self._policy, client.conn
        if not client.local:
            raise _Over
        self._ask(events.CONNECTION_ACCEPTED, lambda: policy.connection_accepted(conn))
        self._ask(events.EHLO, lambda: policy.ehlo(NOBODYS_DOMAIN, conn, _EXTENSIONS))
        conn.values["ehlo_domain"] = NOBODYS_DOMAIN
        self._ask(events.REWRITE_RESPONSE, lambda: policy.rewrite_response(250, "OK", "EHLO", conn))

    def _login(self, conn: ConnMeta) -> bool:
        """Logs in with a name and a password that stand beside each other in the policy, if there are such."""
        if events.AUTH_PLAIN not in self._policy.handles:
            return False
        conn.values.update(_TLS)
        for user, password in [(NOBODYS_DOMAIN, NOBODYS_DOMAIN), *zip(self._names, self._names[1:], strict=False)]:
            attempt = lambda u=user, p=password: self._policy.auth_plain(u, u, p, conn)  # noqa: E731
            try:
                found = self._ask(events.AUTH_PLAIN, attempt)
            except _Over:
                continue
            if found is not None:
                conn.establish(found.authn_id, found.authz_id, found.identities, found.groups)
                return True
        return False

    def _mail(self, client: _Client, recipients: list[str], sender: str) -> None:
        """One message, as far as the decision lets it come."""
        policy = self._policy
        self._ask(events.MAIL_FROM, lambda: policy.mail_from(parse_address(sender), client.conn))
        granted = self._listener_domain(recipients[0].rpartition("@")[2].lower(), client)
        if client.relays or grants_anybody(granted):
            self._after_the_decision(client.conn, recipients, sender)

    def _listener_domain(self, domain: str, client: _Client) -> ListenerDomain | None:
        local, conn = client.local, client.conn
        answer = self._ask(events.LISTENER_DOMAIN, lambda: self._policy.listener_domain(domain, local, conn))
        return answer if isinstance(answer, ListenerDomain) else None

    def _after_the_decision(self, conn: ConnMeta, recipients: list[str], sender: str) -> None:
        policy = self._policy
        to = list(map(parse_address, recipients))
        for recipient in to:
            self._ask(events.RCPT_TO, lambda recipient=recipient: policy.rcpt_to(recipient, conn))  # type: ignore[misc]
        content, meta = _content(recipients[0]), conn.values.copy()
        message = Message("0" * 32, parse_address(sender), to, data=content, meta=meta)
        self._ask(events.DATA, lambda: policy.data(message, conn))
        self._ask(events.SPLIT_TRANSACTION, lambda: policy.split_transaction(message, conn))
        if self._splits:
            message.recipients = message.recipients[:1]
        self._ask(events.MESSAGE_RECEIVED, lambda: policy.message_received(message, conn))
        for logger in policy.config.local_logs:
            if logger.filter_event:
                event = logger.filter_event
                self._ask(event, lambda event=event: policy.log_filter(event, message))  # type: ignore[misc]
        self._ask(events.QUEUE_CONFIG, lambda: policy.destination(message.queue_name()))

    def _ask(self, event: str, ask: Callable[[], Later]) -> Any:
        """The answer; None where the handler has none for want of somebody else's. Raises _Over."""
        if event not in self._policy.handles and event != events.QUEUE_CONFIG:
            return None
        asked_before = len(self._asked)
        try:
            answer = ask()
            if not answer.done:
                answer.cancel()
                return None
            return answer.result()
        except Rejected:
            raise _Over from None
        except PolicyError as error:
            asked = self._asked[asked_before:] or self._asked  # a failure may be remembered
            if asked and UNANSWERED in str(error):
                failing = self._unanswered[asked[-1]]
                if event not in failing:
                    failing.append(event)
                return None
            whom = asked[-1].whom if asked else ""
            if self._failure(event, str(error), _FIRST) not in self._failures:
                self._failures.setdefault(self._failure(event, str(error), self._message), whom)
            raise _Over from None

    def _failure(self, event: str, text: str, message: str) -> Problem:
        policy = self._policy
        text = text.removeprefix(f"{event}: ").removeprefix(f"{events.EGRESS_PATH}: ")
        file, line = policy.registered_at(event) if event in policy.handles else (policy.source.path, 0)
        found = Problem.from_lua(text, file, policy.source.files)
        severity = Severity.WARNING if message == _SEVERAL else Severity.ERROR
        return Problem(found.file, found.line or line, found.message, f"so {event} fails for {message}", severity)


@contextmanager
def _silence() -> Iterator[None]:
    """What fails in a rehearsal is told by the command, not logged; what handlers print there is nobody's mail."""
    runs.log.addFilter(_nothing)
    try:
        with nowhere():
            yield
    finally:
        runs.log.removeFilter(_nothing)


def _nothing(_: object) -> bool:
    return False


def _named(policy: Policy) -> Iterator[str]:
    """Texts that stand in quotes in a policy's files, and names of fields that have one; some of each."""
    for content in [*policy.source.files.values(), *_domain_files(policy)]:
        texts = _TEXT.finditer((content or b"").decode("utf-8", "replace"))
        named = (one["text"] or one["key"] for one, _ in zip(texts, range(_MOST_NAMED), strict=False))
        yield from (f"any{name[1:]}" if name.startswith("*.") else name for name in named)


def _domain_files(policy: Policy) -> Iterator[bytes]:
    """The beginnings of files of `policy-extras.listener_domains`, which are no part of the source."""
    for name in dict.fromkeys(name for table in policy.source.tables.values() for name in table.files):
        with suppress(OSError), open(name, "rb") as file:
            yield file.read(_MOST_OCTETS)


def _content(recipient: str) -> bytes:
    return (
        f"From: <{_SENDER}>\r\nTo: <{recipient}>\r\nSubject: relay-gateway check\r\n"
        f"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@{NOBODYS_DOMAIN}>\r\n\r\nHello\r\n"
    ).encode()


def _conn(endpoints: Endpoints, terms: Terms) -> ConnMeta:
    known = {"received_from": endpoints.received_from, "received_via": endpoints.received_via}
    return ConnMeta({**known, "reception_protocol": "ESMTP", "hostname": terms.hostname, **terms.params.meta})


# --- who connects, and from where -------------------------------------------------------------------------------------


def _clients(listener: Listener) -> list[tuple[str, tuple[str, int]]]:
    """Peers, and our ends of their connections: a stranger first, then one for each that a listener tells apart."""
    stranger = STRANGER, _local_end(listener)
    parameters = {"relay_hosts": ("127.0.0.1",), **listener.overrides, "peer": listener.peer, "via": listener.via}
    return list(dict.fromkeys([stranger, *islice(_told_apart(parameters, stranger, ()), _MOST_CLIENTS)]))


def _told_apart(
    parameters: Mapping[str, Any], client: tuple[str, tuple[str, int]], within: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, int]]]:
    """within: the CIDR of the peers that the parameters are for; () for all."""
    yield from _among(parameters.get("relay_hosts", ()), client, within)
    for cidr, block in (parameters.get("peer") or {}).items():
        for inside in _among((cidr,), client, within):
            yield inside
            yield from _told_apart(block, inside, (cidr,))
    for cidr, block in (parameters.get("via") or {}).items():
        for address in islice(_addresses(CidrSet((cidr,))), 1):
            there = client[0], (address, client[1][1])
            yield there
            yield from _told_apart(block, there, within)


def _among(
    cidrs: Iterable[str], client: tuple[str, tuple[str, int]], within: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, int]]]:
    """The first of some peers, if there are any. within: and of these, too."""
    peers = list(_addresses(CidrSet(tuple(cidrs))))
    if within:
        allowed = CidrSet(within)
        listed = CidrSet(tuple(cidrs))
        inner = (peer for peer in _addresses(allowed) if listed.contains_text(peer))
        peers = [*(peer for peer in peers if allowed.contains_text(peer)), *inner]
    yield from ((peer, client[1]) for peer in peers[:1])


def _addresses(cidrs: CidrSet) -> Iterator[str]:
    """An address of each prefix."""
    for text in cidrs:
        network = ipaddress.ip_network("192.0.2.3" if text == "any" else text)
        yield str(network.network_address if network.num_addresses == 1 else network[1])


def _local_end(listener: Listener) -> tuple[str, int]:
    host, _, port = listener.listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "fd"):
        host = _LOCAL
    return host.strip("[]"), int(port) if port.isdigit() and port != "0" else 25
