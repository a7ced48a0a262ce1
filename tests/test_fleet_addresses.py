"""Members with several addresses: each is attempted until one serves (RFC 5321 §5.1, RFC 8305); resolving names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.message
import dns.rcode
import pytest
from couriers_in_loop import DELIVERED, PATH, UNREACHABLE, Gateway, batch, only
from upstream import Answer, Do, Upstream

from gateway.config import Destination, EgressPath, Host, QueueConfig, SmtpFleet
from gateway.couriers.fleet.route import in_order
from gateway.handover import Status
from gateway.net import resolver as resolver_module
from gateway.net.resolver import Resolver
from tests.outside import name_server


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Every host has these addresses."""

    def name(*addresses: str) -> None:
        async def answer(self: Resolver, host: str) -> list[str]:
            return list(addresses)

        monkeypatch.setattr(Resolver, "addresses", answer)

    return name


def fleet(port: int) -> QueueConfig:
    return QueueConfig(protocol=SmtpFleet((Host("mta", "mta.example", port),)))


async def hand_over(gateway: Gateway, port: int, path: EgressPath = PATH):
    async with asyncio.timeout(20):
        return await gateway.start(batch(), path, queue=fleet(port))


@contextmanager
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.2 where the start of a connection is not even answered."""
    with socket.socket() as listening, socket.socket() as waiting:
        listening.bind(("127.0.0.2", 0))
        listening.listen(0)
        waiting.connect(listening.getsockname())  # and nobody accepts it
        yield listening.getsockname()[1]


BRIEF = EgressPath(banner_timeout=0.03, ehlo_timeout=0.03)


@pytest.mark.parametrize(
    "answers",
    [
        {"CONNECT": Do.STALL},
        {"CONNECT": Do.DROP},
        {"CONNECT": Do.RESET},
        {"CONNECT": b"554 5.3.2 go away\r\n"},
        {"CONNECT": b"421 4.3.2 busy\r\n"},
        {"CONNECT": b"garbage\r\n"},
        {"EHLO": Do.STALL},
        {"EHLO": Do.DROP},
        {"EHLO": b"421 4.3.2 busy\r\n"},
    ],
    ids=str,
)
def test_the_next_address_is_attempted_when_one_fails_before_mail_and_the_working_one_is_remembered(
    run, named, answers: dict[str, Answer]
) -> None:
    named("127.0.0.2", "127.0.0.1")

    async def main() -> None:
        async with Upstream() as sound, Upstream(answers, host="127.0.0.2", port=sound.port) as broken:
            async with Gateway() as gateway:
                report = await hand_over(gateway, sound.port, BRIEF)
                assert only(report) == DELIVERED
                assert report.peer_address == "127.0.0.1"
                sound.drop_all()
                await sound.until(lambda member: not member.open)
                assert only(await hand_over(gateway, sound.port, BRIEF)) == DELIVERED
            assert len(broken.dialogues) == 1

    run(main())


def test_no_other_address_is_attempted_once_something_was_asked(run, named) -> None:
    named("127.0.0.2", "127.0.0.1")

    async def main() -> None:
        async with Upstream() as sound, Upstream({"MAIL": Do.DROP}, host="127.0.0.2", port=sound.port):
            async with Gateway() as gateway:
                assert only(await hand_over(gateway, sound.port))[0] is Status.TRANSIENT
            assert not sound.dialogues

    run(main())


def test_an_address_that_swallows_connections_is_overtaken_by_the_next(run, named) -> None:
    named("127.0.0.2", "127.0.0.1")

    async def main() -> None:
        with black_hole() as port:
            async with Upstream(port=port) as sound, Gateway() as gateway:
                path = EgressPath(connect_timeout=1000)
                assert only(await hand_over(gateway, port, path)) == DELIVERED
                assert len(sound.mails) == 1

    run(main())


def test_the_connect_timeout_runs_for_the_last_address(run, named) -> None:
    named("127.0.0.2")

    async def main() -> None:
        with black_hole() as port:
            async with Gateway() as gateway:
                assert only(await hand_over(gateway, port, EgressPath(connect_timeout=0.03))) == UNREACHABLE

    run(main())


def test_addresses_are_never_attempted_beyond_the_deadline(run, named) -> None:
    named("127.0.0.2", "127.0.0.1")

    async def main() -> None:
        async with Upstream() as sound, Upstream({"CONNECT": Do.STALL}, host="127.0.0.2", port=sound.port):
            async with Gateway() as gateway:
                destination = Destination(fleet(sound.port), PATH)
                later = gateway.couriers.submit(batch(), destination, gateway.loop.time() + 0.05)
                ended = gateway.loop.create_future()
                later.then(lambda: ended.set_result(None))
                await ended
                assert only(later.result())[0] is Status.TRANSIENT
            assert not sound.dialogues

    run(main())


@pytest.mark.parametrize(
    ("addresses", "working", "order"),
    [
        ([], "", []),
        (["10.0.0.1"], "10.0.0.2", ["10.0.0.1"]),
        (["::1", "::2", "10.0.0.1", "10.0.0.2"], "", ["::1", "10.0.0.1", "::2", "10.0.0.2"]),
        (["10.0.0.1", "10.0.0.2", "::1"], "", ["10.0.0.1", "::1", "10.0.0.2"]),
        (["10.0.0.1", "10.0.0.2", "::1"], "10.0.0.2", ["10.0.0.2", "10.0.0.1", "::1"]),
    ],
)
def test_what_worked_last_comes_first_and_families_take_turns(addresses, working: str, order: list[str]) -> None:
    assert in_order(addresses, working) == order


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are asked for again after their time to live, whatever it is."""
    monkeypatch.setattr(resolver_module, "SHORTEST", 0.0)
    monkeypatch.setattr(resolver_module, "LOCAL", 0.0)
    monkeypatch.setattr(resolver_module, "RETRY", 0.0)


