"""Clients that speak something else, and clients that do not wait for the greeting."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import CidrSet
from gateway.config import EarlyTalker, ListenerParams
from gateway.smtp.events import Observer
from gateway.smtp.foreign import KINDS
from gateway.smtp.replies import RESET_OK
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from tests.fuzz.fuzz_arrival import portions
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR
from tests.inbound import inbound, run
from tests.test_proxy_protocol import V1, v2

FOREIGN = b"554 5.5.1 This is an SMTP server\r\n"
MAIL = b"EHLO c.example\r\nMAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\nDATA\r\n"
MAIL += b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n"
FORM = b"POST / HTTP/1.1\r\nHost: gw.example\r\nContent-Type: text/plain\r\n\r\n" + MAIL


def hello() -> bytes:
    context, out = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


FIRST = [
    (FORM, "http"),
    (b"GET / HTTP/1.0\r\n\r\n", "http"),
    (b"CONNECT mx.example:25 HTTP/1.1\r\n\r\n", "http"),
    (b"PROPFIND / HTTP/1.1\r\n\r\n", "http"),
    (b"get / http/1.1\r\n\r\n", "http"),
    (b"Host: gw.example\r\n\r\n", "http"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
    (hello(), "tls"),
    (b"\x16", "tls"),
    (V1 + MAIL, "proxy"),
    (v2() + MAIL, "proxy"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
    (b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00", "rdp"),
]


@pytest.mark.parametrize(("octets", "kind"), FIRST)
def test_another_protocol_ends_the_connection_at_once_and_is_counted_and_told_once(octets, kind, caplog):
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with inbound() as service:
            for _ in range(3):
                client = await service.greeted()
                client.send_now(octets)
                replies = await client.to_end()
                assert replies.endswith(FOREIGN)
                assert b"250" not in replies and b"354" not in replies
            assert service.metric("other_protocols_total", protocol=kind) == 3
            assert service.metric("other_protocols_total") == 3
            assert service.metric("messages_total") == 0

    run(main())
    assert len([line for line in caplog.messages if line.startswith("127.0.0.1 speaks ")]) == 1


@pytest.mark.parametrize("method", ["EHLO", "HELO", "NOOP", "RSET", "VRFY", "HELP", "QUIT", "MAIL", "XYZZY"])
def test_a_script_that_calls_its_method_as_a_command_sends_no_mail(method):
    """As a page can, whose name has come to point here: its request has the same origin, so its method may be any."""

    async def main() -> None:
        async with inbound() as service:
            client = await service.greeted()
            client.send_now(FORM.replace(b"POST", method.encode()))
            replies = await client.to_end()
            assert b"354" not in replies
            assert replies.endswith(FOREIGN)
            assert service.metric("messages_total") == 0

    run(main())


@pytest.mark.parametrize("before", [b"EHLO c.example\r\n", MAIL.partition(b"DATA")[0]])
def test_a_line_of_http_ends_the_connection_wherever_commands_are_read(before):
    async def main() -> None:
        async with inbound() as service:
            client = await service.greeted()
            client.send_now(before + FORM)
            replies = await client.to_end()
            assert replies.endswith(FOREIGN)
            assert b"354" not in replies
            assert service.metric("other_protocols_total", protocol="http") == 1

    run(main())


def test_what_only_looks_like_it_is_an_unknown_command_and_within_a_message_it_is_text():
    async def main() -> None:
        async with inbound() as service:
            client = await service.greeted()
            client.send_now(
                b"GET\r\nPOSTAL x\r\nget / FTP/1.0\r\nEHLO c\r\nSSH-2.0-x\r\n\x16\x03\r\nPROXY x\r\nQUIT\r\n"
            )
            assert (await client.to_end()).count(b"500 5.5.1 ") == 6
            assert service.metric("other_protocols_total") == 0
            client = await service.greeted()
            client.send_now(MAIL.replace(b"hello", b"GET / HTTP/1.1\r\nPOST / HTTP/1.1"))
            assert b"451 4.3.5 No destination" in await client.to_end()

    run(main())


def test_a_browsers_form_never_becomes_mail(start):
    gateway = start(INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }") + TO_MAILDIR, "--workers", "1")
    browser = http.client.HTTPConnection(*gateway.address, timeout=PATIENCE)
    with contextlib.closing(browser):
        browser.request("POST", "/", body=b"\r\n" + MAIL, headers={"Content-Type": "text/plain"})
        assert b"".join(iter(lambda: browser.sock.recv(1000), b"")).endswith(FOREIGN)
    assert gateway.metric('other_protocols_total{protocol="http"}') == 1
    assert gateway.mails() == []


@given(
    st.binary(max_size=40), st.sampled_from([b"", b"GET / x\r\n", b"SSH-2\r\n", b"\x16\x03", b"EHLO x\r\n"]), st.data()
)
def test_any_split_of_any_beginning_gives_the_same(octets, start, data):
    whole = start + octets
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))

    def replies(parts: list[bytes]) -> tuple[bytes, str | None]:
        session = ServerSession(Terms(ListenerParams(hostname="gw.example")), Observer())
        for part in parts:
            session.receive_data(part)
            while session.next_event() is not None:
                session.reply(RESET_OK)
        return session.data_to_send(), session.foreign

    assert replies(portions(whole, cuts)) == replies([whole]) == replies([bytes([octet]) for octet in whole])


def test_every_kind_is_tried():
    assert {kind for _, kind in FIRST} == set(KINDS)


# --- early talkers ----------------------------------------------------------------------------------------------------

STRANGERS = {"relay_hosts": ()}


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_who_talks_before_the_greeting_is_refused_where_the_listener_says_so(delay):
    async def main() -> None:
        async with inbound(early_talker=EarlyTalker.REJECT, banner_delay=delay, **STRANGERS) as service:
            client = service.call()
            client.send_now(MAIL)
            assert await client.to_end() == b"554 5.5.0 You talked before the greeting\r\n"
            assert service.metric("connections_refused_total", reason="early_talker") == 1
            assert service.metric("rejections_total", stage="connect", reason="early_talker") == 1
            client = await service.greeted()
            client.send_now(b"QUIT\r\n")
            assert await client.to_end() == b"221 2.0.0 Bye\r\n"

    run(main())


def test_without_it_early_words_wait_for_the_greeting():
    async def main() -> None:
        async with inbound(banner_delay=0.05, **STRANGERS) as service:
            client = service.call()
            client.send_now(b"EHLO c.example\r\nQUIT\r\n")
            replies = await client.to_end()
            assert replies.startswith(b"220 gw.example ") and replies.endswith(b"221 2.0.0 Bye\r\n")

    run(main())


def test_peers_that_may_relay_are_greeted_at_once_whatever_they_do():
    async def main() -> None:
        async with inbound(early_talker=EarlyTalker.REJECT, banner_delay=1000.0) as service:
            client = service.call()
            client.send_now(b"QUIT\r\n")
            assert (await client.to_end()).startswith(b"220 gw.example ")

    run(main())


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(command=0x20)])
def test_a_proxy_that_looks_whether_we_are_well_is_greeted_at_once(header):
    """Some do not wait for the greeting."""
    proxy = CidrSet(["127.0.0.1"])

    async def main() -> None:
        strict = {"early_talker": EarlyTalker.REJECT, "banner_delay": 1000.0, **STRANGERS}
        async with inbound(proxy_protocol_from=proxy, **strict) as service:
            client = service.call()
            client.send_now(header + b"HELO lb\r\nQUIT\r\n")
            replies = await client.to_end()
            assert replies.startswith(b"220 gw.example ") and replies.endswith(b"221 2.0.0 Bye\r\n")

    run(main())


def test_a_client_that_leaves_while_its_banner_is_held_back_leaves_nothing_behind():
    async def main() -> None:
        async with inbound(banner_delay=1000.0, **STRANGERS) as service:
            client = service.call()
            await service.until(lambda: service.host.open == 1)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
            await service.until(lambda: service.host.open == 0)
            assert len(service.roster) == 0

    run(main())
