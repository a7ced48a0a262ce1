"""TLS over our streams, at real sockets with Python's own TLS as the peer: octets, portions, ends, failures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from gateway import metrics
from gateway.inbound.complaints import Complaints
from gateway.net import tls, tls_stream
from gateway.smtp import replies
from tests.inbound import Client, Inbound, inbound, run

STARTTLS = b"EHLO client.example\r\nSTARTTLS\r\n"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class Secure:
    """The client's end of TLS over a socket; what it wants to send is cut by `split`."""

    def __init__(
        self,
        client: Client,
        context: ssl.SSLContext = TRUSTING,
        most: int = 1 << 20,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.client = client
        self._most = most
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, session=session)
        self.received = bytearray()
        self.goodbye = False  # close_notify came

    async def flush(self) -> None:
        data = self.outgoing.read()
        for at in range(0, len(data), self._most):
            await self.client.loop.sock_sendall(self.client.sock, data[at : at + self._most])
            if self._most < 100:
                await asyncio.sleep(0)

    async def _more(self) -> bool:
        await self.flush()
        try:
            data = await self.client.loop.sock_recv(self.client.sock, 1 << 16)
        except ConnectionResetError:
            data = b""
        self.incoming.write(data)
        if not data:
            self.incoming.write_eof()
        return bool(data)

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._more()
            except ssl.SSLError:
                await self.flush()  # why
                raise
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    async def until(self, seen: Callable[[bytes], bool]) -> bytes:
        while not seen(bytes(self.received)):
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if not await self._more():
                    break
                continue
            except ssl.SSLEOFError:
                break
            if not data:
                self.goodbye = True
                break
            self.received += data
        return bytes(self.received)

    async def say(self, data: bytes, replies: int) -> bytes:
        self.received.clear()
        await self.send(data)
        return await self.until(lambda said: said.count(b"\r\n") >= replies)


async def ready_for_tls(service: Inbound) -> Client:
    client = await service.greeted()
    client.send_now(STARTTLS)
    await client.until(lambda data: data.endswith(b"220 2.0.0 Ready to start TLS\r\n"))
    client.received.clear()
    return client


async def secured(service: Inbound, **options: Any) -> Secure:
    secure = Secure(await ready_for_tls(service), **options)
    await secure.shake()
    return secure


def of_version(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("most", [7, 1 << 20], ids=["in sevens", "whole"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_ticket_is_good_for_one_change_of_keys_and_not_for_two(version, most):
    context = of_version(version)

    async def main() -> None:
        async with inbound() as service:
            keys = service.host.contexts

            async def visit(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
                client = await secured(service, context=context, most=most, session=session)
                assert await client.say(b"NOOP\r\n", 1) == b"250 2.0.0 OK\r\n"
                return client.tls.session_reused, client.tls.session

            _, first = await visit(None)
            assert (await visit(first))[0]
            keys.renew(tls.KEYS_LAST)
            assert (await visit(first))[0]
            resumed, second = await visit(None)
            assert not resumed
            keys.renew(2 * tls.KEYS_LAST)
            assert [(await visit(session))[0] for session in (first, second)] == [False, True]
            assert service.metric("tls_resumed_total") == 3

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("most", [1, 7, 1 << 20], ids=["octet by octet", "in sevens", "whole"])
def test_a_session_under_tls_is_the_same_however_its_octets_arrive(version, most):
    context = of_version(version)

    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service, context=context, most=most)
            assert b"STARTTLS" not in await secure.say(b"EHLO client.example\r\n", 6)
            assert await secure.say(b"NOOP\r\nNOOP\r\nX\r\n", 3) == (
                b"250 2.0.0 OK\r\n" * 2 + b"500 5.5.1 Command not recognised\r\n"
            )
            assert await secure.say(b"QUIT\r\n", 9) == b"221 2.0.0 Bye\r\n"
            assert secure.goodbye  # RFC 8446 §6.1
            await service.until(lambda: service.host.open == 0)
            assert service.metric("tls_handshakes_total", result="ok") == 1

    run(main())


def test_what_came_in_the_handshakes_last_flight_is_read():
    async def main() -> None:
        async with inbound() as service:
            secure = Secure(await ready_for_tls(service))
            with contextlib.suppress(ssl.SSLWantReadError):
                secure.tls.do_handshake()
            await secure._more()
            secure.tls.do_handshake()  # TLS 1.3: our Finished is not sent yet
            assert await secure.say(b"NOOP\r\n", 1) == b"250 2.0.0 OK\r\n"

    run(main())


def test_what_was_sent_in_clear_behind_starttls_is_no_tls_and_no_command():
    async def main() -> None:
        async with inbound() as service:
            client = await ready_for_tls(service)
            client.send_now(b"NOOP\r\n")
            assert b"250" not in await client.to_end()
            await service.until(lambda: service.host.open == 0)
            assert service.metric("commands_total", verb="NOOP") == 0
            assert service.metric("tls_handshake_failures_total", cause="no_tls") == 1

    run(main())


def test_replies_that_are_not_read_hold_the_session_under_tls_too_and_all_arrive():
    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service)
            await secure.say(b"EHLO client.example\r\n", 6)
            secure.received.clear()
            sending = asyncio.create_task(secure.send(b"HELP\r\n" * 60_000))
            answered, still = 0.0, 0
            while still < 5:
                before, answered = answered, service.metric("commands_total", verb="HELP")
                still = still + 1 if answered == before else 0
                for _ in range(200):
                    await asyncio.sleep(0)
            assert answered < 60_000
            await secure.until(lambda data: len(data) >= 60_000 * len(replies.HELP.wire))
            await sending
            await service.until(lambda: service.metric("commands_total", verb="HELP") == 60_000)

    run(main())


def test_one_direction_may_end_and_the_other_goes_on():
    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service)
            await secure.send(b"NOOP\r\n" * 500)
            with contextlib.suppress(ssl.SSLWantReadError):
                secure.tls.unwrap()
            await secure.flush()
            assert await all_that_comes(secure) == b"250 2.0.0 OK\r\n" * 500
            await service.until(lambda: service.host.open == 0)

    async def all_that_comes(secure: Secure) -> bytes:
        while await secure._more():
            pass
        with contextlib.suppress(ssl.SSLError):
            while data := secure.tls.read(1 << 16):
                secure.received += data
        return bytes(secure.received)

    run(main())


def test_a_connection_that_ends_without_goodbye_is_an_end():
    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service)
            secure.client.sock.close()
            await service.until(lambda: service.host.open == 0)

    run(main())


