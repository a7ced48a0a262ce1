"""Resolvers: who answers the questions of `kumo.dns`: name servers, zones that the policy has, one after the other.

An answer is kept for as long as its records say, one that there is nothing for as long as the zone's SOA says (RFC 2308
§5). Those who ask the same at the same time share one question. On dnspython, because it says how long a negative
answer lasts. What options there are is here; what policies ask is lookups.py's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import dns.asyncbackend
import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.resolver
import dns.zone

from gateway.policy.decision_cache import MISSING, RecentlyUsed

LONGEST = 7 * 86400.0  # seconds that an answer is kept at most
LOCAL = 60.0  # seconds for answers that no record limits: those of hosts' files and of zones without an SOA
UDP_PAYLOAD = 1232  # octets, the size that no path breaks up
MOST_CNAMES = 8

RecordType: TypeAlias = dns.rdatatype.RdataType


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """exists: whether there is such a name. records: of the type asked for. seconds: so long it lasts."""

    exists: bool
    records: tuple[dns.rdata.Rdata, ...]
    seconds: float


class ResolverFailure(Exception):
    """There is no answer, not even a negative one."""


class NameSource(Protocol):
    """Whoever knows names."""

    async def ask(self, name: dns.name.Name, kind: RecordType) -> NameAnswer | None:
        """None: it is not the one to ask. Raises ResolverFailure."""


class NameServers:
    """Name servers, asked over the network.

    servers: none are the system's. timeout: seconds for one attempt. may_ask: whether they are asked at all.
    """

    def __init__(
        self,
        servers: Sequence[NameServer],
        *,
        timeout: float,
        attempts: int,
        edns0: bool,
        recursion_desired: bool,
        rotate: bool,
        may_ask: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Raises ValueError where the system has no name servers."""
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise ValueError(f"the system names no name servers: {error}") from None
        if servers:
            self._resolver.nameservers = list(servers)
        self._resolver.timeout = timeout
        self._resolver.lifetime = timeout * (attempts + 1)
        self._resolver.rotate = rotate
        self._resolver.use_edns(0 if edns0 else -1, 0, UDP_PAYLOAD)
        self._resolver.flags = dns.flags.RD if recursion_desired else 0
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._may_ask = may_ask

    async def ask(self, name: dns.name.Name, kind: RecordType) -> NameAnswer:
        """Their answer."""
        if not self._may_ask("the DNS"):
            return NameAnswer(True, (), 0.0)
        try:
            answer = await self._resolver.resolve(
                name, kind, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN as error:
            return NameAnswer(False, (), _negative(next(iter(error.kwargs["responses"].values()))))
        except dns.resolver.LifetimeTimeout:
            raise ResolverFailure("no name server answers") from None
        except dns.resolver.NoNameservers:
            raise ResolverFailure("no name server gives an answer") from None
        except dns.exception.DNSException as error:
            raise ResolverFailure(f"the answer cannot be read: {error}") from None
        if answer.rrset is None:
            return NameAnswer(True, (), _negative(answer.response))
        return NameAnswer(True, tuple(answer.rrset), answer.chaining_result.minimum_ttl)


class NameServer(dns.nameserver.Do53Nameserver):
    """One name server. source: the address and port to ask from. tcp: never over UDP."""

    def __init__(
        self, endpoint: tuple[str, int], source: tuple[str | None, int] = (None, 0), tcp: bool = False
    ) -> None:
        super().__init__(*endpoint)
        self._source, self._source_port = source
        self._tcp = tcp

    async def async_query(  # its signature is dnspython's
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        """Asks it. See dns.nameserver.Nameserver."""
        max_size = self._tcp or max_size
        source, source_port = self._source, self._source_port
        return await super().async_query(
            request, timeout, source, source_port, max_size, backend, one_rr_per_rrset, ignore_trailing
        )


def _negative(response: dns.message.Message) -> float:
    """How long it holds that there is nothing; without an SOA not at all."""
    for rrset in response.authority:
        for record in rrset:
            if isinstance(record, dns.rdtypes.ANY.SOA.SOA):
                return float(min(rrset.ttl, record.minimum))
    return 0.0


class Zones:
    """Zones that the policy has itself. failing: names that there is no answer for."""

    def __init__(self, texts: Sequence[str], failing: Sequence[str]) -> None:
        """Raises ValueError for a zone that cannot be read."""
        self._zones: list[dns.zone.Zone] = []
        for text in texts:
            try:
                zone = dns.zone.from_text(text, relativize=False, check_origin=False)
            except (dns.exception.DNSException, ValueError) as error:
                raise ValueError(f"a zone cannot be read: {error or type(error).__name__}") from None
            self._zones.append(zone)
        self._failing = frozenset(map(name_of, failing))

    async def ask(self, name: dns.name.Name, kind: RecordType) -> NameAnswer | None:
        """What stands in the zone that has the name."""
        if name in self._failing:
            raise ResolverFailure("the name server failed")
        seconds = LONGEST
        for _ in range(MOST_CNAMES):
            zone = self._zone_of(name)
            if zone is None:
                return None
            node = zone.get_node(name) or self._wildcard(zone, name)
            if node is None:
                below = any(other.is_subdomain(name) for other in zone.nodes)
                return NameAnswer(below, (), self._nothing_lasts(zone))
            found = node.get_rdataset(zone.rdclass, kind)
            if found is not None:
                return NameAnswer(True, tuple(found), min(seconds, found.ttl))
            alias = node.get_rdataset(zone.rdclass, dns.rdatatype.CNAME)
            if alias is None:
                return NameAnswer(True, (), self._nothing_lasts(zone))
            name, seconds = alias[0].target, min(seconds, alias.ttl)
        raise ResolverFailure("too many aliases")

    def _zone_of(self, name: dns.name.Name) -> dns.zone.Zone | None:
        covering = [zone for zone in self._zones if zone.origin is not None and name.is_subdomain(zone.origin)]
        return max(covering, key=lambda zone: len(zone.origin or ()), default=None)

    def _wildcard(self, zone: dns.zone.Zone, name: dns.name.Name) -> Any:
        """RFC 4592 §3.3.1: what stands below the closest name that there is."""
        while len(name) > len(zone.origin or ()):
            name = name.parent()
            wildcard = zone.get_node(dns.name.Name((b"*", *name.labels)))
            if wildcard is not None or any(other.is_subdomain(name) for other in zone.nodes):
                return wildcard
        return None

    def _nothing_lasts(self, zone: dns.zone.Zone) -> float:
        soa = zone.get_rdataset(zone.origin or dns.name.root, dns.rdatatype.SOA)
        return LOCAL if soa is None else float(min(soa.ttl, soa[0].minimum))


class OneAfterTheOther:
    """Several, of which the first that is the one to ask answers."""

    def __init__(self, sources: Sequence[NameSource]) -> None:
        self._sources = sources

    async def ask(self, name: dns.name.Name, kind: RecordType) -> NameAnswer | None:
        """Its answer."""
        for source in self._sources:
            answer = await source.ask(name, kind)
            if answer is not None:
                return answer
        return None


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Bounds of how long answers are kept, in seconds, where there is something and where there is not."""

    positive: tuple[float, float] = (0.0, LONGEST)
    negative: tuple[float, float] = (0.0, LONGEST)

    def of(self, answer: NameAnswer) -> float:
        """Of one answer."""
        least, most = self.positive if answer.records else self.negative
        return min(max(answer.seconds, least), most, LONGEST)


class RememberingResolver:
    """A source, whose answers are remembered. clock: seconds. hosts: addresses by name in lower case."""

    def __init__(
        self,
        source: NameSource,
        clock: Callable[[], float],
        capacity: int,
        lifetimes: Lifetimes = Lifetimes(),
        hosts: Mapping[str, list[str]] = {},
    ) -> None:
        self.hosts = hosts
        self._source = source
        self._clock = clock
        self._lifetimes = lifetimes
        self._known = RecentlyUsed(capacity)  # an answer, and until when it holds
        self._asked: dict[tuple[dns.name.Name, RecordType], asyncio.Task[NameAnswer]] = {}

    async def ask(self, name: dns.name.Name, kind: RecordType) -> NameAnswer:
        """The answer, which lasts for as long as it says. Raises ResolverFailure."""
        key = name, kind
        now = self._clock()
        known = self._known.get(key)
        if known is not MISSING and now < known[1]:
            answer: NameAnswer = known[0]
            return NameAnswer(answer.exists, answer.records, known[1] - now)
        question = self._asked.get(key)
        if question is None:
            question = asyncio.get_running_loop().create_task(self._look_up(name, kind))
            self._asked[key] = question
            question.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(question)

    def _forget(self, key: tuple[dns.name.Name, RecordType], done: asyncio.Task[NameAnswer]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # looked at also when nobody waits for it any more

    async def _look_up(self, name: dns.name.Name, kind: RecordType) -> NameAnswer:
        answer = await self._source.ask(name, kind) or NameAnswer(False, (), LOCAL)
        seconds = self._lifetimes.of(answer)
        answer = NameAnswer(answer.exists, answer.records, seconds)
        if seconds > 0:
            self._known.replace((name, kind), (answer, self._clock() + seconds))
        return answer


def name_of(text: str) -> dns.name.Name:
    """A name in its canonical form, absolute whatever its end. Raises ValueError."""
    try:
        return dns.name.from_text(text).canonicalize()
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"'{text}' is no domain name: {error or type(error).__name__}") from None


def hosts_file(path: str) -> dict[str, list[str]]:
    """Addresses by name in lower case of a file like /etc/hosts; empty where it cannot be read."""
    found: dict[str, list[str]] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return found
    for address, *names in filter(None, lines):
        for name in names:
            found.setdefault(name.lower(), []).append(address)
    return found
