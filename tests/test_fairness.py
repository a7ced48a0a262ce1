"""No client gets more than its turn, whatever it sends and whether it reads; and none makes the gateway keep much."""

from __future__ import annotations

import asyncio
import resource
import selectors
import socket

from gateway.inbound.connection import MOST_COMMANDS
from tests.dialogue import MemoryClient
from tests.gateway_process import INIT, wait_until
from tests.inbound import Client, inbound, run
from tests.policy_tools import load, new_page

FLOOD = b"X\r\n" * 20_000
REPLY = b"500 5.5.1 Command not recognised\r\n"
LISTENS = """kumo.on('init', function()
  kumo.start_esmtp_listener { hostname = 'gw.example', relay_hosts = {}, limits = { errors = 0, idle_commands = 0 } }
end)"""
OPEN = LISTENS.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
TAKEN = "kumo.on('smtp_server_message_received', function(message) message:set_meta('queue', 'null') end)"
MOST_KEPT = 300 * 1024  # octets for a client that pipelines and does not read


def test_in_one_turn_a_session_executes_so_many_commands_and_says_that_there_are_more():
    client = MemoryClient(load(LISTENS), "127.0.0.1", lambda data: [data], new_page())
    reception = client.reception
    reception.data_to_send()
    reception.receive(b"NOOP\r\n" * (2 * MOST_COMMANDS))
    replies = []
    for _ in range(3):
        reception.advance(MOST_COMMANDS)
        replies.append((reception.data_to_send().count(b"\r\n"), reception.session.is_behind()))
    assert replies == [(MOST_COMMANDS, True), (MOST_COMMANDS, False), (0, False)]


def test_others_are_answered_after_at_most_two_turns_of_a_client_that_pipelines_for_ever():
    async def main() -> None:
        async with inbound() as service:
            hogs = [await service.greeted() for _ in range(5)]
            client = await service.greeted()
            for hog in hogs:
                hog.send_now(FLOOD)
            for _ in range(20):
                client.send_now(b"NOOP\r\n")
                before = [hog.take_now().count(b"\r\n") for hog in hogs]
                client.received.clear()
                assert await client.until(lambda data: data.endswith(b"\r\n")) == b"250 2.0.0 OK\r\n"
                answered = [hog.take_now().count(b"\r\n") - had for hog, had in zip(hogs, before, strict=True)]
                assert all(count <= 4 * MOST_COMMANDS for count in answered), answered
            for hog in hogs:  # and in the end all of it is answered, in order
                assert await hog.until(lambda data: len(data) >= 20_000 * len(REPLY)) == REPLY * 20_000

    run(main())


def test_turns_go_round():
    async def main() -> None:
        async with inbound() as service:
            hogs = [await service.greeted() for _ in range(3)]
            for hog in hogs:
                hog.send_now(FLOOD)
            while len(hogs[0].take_now()) < 10_000 * len(REPLY):
                await asyncio.sleep(0)
                counts = [hog.take_now().count(b"\r\n") for hog in hogs]
                assert max(counts) - min(counts) <= 2 * MOST_COMMANDS, counts

    run(main())


def test_what_a_client_has_sent_is_answered_although_it_has_closed_its_side():
    async def main() -> None:
        async with inbound() as service:
            client = await service.greeted()
            client.send_now(b"NOOP\r\n" * 1000)
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.to_end() == b"250 2.0.0 OK\r\n" * 1000

    run(main())


def test_nothing_is_executed_for_a_client_that_does_not_read_until_it_does():
    async def main() -> None:
        async with inbound() as service:
            client = await service.greeted()
            sent = await send_until_full(client)
            answered, still = 0.0, 0
            while still < 5:
                before, answered = answered, service.metric("commands_total", verb="HELP")
                still = still + 1 if answered == before else 0
                for _ in range(100):  # turns
                    await asyncio.sleep(0)
            assert answered < sent
            await client.until(lambda data: data.count(b"\r\n") >= sent)
            assert service.metric("commands_total", verb="HELP") == sent

    run(main())


async def send_until_full(client: Client) -> int:
    """How many HELPs went out until neither the kernel nor the gateway took more."""
    sent = idle = 0
    while idle < 100:
        try:
            sent += client.send_now((b"HELP\r\n" * 10_000)[sent % 6 :])
            idle = 0
        except BlockingIOError:
            idle += 1
        await asyncio.sleep(0)
    return sent // 6


def test_a_client_that_does_not_read_is_sent_away_when_its_time_is_up():
    async def main() -> None:
        async with inbound(client_timeout=5.0) as service:
            client = await service.greeted()
            await send_until_full(client)
            service.roster.check_idle(service.loop.time() + 6.0)
            assert (await client.to_end()).endswith(b"421 4.4.2 gw.example idle too long\r\n")
            await service.until(lambda: service.host.open == 0)

    run(main())


def test_a_client_that_pipelines_and_does_not_read_costs_little_memory(start):
    gateway = start(INIT.replace("relay_hosts", "limits = { errors = 0 }, relay_hosts"), "--workers", "1")
    (worker,) = gateway.workers()
    hogs = flood(gateway.address, 10)
    before = resident(worker)  # what comes once is no client's
    hogs += flood(gateway.address, 40)
    assert (resident(worker) - before) / 40 < MOST_KEPT
    for hog in hogs:
        hog.close()
    wait_until(lambda: gateway.metric("connections_open") == 0, "they are gone")


def flood(address: tuple[str, int], number: int) -> list[socket.socket]:
    """Clients that have sent what the gateway and both kernels take, and read nothing."""
    hogs = [socket.create_connection(address) for _ in range(number)]
    with selectors.DefaultSelector() as selector:
        for hog in hogs:
            hog.setblocking(False)
            selector.register(hog, selectors.EVENT_WRITE)
        while ready := selector.select(0.5):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.send(FLOOD)
    return hogs


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_refusals_of_one_kind_are_recorded_up_to_a_number_and_then_counted():
    page = new_page()
    client = MemoryClient(load(LISTENS, page=page), "127.0.0.1", lambda data: [data], page)
    client.send(b"EHLO client.example\r\n" + b"X\r\n" * 3500 + b"DATA\r\n" * 20)
    client.reception.lost()
    unknown = [record for record in client.records() if record["reason"] == "unknown_command"]
    assert [record.get("left_out") for record in unknown] == [None] * 100 + [1000] * 3 + [400]
    assert unknown[-1]["response"]["code"] == 500
    others = [record for record in client.records() if record["reason"] == "bad_sequence"]
    assert [record.get("left_out") for record in others] == [None] * 20
    values = client.metrics()
    assert values["relay_gateway_rejections_without_record_total", frozenset()] == 3400
    assert (
        values["relay_gateway_rejections_total", frozenset({("stage", "command"), ("reason", "unknown_command")})]
        == 3500
    )


def test_a_client_whose_messages_are_taken_has_every_refusal_recorded():
    page = new_page()
    client = MemoryClient(load(OPEN + TAKEN, page=page), "127.0.0.1", lambda data: [data], page)
    for _ in range(3):
        client.send(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<x>\r\n" * 60)
        client.send(b"RCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
    client.reception.lost()
    refused = [record for record in client.records() if record["type"] == "Rejection"]
    assert [record.get("left_out") for record in refused] == [None] * 180
