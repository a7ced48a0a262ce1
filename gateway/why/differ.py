"""What would have to differ for the opposite answer: one thing of a question at a time is changed, and asked again; two
at a time where one is not enough.

What is worth trying stands in the policy: its lists, its listeners, and the words in its files. A proposal is made only
after it was tried, with the reply that it got.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations, count, islice
from typing import Any, NamedTuple

from gateway._fastpath import CidrError, CidrSet
from gateway.config import Listener, ListenerDomain
from gateway.later import Waits
from gateway.policy import events
from gateway.smtp.address import AddressError, parse_mailbox
from gateway.smtp.replies import Reply
from gateway.why.conversation import CLIENT, Account, Desk, Question, other
from gateway.why.messages import MESSAGES

MOST_PROPOSALS = 3  # for one thing
MOST_TRIALS = 300  # for one thing
MOST_SECONDS = 10.0  # for all of them: handlers may wait
MOST_PAIRS = 1_000  # trials of two things
MOST_OF_EACH = 24  # that are tried of one thing together with those of another

_NOBODY = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "127.0.0.1", "2001:db8::1")  # RFC 5737
_NOBODYS_DOMAIN = "nobody-has-heard-of-this.invalid"  # RFC 2606 §2
_SOMEBODY = "somebody"
_WORD = re.compile(r"""(["'])([^"'\s]{1,255})\1""")
_DOMAIN = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.[A-Za-z][A-Za-z0-9-]+\Z")


class Change(NamedTuple):
    """One thing that may differ. before, after: as a person would say it. apply: changes it in a question. touches: two
    that share a word are alternatives.
    """

    what: str
    before: object
    after: object
    apply: Callable[[Question], Question]
    touches: frozenset[str]


class Proposal(NamedTuple):
    """Changes that were tried and together give the opposite answer. question: with them."""

    changes: tuple[Change, ...]
    question: Question
    reply: Reply


def proposals(desk: Desk, session: Account) -> Waits:
    """The steps towards (a list of Proposals, whether there was time for all that is worth trying): what makes an
    accepted message a refused one, or the other way round.
    """
    found: list[Proposal] = []
    deadline = desk.monotonic() + MOST_SECONDS
    candidates = _Candidates(desk, session)
    for changes in candidates.all():
        better: list[Proposal] = []
        for change in islice(changes, MOST_TRIALS):
            if desk.monotonic() > deadline:
                return found + better, False
            proposal = yield from _tried(desk, session, (change,))
            if proposal is not None:
                better.append(proposal)
                if len(better) == MOST_PROPOSALS:
                    break
        found += better
    if found:
        return found, True
    for pair in islice(_pairs(candidates.all()), MOST_PAIRS):
        if desk.monotonic() > deadline:
            return found, False
        if any(_same_things(pair, proposal.changes) for proposal in found):
            continue
        proposal = yield from _tried(desk, session, pair)
        if proposal is not None:
            found.append(proposal)
            if len(found) == MOST_PROPOSALS:
                break
    return found, True


def _tried(desk: Desk, session: Account, changes: tuple[Change, ...]) -> Waits:
    """The steps towards a Proposal, None where the answer stays."""
    question = session.question
    for change in changes:
        question = change.apply(question)
    tried: Account = yield from desk.ask(question)
    return None if tried.accepted is session.accepted else Proposal(changes, question, tried.decisive.reply)


def _pairs(kinds: Iterable[Iterator[Change]]) -> Iterator[tuple[Change, Change]]:
    """Two changes of different things: the first ones of all things before the second ones of any."""
    tables = [list(islice(kind, MOST_OF_EACH)) for kind in kinds]
    for rank in count():
        if rank > 2 * MOST_OF_EACH:
            return
        for one, another in combinations(tables, 2):
            for place, first in enumerate(one[: rank + 1]):
                for second in another[rank - place : rank - place + 1]:
                    if not first.touches & second.touches:
                        yield first, second


def _same_things(pair: tuple[Change, ...], others: tuple[Change, ...]) -> bool:
    return [change.what for change in pair] == [change.what for change in others]


def _change(what: str, before: object, after: object, touches: Iterable[str] = (), **changes: object) -> Change:
    return Change(what, before, after, lambda question: other(question, **changes), frozenset(touches or changes))


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
        yield self._greetings()
        yield self._listeners()
        yield self._fewer_recipients()
        yield from map(self._recipient, range(len(self._question.recipients)))
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
                yield _change("peer", host, address, peer=(address, port))

    def _identities(self) -> Iterator[Change]:
        question = self._question
        if not self._offers_auth:
            return
        if question.auth is not None:
            yield _change("auth", question.auth, None, auth=None, tls=True)
        for user in dict.fromkeys([_SOMEBODY, *self._words]):
            if user != question.auth:
                yield _change("auth", question.auth, user, auth=user, tls=True)

    def _tls(self) -> Iterator[Change]:
        question = self._question
        if question.auth is None:  # which needs it
            yield _change("tls", question.tls, not question.tls, tls=not question.tls)

    def _greetings(self) -> Iterator[Change]:
        question = self._question
        for name in dict.fromkeys((CLIENT, f"mail.{_NOBODYS_DOMAIN}")):
            if name != question.ehlo:
                yield _change("ehlo", question.ehlo, name, ehlo=name)

    def _listeners(self) -> Iterator[Change]:
        question = self._question
        listeners = self._config.listeners
        for number, listener in enumerate(listeners):
            if number != question.listener:
                local = local_end(listener, question.local[0])
                before = listeners[question.listener].listen
                yield _change("listener", before, listener.listen, listener=number, local=local)

    def _fewer_recipients(self) -> Iterator[Change]:
        question = self._question
        if len(question.recipients) > 1:
            touches = [_place(place) for place in range(len(question.recipients))]
            for recipient in question.recipients:
                before = list(question.recipients)
                yield _change("recipients", before, [recipient], touches, recipients=(recipient,))

    def _recipient(self, place: int) -> Iterator[Change]:
        address = self._question.recipients[place]
        for changed in self._elsewhere(address):
            yield Change("recipient", address, changed, _readdressed(place, changed), frozenset((_place(place),)))

    def _senders(self) -> Iterator[Change]:
        question = self._question
        changed = [*self._elsewhere(question.sender or "somebody@nowhere.invalid")]
        for sender in dict.fromkeys([*changed, ""]):
            if sender != question.sender:
                yield _change("sender", question.sender, sender, sender=sender)

    def _elsewhere(self, address: str) -> Iterator[str]:
        """Somebody else at the same domain, and the same local part at other domains."""
        try:
            parsed = parse_mailbox(address)
        except AddressError:
            return
        local_part = parsed.local_part or "postmaster"
        if parsed.domain and local_part != _SOMEBODY:
            yield f"{_SOMEBODY}@{parsed.domain}"
        for domain in dict.fromkeys([*self._domains, _NOBODYS_DOMAIN]):
            if domain.lower() != parsed.domain:
                yield f"{local_part}@{domain}"

    def _messages(self) -> Iterator[Change]:
        question = self._question
        for name, content in MESSAGES.items():
            if name != question.message_name:
                yield _change("message", question.message_name, name, message=content, message_name=name)

    def _metadata(self) -> Iterator[Change]:
        question = self._question
        for key, value in question.meta.items():
            rest = {name: each for name, each in question.meta.items() if name != key}
            yield _change(f"meta {key}", value, None, meta=rest)


def _place(place: int) -> str:
    return f"recipient {place}"


def _readdressed(place: int, address: str) -> Callable[[Question], Question]:
    def apply(question: Question) -> Question:
        before = question.recipients
        return other(question, recipients=(*before[:place], address, *before[place + 1 :]))

    return apply


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
