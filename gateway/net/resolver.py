"""Names of fleet members to IP addresses, through the system's resolver, remembered briefly.

Nothing of SMTP here, and never MX: a fleet is named by its hosts (A and AAAA).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

MOST_HOSTS = 1000
REMEMBERED = 30.0  # seconds; the system's resolver hides the records' own times to live


class Resolver:
    """Addresses of hosts for one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lookups: dict[str, tuple[float, asyncio.Task[list[str]]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of `host`, in the order to try them; a literal is its own address.

        Connections that open at the same time share one lookup. Raises OSError where there is no address.
        """
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        expires, lookup = self._lookups.get(host, (0.0, None))
        if lookup is None or expires <= self._loop.time() or _failed(lookup):
            if len(self._lookups) >= MOST_HOSTS:
                self._lookups.clear()
            lookup = self._loop.create_task(self._look_up(host))
            lookup.add_done_callback(_failed)  # looks at the exception also when nobody waits for it any more
            self._lookups[host] = (self._loop.time() + REMEMBERED, lookup)
        return await asyncio.shield(lookup)

    async def _look_up(self, host: str) -> list[str]:
        found = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _failed(lookup: asyncio.Task[list[str]]) -> bool:
    return lookup.done() and (lookup.cancelled() or lookup.exception() is not None)