def test_answers_are_kept_for_as_long_as_their_records_say(run) -> None:
    records = {("mta.example", "A"): ["300 10.0.0.1"], ("mta.example", "AAAA"): ["600 2001:db8::1"]}

    async def main() -> None:
        with name_server(records) as server:
            resolver = Resolver(asyncio.get_running_loop(), [server.address])
            both = await asyncio.gather(resolver.addresses("mta.example"), resolver.addresses("mta.example"))
            assert {*map(frozenset, both)} == {frozenset({"10.0.0.1", "2001:db8::1"})}
            await resolver.addresses("mta.example")
            assert server.asked["mta.example", "A", "udp"] == 1
            assert await resolver.addresses("127.0.0.9") == ["127.0.0.9"]
            with pytest.raises(OSError, match=r"no address of other\.example"):
                await resolver.addresses("other.example")
            resolver.close()

    run(main())


def test_the_last_good_answer_is_used_when_dns_fails_and_a_new_one_is_noticed(run, short, caplog) -> None:
    caplog.set_level("INFO")

    def failing(query: bytes, over: str) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()

    async def main() -> None:
        with name_server({("mta.example", "A"): ["0 10.0.0.1"]}) as server:
            resolver = Resolver(asyncio.get_running_loop(), [server.address])
            assert await resolver.addresses("mta.example") == ["10.0.0.1"]
            server.records["mta.example", "A"] = ["0 10.0.0.2"]
            assert await resolver.addresses("mta.example") == ["10.0.0.2"]
            assert "mta.example has other addresses: 10.0.0.2; it had 10.0.0.1" in caplog.text
            server.answer = failing  # type: ignore[method-assign]
            assert await resolver.addresses("mta.example") == ["10.0.0.2"]
            with pytest.raises(OSError, match="no address"):
                await resolver.addresses("other.example")
            resolver.close()

    run(main())


def test_names_that_are_gone_have_no_addresses(run, short) -> None:
    async def main() -> None:
        with name_server({("mta.example", "A"): ["0 10.0.0.1"]}) as server:
            resolver = Resolver(asyncio.get_running_loop(), [server.address])
            assert await resolver.addresses("mta.example") == ["10.0.0.1"]
            server.records.clear()
            with pytest.raises(OSError, match="no address"):
                await resolver.addresses("mta.example")
            resolver.close()

    run(main())


def test_the_hosts_file_counts(run) -> None:
    async def main() -> None:
        with name_server({}) as server:
            resolver = Resolver(asyncio.get_running_loop(), [server.address])
            assert "127.0.0.1" in await resolver.addresses("localhost")
            resolver.close()

    run(main())
