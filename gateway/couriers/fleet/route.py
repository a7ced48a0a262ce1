"""Route: the addresses of one member on which a connection is attempted, until one does its part. RFC 8305.

A connection that is established and then fails before MAIL has used up its address; the next one goes on with the rest
(RFC 5321 §5.1). What is said on a connection is not known here.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from gateway.config import Host
from gateway.net.resolver import Resolver
from gateway.net.streams import Poller, Stream

OVERLAP = 0.25  # seconds until the next address is attempted beside those that have not answered: RFC 8305 §8


class Route:
    """The way to a member, for one job. untried: addresses that may still be attempted; [] before `resolve`.

    working: the address that served last, attempted first where it is still one of the host's; "" for none.
    """

    def __init__(self, host: Host, port: int, working: str) -> None:
        self.untried: list[str] = []
        self._host = host
        self._port = port
        self._working = working
        self._resolved = False

    async def resolve(self, resolver: Resolver) -> None:
        """Look the addresses up, the first time. Raises OSError where there is none."""
        if not self._resolved:
            self._resolved = True
            self.untried = in_order(await resolver.addresses(self._host.address), self._working)

    async def connect(self, poller: Poller, begun: Callable[[str], None]) -> tuple[str, Stream]:
        """The first address that accepts a connection, and the connection.

        The next one is attempted when one fails, and beside one that is slow. begun: told of each attempt. Those that
        were not attempted to their end are `untried` again. Raises OSError where none is left.
        """
        attempts: dict[asyncio.Task[Stream], str] = {}
        problem = OSError(f"no address of {self._host.name} is left")
        try:
            while self.untried or attempts:
                if self.untried:
                    address = self.untried.pop(0)
                    begun(address)
                    attempts[poller.loop.create_task(poller.connect(address, self._port))] = address
                patience = OVERLAP if self.untried else None
                done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    address = attempts.pop(attempt)
                    try:
                        stream = attempt.result()
                    except OSError as error:
                        problem = error
                        continue
                    self.untried = [*attempts.values(), *self.untried]
                    return address, stream
            raise problem
        finally:
            for attempt in attempts:
                attempt.add_done_callback(_drop)
                attempt.cancel()


def in_order(addresses: Sequence[str], working: str) -> list[str]:
    """The order of attempts: what worked last, then the families by turns, the resolver's first one first."""
    first = ipaddress.ip_address(addresses[0]).version if addresses else 0
    families: tuple[list[str], list[str]] = [], []
    for address in addresses:
        families[ipaddress.ip_address(address).version != first].append(address)
    by_turns = [address for address in chain.from_iterable(zip_longest(*families)) if address is not None]
    return sorted(by_turns, key=lambda address: address != working)


def _drop(attempt: asyncio.Task[Stream]) -> None:
    """Close a connection that came too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
