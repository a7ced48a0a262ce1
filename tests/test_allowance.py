"""What all clients of a network may do in a time, whichever worker they come to; at real sockets and processes."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import _fastpath as fp
from gateway.arena import HELD, Arena, parts_for
from gateway.config import Limits, ListenerParams
from gateway.delivery.services import Services
from gateway.inbound.allowance import Allowance, allowance_of, network_of
from gateway.net.endpoints import Endpoints
from gateway.quotas import Quotas
from gateway.rates import Rate
from gateway.smtp.address import parse_address
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.events import AuthRequested
from gateway.smtp.replies import Reason, make
from gateway.smtp.terms import Terms
from tests.gateway_process import INIT, Gateway, wait_until
from tests.inbound import Client, inbound, run
from tests.policy_tools import new_page

STRANGER: dict[str, Any] = {"relay_hosts": fp.CidrSet()}
TAKES_ALL = """
kumo.on('get_listener_domain', function(domain) return kumo.make_listener_domain { relay_to = true } end)
kumo.on('smtp_server_message_received', function(message) message:set_meta('queue', 'null') end)
"""
LOCAL = bytes((127, 0, 0, 1))


@pytest.fixture
def quotas() -> Iterator[Quotas]:
    arena = Arena(parts_for(1))
    yield Quotas(arena, 0)
    os.close(arena.fd)


async def say(client: Client, line: bytes, replies: int = 1) -> list[bytes]:
    client.received.clear()
    client.send_now(line)
    return (await client.until(lambda data: data.count(b"\r\n") == replies)).splitlines()


def limited(**limits: Any) -> dict[str, Any]:
    return {**STRANGER, "limits": Limits(**limits)}


def test_connections_of_a_network_are_bounded_and_whoever_goes_makes_room(quotas):
    async def main() -> None:
        async with inbound(quotas=quotas, **limited(connections=2)) as service:
            first, _ = await service.greeted(), await service.greeted()
            third = service.call()
            assert await third.to_end() == (
                b"421 4.7.0 gw.example too many connections at a time from your network, or of yours\r\n"
            )
            assert service.metric("connections_refused_total", reason="peer_connections") == 1
            assert service.metric("rejections_total", stage="connect", reason="peer_connections") == 1
            await say(first, b"QUIT\r\n")
            await service.until(lambda: len(service.roster) == 1)
            await service.greeted()
            assert [(each.name, each.most) for each in quotas.holders("open")] == [
                ("open 127.0.0.1/32 at 127.0.0.1:0", 2)
            ]
        assert quotas.holders("open") == []

    run(main())


def test_connections_come_no_more_often_than_they_may(quotas):
    async def main() -> None:
        async with inbound(quotas=quotas, **limited(connection_rate=Rate.read("3/1h"))) as service:
            for _ in range(3):
                assert await say(await service.greeted(), b"QUIT\r\n") == [b"221 2.0.0 Bye"]
            assert (await service.call().to_end()).startswith(b"421 4.7.0 gw.example too many connections from your")
            assert service.metric("rejections_total", reason="connection_rate") == 1

    run(main())


def test_messages_and_recipients_are_counted_over_all_sessions_of_a_network(quotas):
    async def main() -> None:
        rates = {"message_rate": Rate.read("2/1h"), "recipient_rate": Rate.read("3/1h")}
        async with inbound(TAKES_ALL, quotas=quotas, **limited(**rates)) as service:
            answers = []
            for _ in range(3):
                client = await service.greeted()
                said = b"HELO x\r\nMAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<c@d.example>\r\n" * 2
                answers.append([line[:9] for line in await say(client, said, 4)][1:])
            assert answers == [
                [b"250 2.1.0", b"250 2.1.5", b"250 2.1.5"],
                [b"250 2.1.0", b"250 2.1.5", b"452 4.7.0"],
                [b"451 4.7.0", b"503 5.5.1", b"503 5.5.1"],
            ]
            assert service.metric("rejections_total", stage="mail", reason="message_rate") == 1
            assert service.metric("rejections_total", stage="rcpt", reason="recipient_rate") == 1

    run(main())


def test_too_many_octets_defer_the_next_message_and_never_the_one_that_came(quotas):
    async def main() -> None:
        async with inbound(TAKES_ALL, quotas=quotas, **limited(octet_rate=Rate.read("1000/1h"))) as service:
            client = await service.greeted()
            await say(client, b"HELO x\r\n")
            message = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + b"x" * 700 + b"\r\n.\r\n"
            for _ in range(2):
                assert (await say(client, message, 4))[3].startswith(b"250 2.0.0 OK ids=")
            assert (await say(client, b"MAIL FROM:<a@b.example>\r\n"))[0].startswith(b"451 4.7.0 too much mail")

    run(main())


def test_relay_hosts_are_exempt_unless_they_are_trusted_with_it(quotas):
    async def main() -> None:
        for trusted, answer in ((False, b"250 2.1.0"), (True, b"451 4.7.0")):
            limits = Limits(message_rate=Rate.read("1/1h"), connections=1, trusted=trusted)
            async with inbound(TAKES_ALL, quotas=quotas, limits=limits) as service:
                client = await service.greeted()
                said = b"HELO x\r\n" + b"MAIL FROM:<a@b.example>\r\nRSET\r\n" * 2
                assert (await say(client, said, 5))[3].startswith(answer)

    run(main())


def test_a_flood_of_refusals_has_few_records_but_every_one_is_counted(quotas):
    async def main() -> None:
        async with inbound(quotas=quotas, **limited(connection_rate=Rate.read("1/1h"))) as service:
            await service.greeted()
            for _ in range(50):
                await service.call().to_end()
            assert service.metric("rejections_total", reason="connection_rate") == 50
            assert service.metric("rejections_without_record_total") == 30

    run(main())


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), st.integers(0, 32), st.integers(0, 128))
def test_a_network_is_written_as_everywhere(packed: bytes, v4: int, v6: int):
    endpoints = ends(packed)
    network = ipaddress.ip_network((endpoints.peer, v4 if len(endpoints.peer) == 4 else v6), strict=False)
    assert network_of(endpoints, Limits(ipv4_prefix=v4, ipv6_prefix=v6)) == str(network)


def test_a_network_is_as_large_as_the_listener_says():
    v4, v6 = ends(bytes((192, 0, 2, 77))), ends(bytes.fromhex("20010db8000100020003000400050006"))
    assert network_of(v4, Limits()) == "192.0.2.77/32"
    assert network_of(v6, Limits()) == "2001:db8:1:2::/64"
    assert network_of(v4, Limits(ipv4_prefix=24)) == "192.0.2.0/24"
    assert network_of(v6, Limits(ipv6_prefix=48)) == "2001:db8:1::/48"


def ends(packed: bytes) -> Endpoints:
    return Endpoints((str(ipaddress.ip_address(packed)), 25), ("127.0.0.1", 25))


def allowance(quotas: Quotas, *, exempt: bool = False, packed: bytes = LOCAL, **params: Any) -> Allowance:
    terms = Terms(ListenerParams(hostname="gw.example", **params), scope="127.0.0.1:25")
    return Allowance(quotas, new_page(), terms, ends(packed), exempt)


def reason_of(reply: Any) -> Reason | None:
    return None if reply is None else reply.reason


MAIL, RCPT = MailCommand(parse_address("a@b.example")), RcptCommand(parse_address("c@d.example"))


def test_failed_guesses_of_a_network_close_auth_for_all_of_it(quotas):
    failed = make(535, "5.7.8 no", Reason.AUTH_FAILED)
    guess = AuthRequested("u", "u", "p")
    limits = Limits(auth_failures=Rate.read("3/1h"))
    first, second = (allowance(quotas, limits=limits) for _ in range(2))
    for each in (first, second, first):
        assert each.asked(guess) is None
        each.refused(fp.AUTH, failed)
    for each in (first, second, allowance(quotas, limits=limits)):
        assert reason_of(each.asked(guess)) is Reason.AUTH_RATE
        assert each.asked(MAIL) is None
    other = allowance(quotas, limits=limits, packed=bytes((10, 0, 0, 1)))
    assert other.asked(guess) is None
    other.refused(fp.AUTH, make(504, "5.5.4 what", Reason.AUTH_MECHANISM))  # no guess
    assert quotas.look("guesses", "10.0.0.1/32", limits.auth_failures or Rate(1, 1), "127.0.0.1:25").remaining == 2


def test_an_identity_is_counted_from_wherever_it_comes_and_in_relay_hosts_too(quotas):
    own = Limits(connections=2, message_rate=Rate.read("4/1h"))
    sessions = [
        allowance(quotas, exempt=exempt, packed=bytes((10, 0, 0, number)), limits_per_identity=own)
        for number, exempt in enumerate((True, False, True), 1)
    ]
    assert [session.asked(MAIL) for session in sessions] == [None, None, None]  # before AUTH
    assert [reason_of(session.logged_in("fleet")) for session in sessions] == [None, None, Reason.PEER_CONNECTIONS]
    sessions[0].disconnect()
    late = allowance(quotas, exempt=True, limits_per_identity=own)  # nobody knows from where
    assert late.logged_in("fleet") is None
    assert [reason_of(late.asked(MAIL)) for _ in range(5)] == [None] * 4 + [Reason.MESSAGE_RATE]
    assert reason_of(sessions[1].asked(MAIL)) is Reason.MESSAGE_RATE
    for session in (*sessions, late):
        session.disconnect()
    assert quotas.holders("open") == []


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("192.0.2.1", {"192.0.2.1/32", "of 192.0.2.1"}),
        ("::FFFF:192.0.2.1", {"192.0.2.1/32"}),
        ("192.0.2.0/24", {"192.0.2.1/32", "192.0.2.10/32"}),
        ("2001:db8:0:1::77", {"2001:db8:0:1::/64"}),
        ("2001:db8::/32", {"2001:db8:0:1::/64", "2001:db8:0:2::/64"}),
        ("ann", {"ann@x.example"}),
        ("192.0.2", {"192.0.2.1/32", "192.0.2.10/32", "of 192.0.2.1"}),
        ("198.51.100.1", set()),
    ],
)
def test_holders_are_found_by_address_network_or_name(quotas, peer, found):
    rate = Rate.read("2/1h")
    networks = ("192.0.2.1/32", "192.0.2.10/32", "2001:db8:0:1::/64", "2001:db8:0:2::/64", "ann@x.example")
    for number, who in enumerate((*networks, "of 192.0.2.1")):
        quotas.take("messages", who, rate, "[::1]:25" if number % 2 else "")
    names = {holder.name.removeprefix("messages ").removesuffix(" at [::1]:25") for holder in quotas.holders(peer)}
    assert names == found


def test_who_is_at_two_listeners_has_two_lines(quotas):
    for scope in ("[::]:25", "[::]:587\0identity", "[::]:25"):
        quotas.hold(quotas.cell("open", "2001:db8:0:1::/64", scope), 9)
    found = [(holder.name, holder.most) for holder in quotas.holders("2001:db8:0:1::7")]
    assert found == [("open 2001:db8:0:1::/64 at [::]:25", 2), ("open 2001:db8:0:1::/64 at [::]:587", 1)]


def test_who_is_held_to_nothing_has_no_allowance(quotas):
    services: Any = Services.__new__(Services)
    terms = Terms(ListenerParams(hostname="gw.example"))
    endpoints = ends(LOCAL).behind(None, None, {}, known=False)  # a proxy's own
    assert allowance_of(services, terms, endpoints) is None
    services.quotas = quotas
    assert allowance_of(services, terms, endpoints) is None


def test_listeners_count_apart(quotas):
    limits = Limits(message_rate=Rate.read("1/1h"))
    terms = [Terms(ListenerParams(hostname="gw.example", limits=limits), scope=scope) for scope in ("a", "b")]
    one, other = (Allowance(quotas, new_page(), each, ends(LOCAL), False) for each in terms)
    assert [reason_of(each.asked(MAIL)) for each in (one, other, one)] == [None, None, Reason.MESSAGE_RATE]


def test_who_finds_no_cell_of_its_own_is_counted_and_still_limited():
    arena = Arena({"rates": 64 + 64 + 9 * 88, "held": HELD})  # one set, of eight cells and one that is shared
    quotas, page = Quotas(arena, 0), new_page()
    terms = Terms(ListenerParams(hostname="gw.example", limits=Limits(message_rate=Rate.read("1/1h"))))
    sessions = [Allowance(quotas, page, terms, ends(bytes((10, 0, 0, number))), False) for number in range(20)]
    taken = [reason_of(session.asked(MAIL)) for session in sessions]
    assert taken == [None] * 9 + [Reason.MESSAGE_RATE] * 11
    sessions[-1].disconnect()
    assert sum(page.get(slot) for slot in range(len(page))) == 12
    os.close(arena.fd)


def controlled(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *words, "--control", str(gateway.folder / "control")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_limit_is_one_for_all_workers_and_shown_and_outlives_a_reload_and_a_killed_worker(start):
    limits = "limits = { connections = 10, message_rate = '5/1h' }, relay_hosts"
    policy = INIT.replace("relay_hosts", limits)
    gateway = start(policy, "--control", "control", "--workers", "4")
    greetings = []
    clients: list[socket.socket] = []
    try:
        for _ in range(30):
            client = gateway.connect()
            clients.append(client)
            greetings.append(client.recv(4)[:3])
        assert (greetings.count(b"220"), greetings.count(b"421")) == (10, 20)
        assert "open 127.0.0.1/32 at 127.0.0.1:0: 10 now\n" in controlled(gateway, "limits").stdout
        assert "open" not in controlled(gateway, "limits", "192.0.2.").stdout
        sent = []
        for client, greeting in zip(clients, greetings, strict=True):
            if greeting == b"220":
                client.sendall(b"HELO x\r\nMAIL FROM:<a@b.example>\r\n")
                with client.makefile("rb") as replies:
                    sent.append([replies.readline() for _ in range(3)][2][:3])
        assert (sent.count(b"250"), sent.count(b"451")) == (5, 5)
        shown = controlled(gateway, "limits", "127.0.0.1").stdout
        assert "messages 127.0.0.1/32 at 127.0.0.1:0: 0 of 5 left" in shown
        for worker in gateway.workers():
            os.kill(worker, 9)
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: len(gateway.workers()) == 4, "they are back")
    gateway.reload(policy)
    gateway.announced(epoch=2)
    with gateway.connect() as client, client.makefile("rb") as replies:
        client.sendall(b"HELO x\r\nMAIL FROM:<a@b.example>\r\n")
        assert [replies.readline()[:3] for _ in range(3)] == [b"220", b"250", b"451"]