def test_a_changed_record_ends_the_connection():
    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service)
            secure.tls.write(b"NOOP\r\n")
            record = bytearray(secure.outgoing.read())
            record[-1] ^= 1
            secure.client.send_now(bytes(record))
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
                await secure.until(lambda _: False)
            await service.until(lambda: service.host.open == 0)
            assert service.metric("commands_total", verb="NOOP") == 0

    run(main())


def context(**options: Any) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(made, name, value)
    return made


def old() -> ssl.SSLContext:
    made = context()
    made.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_1
    return made


def weak() -> ssl.SSLContext:
    made = context(maximum_version=ssl.TLSVersion.TLSv1_2)
    made.set_ciphers("aNULL:@SECLEVEL=0")
    return made


@pytest.mark.parametrize(
    ("cause", "fails"),
    [
        ("no_tls", b"GET / HTTP/1.1\r\n\r\n"),
        ("no_tls", b"\x16\x03\x01\x00\x05hello" * 3),
        ("version", old),
        ("cipher", weak),
        ("certificate", lambda: ssl.create_default_context(ssl.Purpose.SERVER_AUTH)),
        ("lost", b""),
        ("timeout", None),
    ],
    ids=["HTTP", "no hello", "TLS 1.1", "no cipher in common", "it does not trust us", "it leaves", "it is silent"],
)
def test_a_handshake_that_fails_is_counted_by_cause_and_told_with_the_peer(cause, fails, caplog):
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with inbound(client_timeout=0.2 if cause == "timeout" else 10.0) as service:
            client = await ready_for_tls(service)
            if callable(fails):
                made = fails()
                if cause == "certificate":
                    made.check_hostname = False
                with pytest.raises(ssl.SSLError):
                    await Secure(client, made).shake()
                    await Secure(client, made).until(lambda _: False)
            elif fails is not None:
                client.send_now(fails)
                if not fails:
                    client.sock.close()
            await service.until(lambda: service.host.open == 0)
            counted = {name: service.metric("tls_handshake_failures_total", cause=name) for name in tls_stream.CAUSES}
            assert {name for name, count in counted.items() if count} == {cause}
            assert service.metric("tls_handshakes_total", result="failed") == 1
            assert service.metric("connections_open") == 0

    run(main())
    assert f"TLS handshake with 127.0.0.1 failed ({cause}): " in caplog.text


def test_a_key_that_cannot_be_used_is_our_own_fault(caplog):
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with inbound(tls_certificate=KEY, tls_private_key=KEY) as service:
            await (await ready_for_tls(service)).to_end()
            assert service.metric("tls_handshake_failures_total", cause="local") == 1
            await service.until(lambda: service.host.open == 0)

    KEY = tls.KeySource(key_data="no key")
    run(main())
    assert "TLS handshake with 127.0.0.1 failed (local): " in caplog.text


def test_lines_of_one_kind_are_written_once_a_minute_with_the_number_of_those_that_were_not(caplog):
    caplog.set_level(logging.INFO)
    complaints = Complaints(logging.getLogger("test"))
    for second in range(130):
        complaints.say("a", float(second), f"at {second}")
    complaints.say("b", 1.0, "another")
    assert caplog.messages == [
        "at 0",
        "at 60 (and 59 more like it in the last 60 s)",
        "at 120 (and 59 more like it in the last 60 s)",
        "another",
    ]


def test_the_causes_are_those_of_the_metric():
    assert metrics.TLS_CAUSES == tls_stream.CAUSES


def test_a_client_of_a_draining_worker_reads_why_and_goodbye():
    async def main() -> None:
        async with inbound() as service:
            secure = await secured(service)
            await secure.say(b"EHLO client.example\r\n", 6)
            secure.received.clear()
            service.roster.drain()
            assert await secure.until(lambda _: False) == b"421 4.3.2 gw.example shutting down\r\n"
            assert secure.goodbye

    run(main())
