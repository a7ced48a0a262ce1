"""The PROXY protocol: the header in every form and portion, and connections that begin with it or not."""

from __future__ import annotations

import contextlib
import logging
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import CidrSet
from gateway.inbound import prelude
from gateway.net.proxy_protocol import MOST_OF_V1, SIGNATURE, HeaderFault, HeaderReader, NoHeader, _crc32c
from tests.fuzz.fuzz_arrival import header_in, outcome_of_proxy
from tests.gateway_process import INIT, TO_MAILDIR, Gateway, wait_until
from tests.haproxy import HAProxy
from tests.inbound import Inbound, inbound, run
from tests.ports import free_port
from tests.programs import program

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"
LOOPBACK = CidrSet(("127.0.0.0/8",))


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def v2(family: int = 0x11, addresses: bytes | None = None, fields: bytes = b"", command: int = 0x21) -> bytes:
    if addresses is None:
        addresses = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (40000).to_bytes(2, "big") + (25).to_bytes(2, "big")
    behind = addresses + fields
    return SIGNATURE + bytes([command, family]) + len(behind).to_bytes(2, "big") + behind


def checked(fields: bytes) -> bytes:
    """A header with a checksum behind its other fields."""
    empty = v2(fields=fields + tlv(3, bytes(4)))
    return empty[:-4] + _crc32c(empty).to_bytes(4, "big")


SSL_VERIFIED = tlv(0x20, b"\x07" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"mail.example"))
SSL_UNVERIFIED = tlv(0x20, b"\x07" + b"\0\0\0\x01" + tlv(0x22, b"mail.example"))
SSL_WITHOUT_CERTIFICATE = tlv(0x20, b"\x01" + bytes(4) + tlv(0x22, b"mail.example"))
SIX = bytes(15) + b"\x01" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02" + b"\x00\x19\x00\x1a"
NAMED = (("192.0.2.7", 40000), ("198.51.100.1", 25))
NOBODY = (None, None)


@pytest.mark.parametrize(
    ("header", "ends", "told"),
    [
        (V1, NAMED, {}),
        (b"PROXY TCP6 ::1 2001:db8::2 0 65535\r\n", (("::1", 0), ("2001:db8::2", 65535)), {}),
        (b"PROXY UNKNOWN\r\n", NOBODY, {}),
        (b"PROXY UNKNOWN anything \xff here\r\n", NOBODY, {}),
        (v2(), NAMED, {}),
        (v2(0x21, SIX), (("::1", 25), ("2001:db8::2", 26)), {}),
        (v2(command=0x20), NOBODY, {}),
        (v2(0x77, b"whatever", command=0x20), NOBODY, {}),
        (v2(0x00, b""), NOBODY, {}),
        (v2(0x31, bytes(216)), NOBODY, {}),
        (
            v2(fields=tlv(1, b"smtp") + tlv(2, b"mx.example") + tlv(5, b"id-1") + tlv(4, b"\0\0") + tlv(0xE0, b"x")),
            NAMED,
            {"proxy_alpn": "smtp", "proxy_authority": "mx.example", "proxy_unique_id": "id-1"},
        ),
        (v2(fields=tlv(5, b"\xff\0")), NAMED, {"proxy_unique_id": "\\xff\0"}),
        (v2(fields=SSL_VERIFIED), NAMED, {"proxy_ssl_cn": "mail.example"}),
        (v2(fields=SSL_UNVERIFIED), NAMED, {}),
        (v2(fields=SSL_WITHOUT_CERTIFICATE), NAMED, {}),
        (checked(tlv(2, b"mx.example")), NAMED, {"proxy_authority": "mx.example"}),
    ],
)
def test_a_header_says_who_is_connected_to_whom_and_what_else_there_is_to_know(header, ends, told):
    found = HeaderReader().feed(header + b"EHLO x\r\n")
    assert found is not None
    assert (found.client, found.server, found.told, found.rest) == (*ends, told, b"EHLO x\r\n")


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        (b"EHLO client.example\r\n", HeaderFault.MISSING),
        (b"PROX\r\n", HeaderFault.MISSING),
        (b"\x16\x03\x01", HeaderFault.MISSING),
        (b"\r\n\r\n\0\r\nQUIT\r\n", HeaderFault.MISSING),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 \r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4  192.0.2.7 198.51.100.1 40000 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.07 198.51.100.1 40000 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 040000 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 +4000 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", HeaderFault.MALFORMED),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 25\r\n", HeaderFault.MALFORMED),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\nEHLO x\r\n", HeaderFault.MALFORMED),
        (b"PROXY UNKNOWN " + b"x" * MOST_OF_V1, HeaderFault.MALFORMED),
        (b"PROXY \r\n", HeaderFault.MALFORMED),
        (v2(command=0x11), HeaderFault.MALFORMED),
        (v2(command=0x22), HeaderFault.MALFORMED),
        (v2(0x12), HeaderFault.MALFORMED),
        (v2(0x41), HeaderFault.MALFORMED),
        (v2(0x21), HeaderFault.MALFORMED),
        (v2(fields=b"\x02\x00"), HeaderFault.MALFORMED),
        (v2(fields=b"\x02\x00\x05four"), HeaderFault.MALFORMED),
        (v2(fields=tlv(0x20, b"\x07\0\0")), HeaderFault.MALFORMED),
        (v2(fields=tlv(0x20, b"\x07" + bytes(4) + b"\x22\x00\x09x")), HeaderFault.MALFORMED),
        (checked(b"")[:-1] + b"!", HeaderFault.MALFORMED),
        (v2(fields=tlv(3, b"")), HeaderFault.MALFORMED),
        (SIGNATURE + b"\x21\x11\xff\xff", HeaderFault.MALFORMED),
    ],
)
def test_what_is_no_header_is_known_at_the_latest_with_its_last_octet(octets, fault):
    with pytest.raises(NoHeader) as caught:
        HeaderReader().feed(octets)
    assert caught.value.fault is fault


