"""A session with a policy in memory, for tests: what the client is told, what the couriers get, what is recorded."""

from __future__ import annotations

from typing import Any

from gateway.handover import Batch
from tests.dialogue import MemoryClient
from tests.policy_tools import Clock, PassingTime, load, new_page

FRAME = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { hostname = 'gw.example', relay_hosts = { '127.0.0.1' }, OPTIONS }
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { 'fleet.example' } } } }
end)
"""


class PolicySession:
    """One client, of 127.0.0.1, which may relay. options: of the listener, in Lua. time: passes when a test says so."""

    def __init__(self, policy: str, options: str = "") -> None:
        clock = Clock()
        self.time = PassingTime(clock)
        self.page = new_page()
        self.policy = load(
            FRAME.replace("OPTIONS", options) + policy, page=self.page, clock=clock, background=self.time
        )
        self.reconnect()

    def reconnect(self) -> None:
        """From now on it is about a new connection, with the same policy."""
        self._client = MemoryClient(self.policy, "127.0.0.1", lambda data: [data], self.page)

    def said(self) -> list[str]:
        """What the gateway has said since the last time, line by line."""
        lines = self._client.take().split("\r\n")
        assert lines.pop() == ""
        return lines

    def says(self, *lines: str) -> list[str]:
        """Sends lines, all at once; returns what comes back."""
        self._client.send("".join(f"{line}\r\n" for line in lines).encode())
        return self.said()

    def transaction(
        self, *recipients: str, content: str = "Subject: s\r\n\r\nhello", sender: str = "a@x.example"
    ) -> str:
        """A message to them; returns the last reply."""
        rcpt = [f"RCPT TO:<{recipient}>" for recipient in recipients]
        return self.says("EHLO c.example", f"MAIL FROM:<{sender}>", *rcpt, "DATA", content, ".")[-1]

    @property
    def batches(self) -> list[Batch]:
        """What was handed over."""
        return [batch for batch, _ in self._client.couriers.taken]

    def delivered(self) -> list[tuple[str, list[str]]]:
        """Sender and recipients of each batch."""
        return [(batch.sender.email, [one.email for one in batch.recipients]) for batch in self.batches]

    def content(self, number: int = 0) -> str:
        """Of a batch."""
        return b"".join(self.batches[number].content.plain_pieces()).decode("latin-1")

    def records(self, type: str) -> list[dict[str, Any]]:
        return [record for record in self._client.records() if record["type"] == type]

    def start_tls(self) -> None:
        """The handshake succeeds."""
        self._client.start_tls()

    @property
    def wants_tls(self) -> bool:
        """STARTTLS was answered, and the handshake is next."""
        return self._client.wants_tls

    def errors(self, event: str) -> float:
        """How often a handler of the event has failed."""
        return self._client.metrics()["relay_gateway_policy_errors_total", frozenset({("event", event)})]

    def closed(self) -> bool:
        return self._client.reception.session.is_over()

    def hang_up(self) -> None:
        self._client.reception.lost()
