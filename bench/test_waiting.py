"""What handlers that wait cost others: many sessions stand still, one client goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.gateway_process import INIT, Gateway

SESSIONS = 1000
WAIT = 0.2  # seconds that each of them waits at every RCPT
COMMANDS = 1000  # of the one that does not

# A relay host, because others have fewer connections and commands.
POLICY = f"""{INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")}
kumo.on('smtp_server_rcpt_to', function(recipient)
  if recipient.domain == 'slow.example' then kumo.sleep({WAIT}) end
end)
"""


async def begun(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a transaction."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"EHLO x.example\r\nMAIL FROM:<a@a.example>\r\n")
    while not (reply := await reader.readline()).startswith(b"250 2.1.0"):
        assert reply.startswith((b"220", b"250")), reply
    return reader, writer


async def waits(address: tuple[str, int], stop: asyncio.Event, asked: list[int]) -> None:
    """A session that waits again and again."""
    reader, writer = await begun(address)
    while not stop.is_set():
        writer.write(b"RCPT TO:<b@slow.example>\r\n")
        await reader.readline()
        asked[0] += 1
    writer.close()


async def measured(address: tuple[str, int]) -> tuple[list[float], float]:
    """Seconds that each command of a client took while the others waited, and how many of the others' were answered in
    a second."""
    stop, asked = asyncio.Event(), [0]
    others = [asyncio.create_task(waits(address, stop, asked)) for _ in range(SESSIONS)]
    while asked[0] < SESSIONS and not any(task.done() for task in others):
        await asyncio.sleep(0.05)
    reader, writer = await begun(address)
    took = []
    began, before = time.perf_counter(), asked[0]
    for _ in range(COMMANDS):
        start = time.perf_counter()
        writer.write(b"RCPT TO:<b@quick.example>\r\n")
        reply = await reader.readline()
        took.append(time.perf_counter() - start)
        assert reply.startswith(b"250"), reply
    rate = (asked[0] - before) / (time.perf_counter() - began)
    stop.set()
    await asyncio.gather(*others)
    writer.close()
    return sorted(took), rate


def test_others_while_a_thousand_sessions_wait(tmp_path: Path, capsys: Any) -> None:
    """Aim: 5 ms at the 99th percentile. What this process takes to serve a thousand clients is in it, too."""
    gateway = Gateway(tmp_path, POLICY, "--workers", "1")
    try:
        took, rate = asyncio.run(measured(gateway.address))
    finally:
        gateway.stop()
    at = {name: took[round(share * (COMMANDS - 1))] * 1e3 for name, share in (("50", 0.5), ("99", 0.99), ("100", 1))}
    with capsys.disabled():
        print(
            f"\n{SESSIONS} sessions wait {WAIT} s each, {rate:,.0f} answers a second; another client's RCPT: "
            f"{at['50']:.2f} ms at the median, {at['99']:.2f} at the 99th percentile, {at['100']:.2f} at most"
        )
