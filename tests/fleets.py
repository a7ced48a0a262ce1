"""Fleets that behave as their names say, and a gateway whose policy finds them by the recipient's domain.

The mailbox `x@any.refused1.example` belongs to the fleet `refused1`. Every behaviour has two fleets, so that a message
can have several destinations of one kind. They live in an event loop of a thread of their own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.gateway_process import Gateway
from tests.upstream import Answer, Dialogue, Do, Mail, Upstream, ehlo

T = TypeVar("T")

SCRIPTS: dict[str, dict[str, Answer | list[Answer]]] = {
    "taken": {},
    "picky": {},  # refuses the mailboxes `first@…`
    "deferred": {".": b"451 4.2.0 come back later\r\n"},
    "refused": {".": b"554 5.6.0 not such content\r\n"},
    "unknown": {".": Do.DROP},
}
BEHAVIOURS = (*SCRIPTS, "gone", "stored")  # nobody listens; a Maildir
NAMES = [f"{behaviour}{number}" for behaviour in BEHAVIOURS for number in (1, 2)]
PICKY = b"550 5.1.1 no such mailbox\r\n"

TO_FLEETS = """
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  if name:match '^stored' then
    return kumo.make_queue_config { protocol = { maildir_path = MAILDIR .. '/' .. name } }
  end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { FLEETS[name] } } } }
end)
"""


def _picky(dialogue: Dialogue, command: str) -> Answer | None:
    return PICKY if command.startswith("RCPT TO:<first@") else None


class Fleets:
    """All of them. addresses: "IP:PORT" by name, of those that have one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleets")
        self._thread.start()
        self._gone = [socket.socket() for _ in range(2)]
        self.upstreams: dict[str, Upstream] = {}
        self.addresses: dict[str, str] = {}
        for number, nobody in enumerate(self._gone, 1):
            nobody.bind(("127.0.0.1", 0))  # and does not listen: nobody else gets the port meanwhile
            self.addresses[f"gone{number}"] = f"127.0.0.1:{nobody.getsockname()[1]}"
        self.add("tiny1", {"EHLO": ehlo("PIPELINING", "8BITMIME", "SIZE 1")})
        self.add("senders1", {})
        for behaviour, answers in SCRIPTS.items():
            for number in (1, 2):
                self.add(f"{behaviour}{number}", answers, picky=behaviour == "picky")

    def add(
        self,
        name: str,
        answers: dict[str, Answer | list[Answer]],
        *,
        picky: bool = False,
        cut: tuple[int, Answer] | None = None,
        tls: ssl.SSLContext | None = None,
        decide: Callable[[Dialogue, str], Answer | None] = lambda dialogue, command: None,
    ) -> Upstream:
        """A fleet of one member. cut: after so many octets it does this."""
        upstream = Upstream(answers, decide=_picky if picky else decide, tls=tls)
        if cut is not None:
            upstream.cut_received, upstream.cut_how = cut

        async def begin() -> None:
            await upstream.__aenter__()

        self._run(begin())
        self.upstreams[name] = upstream
        self.addresses[name] = f"127.0.0.1:{upstream.port}"
        return upstream

    def mails(self, name: str) -> list[Mail]:
        """What a fleet has taken, whatever it was told last included."""

        async def snapshot() -> list[Mail]:
            return self.upstreams[name].mails.copy()

        return self._run(snapshot())

    def mail_commands(self, name: str, sender: str) -> list[str]:
        """The MAIL commands that a fleet got from a sender."""

        async def look() -> list[str]:
            return [each for each in self.upstreams[name].commands if each.startswith(f"MAIL FROM:<{sender}>")]

        return self._run(look())

    def told(self, about: str) -> list[Mail]:
        """The notifications of a recipient that the fleet `senders` has taken."""
        wanted = f"Final-Recipient: rfc822; {about}".encode()
        return [mail for mail in self.mails("senders") if mail.sender == "" and wanted in mail.content]

    def all_mails(self) -> list[Mail]:
        """What all of them have taken."""
        return [mail for name in self.upstreams for mail in self.mails(name)]

    def lua(self) -> str:
        """The table FLEETS for a policy, on one line."""
        return "FLEETS = { " + ", ".join(f"{name} = '{at}'" for name, at in self.addresses.items()) + " } "

    def close(self) -> None:
        async def end() -> None:
            for upstream in self.upstreams.values():
                await upstream.stop()

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for nobody in self._gone:
            nobody.close()

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)


@contextmanager
def gateway_before(fleets: Fleets, folder: Path, policy: str) -> Iterator[Gateway]:
    """A running gateway in front of the fleets."""
    gateway = Gateway(folder, fleets.lua() + policy, "--workers", "1")
    try:
        yield gateway
    finally:
        gateway.kill()
