"""A new connection, before its session: whatever goes wrong, the client gets a reply and nobody's place is taken."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from gateway.net.streams import Poller, Stream
from tests.inbound import inbound, run

LUA_FAILS = "kumo.on('smtp_server_connection_accepted', function() error('no') end)"


class Unwilling(Poller):
    """An epoll set that has no room for the next connection."""

    failures = 1

    def watch(self, fd: int, source: Any, read: bool, write: bool) -> None:
        if self.failures and isinstance(source, Stream):
            self.failures -= 1
            raise OSError("no room")
        super().watch(fd, source, read, write)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"peer": {"127.0.0.0/8": {"meta": 5}}}, "internal_error", id="its terms"),
        pytest.param(
            {"client_timeout": "soon"},
            "internal_error",
            id="the connection",
            marks=pytest.mark.skipif("UNCOMPILED" in os.environ, reason="only a C type refuses a text for a number"),
        ),
        pytest.param({"line_length_hard_limit": sys.maxsize}, "internal_error", id="the session"),
        pytest.param({"poller": Unwilling}, "internal_error", id="its place in the epoll set"),
        pytest.param({"policy": LUA_FAILS}, "policy_error", id="the policy"),
    ],
)
def test_whatever_cannot_be_made_is_a_421_and_takes_nobodys_place(options, reason, caplog):
    async def main() -> None:
        async with inbound(max_connections=1, **options) as service:
            for already in range(2):
                assert service.metric("connections_refused_total", reason=reason) == already
                client = service.call()
                assert await client.to_end() == b"421 4.3.0 gw.example technical difficulties\r\n"
                client.sock.close()
                if "poller" in options:
                    break
            await service.until(lambda: service.host.open == 0)
            assert service.metric("connections_open") == 0
            assert service.metric("connections_opened_total") == service.metric("connections_refused_total")
            assert service.metric("rejections_total", stage="connect", reason=reason) == already + 1
            assert len(service.roster) == 0

    run(main())
    assert "traceback" in caplog.text.lower()


def test_after_a_failure_the_next_client_is_served():
    async def main() -> None:
        async with inbound(max_connections=1, poller=Unwilling) as service:
            assert (await service.call().to_end()).startswith(b"421 4.3.0 ")
            client = await service.greeted()
            assert service.host.open == 1
            assert (await service.call().to_end()).startswith(b"421 4.3.2 gw.example too many concurrent sessions")
            client.send_now(b"QUIT\r\n")
            assert await client.to_end() == b"221 2.0.0 Bye\r\n"
            await service.until(lambda: service.host.open == 0)
            await service.greeted()

    run(main())


def test_who_is_turned_away_may_go_on_talking_and_still_reads_why():
    async def main() -> None:
        async with inbound(max_connections=0) as service:
            client = service.call()
            client.send_now(b"EHLO client.example\r\n" * 1000)
            assert (await client.to_end()).startswith(b"421 4.3.2 gw.example too many concurrent sessions")
            assert service.metric("connections_open") == 0

    run(main())
