"""Names of fleet members to IP addresses, by DNS and /etc/hosts, kept for as long as their records say.

Nothing of SMTP here, and never MX: a fleet is named by its hosts (A and AAAA). On aiodns: c-ares asks off the event
loop and answers as the system's resolver would (hosts file, search domains, the order of RFC 6724) but tells the time
to live, which neither the system's nor dnspython's, which knows nothing of that order, does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its first channel starts threads, so only a process that asks names imports it
    import aiodns

MOST_HOSTS = 1000
SHORTEST, LONGEST = 1.0, 86400.0  # seconds for which an answer is kept, whatever its records say
LOCAL = 30.0  # seconds for the hosts file, whose addresses have no time to live
RETRY = 1.0  # seconds after a question without an answer until it is asked again, where there is an older answer
PATIENCE = 1.0  # seconds that somebody waits for a new answer where there is an older one

log = logging.getLogger(__name__)


class Resolver:
    """Addresses of hosts for one event loop. servers: name servers, "IP:PORT"; none are the system's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, servers: Sequence[str] = ()) -> None:
        self._loop = loop
        self._servers = servers
        self._asking: aiodns.DNSResolver | None = None
        self._known: dict[str, tuple[float, list[str]]] = {}  # the last good answers, and until when they hold
        self._lookups: dict[str, asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of `host`, in the order to try them; a literal is its own address.

        Connections that open at the same time share one lookup. When DNS fails the last good answer holds on. Raises
        OSError where there is no address.
        """
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        expires, known = self._known.get(host, (0.0, []))
        if self._loop.time() < expires:
            return known
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = self._loop.create_task(self._look_up(host))
            lookup.add_done_callback(lambda done: self._concluded(host, done))
        if not known:
            return await asyncio.shield(lookup)
        await asyncio.wait([lookup], timeout=PATIENCE)
        return self._known[host][1] if host in self._known else await asyncio.shield(lookup)

    def close(self) -> None:
        """Nobody asks any more."""
        for lookup in self._lookups.values():
            lookup.cancel()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _look_up(self, host: str) -> list[str]:
        from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, DNSError

        try:
            seconds, addresses = await self._ask(host)
        except DNSError as error:
            code, problem = error.args
            _, known = self._known.pop(host, (0.0, []))
            if not known or code in (ARES_ENOTFOUND, ARES_ENODATA):  # an answer, too
                raise OSError(f"no address of {host}: {problem}") from None
            log.warning("no new addresses of %s: %s; the last ones are used: %s", host, problem, ", ".join(known))
            seconds, addresses = RETRY, known
        self._remember(host, seconds, addresses)
        return addresses

    async def _ask(self, host: str) -> tuple[float, list[str]]:
        """So long the answer holds; what it is. Raises DNSError."""
        if self._asking is None:
            import aiodns

            self._asking = aiodns.DNSResolver(self._servers or None, self._loop, timeout=2.0, tries=2)
        answer = await self._asking.getaddrinfo(host)
        addresses = dict.fromkeys(_text(node.addr[0]) for node in answer.nodes)
        lives = [node.ttl for node in answer.nodes]
        seconds = float(min(lives, default=0)) or LOCAL
        return min(max(seconds, SHORTEST), LONGEST), list(addresses)

    def _remember(self, host: str, seconds: float, addresses: list[str]) -> None:
        _, before = self._known.get(host, (0.0, addresses))
        if set(before) != set(addresses):
            log.info("%s has other addresses: %s; it had %s", host, ", ".join(addresses), ", ".join(before))
        if len(self._known) >= MOST_HOSTS:
            self._known.clear()
        self._known[host] = self._loop.time() + seconds, addresses

    def _concluded(self, host: str, lookup: asyncio.Task[list[str]]) -> None:
        self._lookups.pop(host, None)
        if not lookup.cancelled():
            lookup.exception()  # looked at also when nobody waits for it any more


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address
