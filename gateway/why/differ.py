"""What would have to differ for the opposite answer: one thing of a question at a time is changed, and asked again.

What is worth trying stands in the policy: its lists, its listeners, and the words in its files. A proposal is made only
after it was tried, with the reply that it got.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from gateway._fastpath import CidrError, CidrSet
from gateway.config import Listener, ListenerDomain
from gateway.later import Waits
from gateway.policy import events
from gateway.smtp.address import AddressError, parse_mailbox
from gateway.smtp.replies import Reply
from gateway.why.conversation import Account, Desk, Question, other
from gateway.why.messages import MESSAGES

MOST_PROPOSALS = 3  # for one thing
MOST_TRIALS = 300  # for one thing
MOST_SECONDS = 10.0  # for all of them: handlers may wait

_NOBODY = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "127.0.0.1", "2001:db8::1")  # RFC 5737
_NOBODYS_DOMAIN = "nobody-has-heard-of-this.invalid"  # RFC 2606 §2
_SOMEBODY = "somebody"
_WORD = re.compile(r"""(["'])([^"'\s]{1,255})\1""")
_DOMAIN = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.[A-Za-z][A-Za-z0-9-]+\Z")


class Change(NamedTuple):
    """One thing that may differ. before, after: as a person would say it. question: with it changed."""

    what: str
    before: object
    after: object
    question: Question


class Proposal(NamedTuple):
    """A change that was tried and gives the opposite answer."""

    change: Change
    reply: Reply


def proposals(desk: Desk, session: Account) -> Waits:
    """The steps towards (a list of Proposals, whether there was time for all that is worth trying): what makes an
    accepted message a refused one, or the other way round.
    """
    found: list[Proposal] = []
    deadline = desk.monotonic() + MOST_SECONDS
    for changes in _Candidates(desk, session).all():
        better: list[Proposal] = []
        for change in islice(changes, MOST_TRIALS):
            if desk.monotonic() > deadline:
                return found + better, False
            tried: Account = yield from desk.ask(change.question)
            if tried.accepted is not session.accepted:
                better.append(Proposal(change, tried.decisive.reply))
                if len(better) == MOST_PROPOSALS:
                    break
        found += better
    return found, True


class _Candidates:
    """What is tried, one thing after the other."""

    def __init__(self, desk: Desk, session: Account) -> None:
        self._session = session
        self._question = session.question
        self._config = desk.policy.config
        self._offers_auth = events.AUTH_PLAIN in desk.policy.handles
        texts = [text.decode("utf-8", "replace") for text in desk.policy.source.files.values() if text is not None]
        self._words = list(dict.fromkeys(match[2] for text in texts for match in _WORD.finditer(text)))
        self._domains = [word.replace("*", "any") for word in self._words if _DOMAIN.match(word)]

    def all(self) -> Iterator[Iterator[Change]]:
        """Each kind of change, the cheapest for the client first."""
        yield self._peers()
        yield self._identities()
        yield self._tls()
        yield self._listeners()
        yield self._fewer_recipients()
        yield self._recipients()
        yield self._senders()
        yield self._messages()
        yield self._metadata()

    def _peers(self) -> Iterator[Change]:
        question = self._question
        host, port = question.peer
        entries = [*_lists_of(self._config.listeners[question.listener])]
        for asked in self._session.notes.granted:
            granted = None if asked.answer.failed else asked.answer.result()
            if isinstance(granted, ListenerDomain):
                entries += granted.relay_from
        entries += [word for word in self._words if word[:1].isdigit() or ":" in word]
        addresses = [address for entry in entries for address in _within(entry)]
        if self._session.accepted:
            addresses = [*_NOBODY, *addresses]
        for address in dict.fromkeys([*addresses, *_NOBODY]):
            if address != host:
                yield Change("peer", host, address, other(question, peer=(address, port)))

    def _identities(self) -> Iterator[Change]:
        question = self._question
        if not self._offers_auth:
            return
        if question.auth is not None:
            yield Change("auth", question.auth, None, other(question, auth=None, tls=True))
        for user in dict.fromkeys([_SOMEBODY, *self._words]):
            if user != question.auth:
                yield Change("auth", question.auth, user, other(question, auth=user, tls=True))

    def _tls(self) -> Iterator[Change]:
        question = self._question
        if question.auth is None:  # which needs it
            yield Change("tls", question.tls, not question.tls, other(question, tls=not question.tls))

    def _listeners(self) -> Iterator[Change]:
        question = self._question
        listeners = self._config.listeners
        for number, listener in enumerate(listeners):
            if number != question.listener:
                changed = other(question, listener=number, local=local_end(listener, question.local[0]))
                yield Change("listener", listeners[question.listener].listen, listener.listen, changed)

    def _fewer_recipients(self) -> Iterator[Change]:
        question = self._question
        if len(question.recipients) > 1:
            for recipient in question.recipients:
                after = other(question, recipients=(recipient,))
                yield Change("recipients", list(question.recipients), [recipient], after)

    def _recipients(self) -> Iterator[Change]:
        question = self._question
        for place, address in enumerate(question.recipients):
            for changed in self._elsewhere(address):
                recipients = (*question.recipients[:place], changed, *question.recipients[place + 1 :])
                yield Change("recipient", address, changed, other(question, recipients=recipients))

    def _senders(self) -> Iterator[Change]:
        question = self._question
        changed = [*self._elsewhere(question.sender or "somebody@nowhere.invalid")]
        for sender in dict.fromkeys([*changed, ""]):
            if sender != question.sender:
                yield Change("sender", question.sender, sender, other(question, sender=sender))

    def _elsewhere(self, address: str) -> Iterator[str]:
        """The same local part at other domains."""
        try:
            parsed = parse_mailbox(address)
        except AddressError:
            return
        local_part = parsed.local_part or "postmaster"
        for domain in dict.fromkeys([*self._domains, _NOBODYS_DOMAIN]):
            if domain.lower() != parsed.domain:
                yield f"{local_part}@{domain}"

    def _messages(self) -> Iterator[Change]:
        question = self._question
        for name, content in MESSAGES.items():
            if name != question.message_name:
                changed = other(question, message=content, message_name=name)
                yield Change("message", question.message_name, name, changed)

    def _metadata(self) -> Iterator[Change]:
        question = self._question
        for key, value in question.meta.items():
            rest = {name: each for name, each in question.meta.items() if name != key}
            yield Change(f"meta {key}", value, None, other(question, meta=rest))


def local_end(listener: Listener, wanted: str = "") -> tuple[str, int]:
    """Our end of a connection to a listener. wanted: the address, where it listens on any; else loopback."""
    host, _, port = listener.listen.rpartition(":")
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a socket of systemd's
        return wanted or "127.0.0.1", 0
    if address.is_unspecified:
        host = wanted or ("127.0.0.1" if address.version == 4 else "::1")
    return host, int(port)


def _lists_of(listener: Listener) -> Iterator[str]:
    """The CIDRs of a listener: its relay_hosts and its peer blocks, inner ones included."""
    yield from _lists_in({**listener.overrides, "peer": listener.peer, "via": listener.via})


def _lists_in(parameters: Mapping[str, Any]) -> Iterator[str]:
    yield from parameters.get("relay_hosts", ())
    for cidr, block in (parameters.get("peer") or {}).items():
        yield cidr
        yield from _lists_in(block)
    for block in (parameters.get("via") or {}).values():
        yield from _lists_in(block)


def _within(entry: str) -> Iterable[str]:
    """An address that an entry of a list covers, if it is one."""
    try:
        prefixes = list(CidrSet((entry,)))
    except CidrError:
        return []
    if prefixes == ["any"]:
        return []
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    return [str(network[0] if network.num_addresses == 1 else network[1]) for network in networks]