def test_the_checksum_is_crc32c():
    assert _crc32c(b"123456789") == 0xE3069283


@given(st.one_of(st.binary(max_size=300), st.builds(header_in, st.binary(max_size=300))), st.data())
def test_any_split_of_anything_gives_the_same(octets, data):
    cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=8))
    assert outcome_of_proxy(octets, cuts) == outcome_of_proxy(octets, range(len(octets)))


# --- at a listener ----------------------------------------------------------------------------------------------------


async def said(service: Inbound, octets: bytes) -> bytes:
    """All that a client reads that sends this and closes its side."""
    client = service.call()
    client.send_now(octets)
    client.sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        await client.to_end()
    return bytes(client.received)


MAIL = b"EHLO c.example\r\nMAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\nQUIT\r\n"


@pytest.mark.parametrize(
    ("header", "relays"),
    [
        (V1, False),
        (v2(), False),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n", True),
        (b"PROXY TCP6 ::ffff:127.0.0.1 ::1 40000 25\r\n", True),
        (b"PROXY UNKNOWN\r\n", False),
        (v2(command=0x20), False),
        (v2(0x00, b""), False),
    ],
)
def test_the_proxys_own_rights_are_nobodys(header, relays):
    async def main() -> None:
        async with inbound(proxy_protocol_from=LOOPBACK) as service:  # relay_hosts has 127.0.0.1
            replies = await said(service, header + MAIL)
            assert (b"\r\n250 2.1.5 " in replies) is relays
            assert (b"\r\n550 5.7.1 relaying not permitted for " in replies) is not relays
            assert replies.startswith(b"220 gw.example ") and replies.endswith(b"221 2.0.0 Bye\r\n")
            assert service.host.awaited == service.host.open == len(service.roster) == 0

    run(main())


def test_the_parameters_are_those_for_the_client_and_the_address_it_called():
    async def main() -> None:
        peers = {"127.0.0.1": {"hostname": "for-the-proxy.example"}, "192.0.2.0/24": {"hostname": "for-it.example"}}
        async with inbound(peer=peers, require_proxy_protocol=True) as service:
            assert (await said(service, V1)).startswith(b"220 for-it.example ")
            assert (await said(service, v2(command=0x20))).startswith(b"220 for-the-proxy.example ")
            assert service.metric("proxy_headers_total", result="client") == 1
            assert service.metric("proxy_headers_total", result="proxy") == 1

    run(main())


@pytest.mark.parametrize(
    ("octets", "result"),
    [(MAIL, "missing"), (b"PROXY TCP4 what?\r\n" + MAIL, "malformed"), (V1[:-2], "closed"), (b"", "closed")],
)
def test_without_a_good_header_nothing_is_said_and_one_line_a_minute_tells_of_it(octets, result, caplog):
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with inbound(proxy_protocol_from=LOOPBACK) as service:
            for _ in range(3):
                assert await said(service, octets) == b""
            assert service.metric("proxy_headers_total", result=result) == 3
            assert service.host.awaited == len(service.roster) == 0
            assert service.metric("connections_opened_total") == 3
            assert service.metric("rejections_total") == 0

    run(main())
    lines = [line for line in caplog.messages if "no PROXY header from 127.0.0.1:" in line]
    assert len(lines) == (0 if result == "closed" else 1)


def test_a_late_header_ends_the_connection():
    async def main() -> None:
        async with inbound(proxy_protocol_from=LOOPBACK) as service:
            client = service.call()
            client.send_now(V1[:20])
            await service.until(lambda: service.host.awaited == 1)
            service.roster.check_idle(service.loop.time() + prelude.PATIENCE - 1)
            assert service.host.awaited == 1
            service.roster.check_idle(service.loop.time() + prelude.PATIENCE + 1)
            with contextlib.suppress(ConnectionResetError):
                assert await client.to_end() == b""
            assert service.metric("proxy_headers_total", result="late") == 1

    run(main())


def test_who_is_not_listed_talks_without_a_header_unless_one_is_required():
    async def main() -> None:
        elsewhere = CidrSet(("10.0.0.0/8",))
        async with inbound(proxy_protocol_from=elsewhere) as service:
            assert (await said(service, b"QUIT\r\n")).endswith(b"221 2.0.0 Bye\r\n")
        async with inbound(proxy_protocol_from=elsewhere, require_proxy_protocol=True) as service:
            assert await said(service, V1 + MAIL) == b""
            assert service.metric("proxy_headers_total", result="untrusted") == 1

    run(main())


