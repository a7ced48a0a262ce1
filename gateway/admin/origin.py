"""Whose page a request over HTTP comes from: nothing is shown to, or done for, a page of another site.

Names that a stranger's DNS has made point here (DNS rebinding) are told by `Host`, and forms and scripts of other sites
by what browsers say of them. Who may ask at all is server.py's; nothing here knows what is asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

from gateway.inbound.complaints import Complaints
from gateway.terminal import printable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Nobody can have a name below these in the public DNS: whoever uses one is in a network that names its hosts itself.
_PRIVATE = frozenset(("localhost", "internal", "svc", "lan", "corp", "home", "intranet", "private"))
_PRIVATE_ENDS = (".cluster.local", ".home.arpa")
_LONGEST = 100  # characters of a name in the log

log = logging.getLogger(__name__)


class Origins:
    """What one HTTP listener may be called. names: of this machine. allowed: the policy's; `*.` stands for any labels,
    and `*` for every name.
    """

    def __init__(self, names: Iterable[str], allowed: Iterable[str]) -> None:
        self._names = {name.lower().rstrip(".") for name in (*names, *allowed)}
        self._names |= {f"{name}.local" for name in self._names if "." not in name}  # as multicast DNS has it
        self._complaints = Complaints(log, logging.WARNING)

    def guarded(self, handler: Handler) -> Handler:
        """A handler, for those alone who may ask it."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self._look_at_host(request)
            self._look_at_site(request)
            return await handler(request)

        return answer

    def is_known(self, host: str) -> bool:
        """Whether a host without its port is this one: by address, or by a name that no stranger can give it."""
        name = host.lower().rstrip(".")
        return "." not in name or _is_address(name) or self._is_private(name) or self._is_named(name)

    def _look_at_host(self, request: web.Request) -> None:
        for said in request.headers.getall("Host", []):
            if not self.is_known(_without_port(said)):
                now = asyncio.get_running_loop().time()
                text = f"{request.remote} asked for {printable(said[:_LONGEST])}, which is no name of this machine: "
                self._complaints.say("host", now, f"{text}allowed_hosts of kumo.start_http_listener can say that it is")
                raise web.HTTPMisdirectedRequest(
                    text="this machine is not known by that name: use its address, or let allowed_hosts of "
                    "kumo.start_http_listener name it\n"
                )

    def _look_at_site(self, request: web.Request) -> None:
        """Raises HTTPForbidden where a browser says that another site's page is behind this."""
        site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
        reads = request.method in ("GET", "HEAD")
        followed = reads and request.headers.get("Sec-Fetch-Mode") == "navigate"  # a link: the page is not its own
        foreign = site not in ("none", "same-origin") and not followed
        own = reads or origin is None or site == "same-origin" or self._is_own(origin, request.headers.get("Host", ""))
        if foreign or not own:
            raise web.HTTPForbidden(text="not for pages of other sites\n")

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether a page was served from here. A proxy in front may ask for another host than the browser has."""
        try:
            parts = urlsplit(origin)
            return parts.netloc.lower() == host.lower() or self._is_named(parts.hostname or "")
        except ValueError:
            return False

    def _is_named(self, name: str) -> bool:
        labels = name.split(".")
        above = (".".join(("*", *labels[start:])) for start in range(1, len(labels) + 1))
        return name in self._names or any(each in self._names for each in above)

    @staticmethod
    def _is_private(name: str) -> bool:
        return name.rpartition(".")[2] in _PRIVATE or name.endswith(_PRIVATE_ENDS)


def machine_name() -> str:
    """What this machine calls itself."""
    return os.uname().nodename


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