def test_those_who_keep_their_header_back_count_against_the_listeners_limit_and_end_with_a_drain():
    async def main() -> None:
        async with inbound(proxy_protocol_from=LOOPBACK, max_connections=2) as service:
            silent = [service.call() for _ in range(2)]
            await service.until(lambda: service.host.awaited == 2)
            assert (await service.call().to_end()).startswith(b"421 4.3.2 gw.example too many concurrent sessions")
            service.roster.drain()
            for client in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert await client.to_end() == b""
            await service.until(lambda: service.host.awaited == 0)

    run(main())


# --- behind HAProxy ---------------------------------------------------------------------------------------------------

BEHIND = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1', '127.9.0.0/16' }, %s")
FRONT = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout check 5s
frontend smtp
  bind 127.0.0.1:{port}
  default_backend gateway
backend gateway
  {check}
  server one {gateway} {options} check inter 100ms
frontend status
  mode http
  bind 127.0.0.1:{status}
  http-request return status 200 content-type text/plain lf-string "up=%[nbsrv(gateway)]"
"""


class Front(HAProxy):
    """Told where the gateway is."""

    def __init__(
        self, folder: Path, gateway: Gateway, options: str, check: str = "option smtpchk EHLO haproxy.example"
    ):
        address, status = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        backend = "{}:{}".format(*gateway.address)
        text = FRONT.format(port=address[1], status=status[1], gateway=backend, options=options, check=check)
        super().__init__(folder, address, status, text)

    def servers_up(self) -> str:
        return self.page("/").rpartition("=")[2]


@pytest.fixture
def front(tmp_path):
    fronts: list[Front] = []

    def begin(gateway: Gateway, options: str, **more: str) -> Front:
        fronts.append(Front(tmp_path, gateway, options, **more))
        return fronts[-1]

    yield begin
    for each in fronts:
        each.stop()


@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
def test_behind_haproxy_clients_are_who_they_are_and_its_checks_find_the_gateway_up(start, front, options):
    program("haproxy")
    policy = BEHIND % "proxy_protocol_from = { '127.0.0.1' }" + TO_MAILDIR
    policy = policy.replace("min_free_space = 0", "min_free_space = 0, meta = { 'orig_received_from' }")
    gateway = start(policy, "--workers", "1")
    proxy = front(gateway, options)
    wait_until(lambda: proxy.servers_up() == "1", "up")
    message = MAIL.replace(b"QUIT", b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\nQUIT")
    assert b"250 2.0.0 OK ids=" in proxy.talk("127.9.0.5", message)
    assert b"\r\n550 5.7.1 relaying not permitted for 127.8.0.5:" in proxy.talk("127.8.0.5", MAIL)
    (mail,) = gateway.mails()
    assert b"Received: from c.example (127.9.0.5)" in mail
    wait_until(lambda: len(gateway.records()) == 3, "records")
    assert {record["peer_address"]["addr"] for record in gateway.records() if record["type"] != "Delivery"} == {
        "127.9.0.5", "127.8.0.5",
    }  # fmt: skip
    assert all(record["meta"]["orig_received_from"].startswith("127.0.0.1:") for record in gateway.records())
    assert gateway.metric('proxy_headers_total{result="client"}') >= 2
    assert "no PROXY header" not in gateway.diagnostics()


def test_what_the_header_tells_is_metadata():
    policy = """
    kumo.on('smtp_server_ehlo', function(domain, conn_meta)
      local told = {}
      for _, name in ipairs { 'received_from', 'received_via', 'orig_received_from', 'proxy_authority', 'proxy_alpn',
          'proxy_unique_id', 'proxy_ssl_cn' } do
        table.insert(told, tostring(conn_meta:get_meta(name)))
      end
      kumo.reject(550, '5.0.0 ' .. table.concat(told, ' '))
    end)
    """

    async def main() -> None:
        async with inbound(policy, proxy_protocol_from=LOOPBACK) as service:
            fields = tlv(1, b"smtp") + tlv(2, b"mx.example") + tlv(5, b"id") + SSL_VERIFIED
            replies = (await said(service, v2(fields=fields) + b"EHLO c.example\r\nQUIT\r\n")).decode()
            assert "\n550 5.0.0 192.0.2.7:40000 198.51.100.1:25 127.0.0.1:" in replies
            assert " mx.example smtp id mail.example\r\n" in replies

    run(main())


def test_haproxys_checks_without_a_header_find_a_plain_listener_up_and_a_proxy_listener_down(start, front):
    program("haproxy")
    gateway = start(INIT, "--workers", "1")
    plain = front(gateway, "")
    wait_until(lambda: plain.servers_up() == "1", "up")
    strict = start(BEHIND % "require_proxy_protocol = true", "--workers", "1")
    proxy = front(strict, "")
    wait_until(lambda: proxy.servers_up() == "0", "down")
