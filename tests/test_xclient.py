"""XCLIENT: a proxy that speaks SMTP names its client; nothing of the proxy's remains, and nobody else may."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway._fastpath import CidrSet
from gateway.smtp import replies
from gateway.smtp.commands import Refused
from gateway.smtp.xclient import OFFER, XclientRequested, parse_xclient
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, wait_until
from tests.inbound import Inbound, inbound, run
from tests.programs import program
from tests.test_listener_names import POLICY, folder, listening

__all__ = ["folder"]
LOOPBACK = CidrSet(("127.0.0.0/8",))
EHLO, QUIT = b"EHLO proxy.example\r\n", b"QUIT\r\n"
RELAY = b"EHLO c.example\r\nMAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\n"


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        (b"ADDR=192.0.2.7", {"client": "192.0.2.7"}),
        (b"addr=IPV6:2001:DB8::1 Port=25", {"client": "2001:db8::1", "client_port": 25}),
        (b"ADDR=2001:db8::1", {"client": "2001:db8::1"}),
        (b"ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE]", {"client": "", "name": "", "client_port": None}),
        (b"NAME=mx.example HELO=h+2Ee PROTO=smtp", {"name": "mx.example", "helo": "h.e", "protocol": "SMTP"}),
        (b"LOGIN=j+C3+BCrgen+40x DESTADDR=198.51.100.1 DESTPORT=587",
         {"login": "jürgen@x", "server": "198.51.100.1", "server_port": 587}),
        (b"HELO=a+3Db", {"helo": "a=b"}),
    ],
)  # fmt: skip
def test_attributes_are_postfixs(argument, found):
    assert parse_xclient(argument) == XclientRequested(**found)


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"ADDR", b"ADDR=", b"ADDR=mx.example", b"ADDR=IPV6:192.0.2.7", b"ADDR=fe80::1%eth0", b"ADDR=192.0.2.07",
        b"ADDR=1.2.3.4 ADDR=1.2.3.4", b"PORT=65536", b"PORT=-1", b"PORT=x", b"PROTO=LMTP", b"COLOUR=red", b"NAME=a+2",
        b"NAME=a+2f", b"NAME=a+20b", b"HELO=a=b", b"HELO=a+0Ab", b"LOGIN=+FF", b"NAME=\xff",
        b"HELO=" + b"x" * 256, b"NAME=" + b"x" * 256,
    ],
)  # fmt: skip
def test_other_attributes_and_values_are_refused(argument):
    with pytest.raises(Refused) as refused:
        parse_xclient(argument)
    assert refused.value.reply is replies.XCLIENT_SYNTAX


async def said(service: Inbound, *lines: bytes) -> list[str]:
    """The replies' last lines to these commands, and the banner's, sent one after the other's answer."""
    client = await service.greeted()
    got = []
    for line in lines:
        client.send_now(line)
        commands = line.count(b"\r\n")
        await client.until(
            lambda data, commands=commands: sum(each[3:4] == b" " for each in data.split(b"\r\n")) >= commands
        )
        got += [each.decode() for each in bytes(client.received).split(b"\r\n") if each[3:4] == b" "]
        client.received.clear()
    client.sock.close()
    return got


def test_the_offer_is_for_those_who_may_and_the_others_are_refused():
    async def main() -> None:
        for options, may in [
            ({}, False),
            ({"allow_xclient": True}, True),
            ({"xclient_from": LOOPBACK}, True),
            ({"xclient_from": CidrSet(("10.0.0.0/8",))}, False),
            ({"allow_xclient": True, "xclient_from": CidrSet(("10.0.0.0/8",))}, False),
            ({"peer": {"127.0.0.1": {"allow_xclient": True}}}, True),
        ]:
            async with inbound(**options) as service:
                offer, answer = await said(service, EHLO, b"XCLIENT ADDR=192.0.2.7\r\n")
                assert (offer == f"250 {OFFER}") is may
                assert answer == ("220 gw.example relay-gateway" if may else "550 5.7.0 XCLIENT is not permitted")

    run(main())


def test_after_it_the_client_has_its_own_rights_and_parameters_and_not_the_proxys():
    async def main() -> None:
        peers = {
            "127.0.0.1": {"hostname": "proxys.example", "allow_xclient": True},
            "192.0.2.0/24": {"max_message_size": 10},
        }
        async with inbound(peer=peers) as service:
            replies_ = await said(
                service, EHLO, b"XCLIENT ADDR=192.0.2.7 PORT=4 LOGIN=me\r\n", RELAY, b"XCLIENT ADDR=127.0.0.1\r\n"
            )
            assert replies_[1] == "220 gw.example relay-gateway"
            assert replies_[4] == "550 5.7.1 relaying not permitted for 192.0.2.7:4"
            assert replies_[5].startswith("503 5.5.1 ")
            for unknown in (b"ADDR=[UNAVAILABLE]", b"ADDR=[TEMPUNAVAIL] PORT=[UNAVAILABLE]"):
                assert (await said(service, b"XCLIENT " + unknown + b"\r\n", RELAY))[-1].startswith(
                    "550 5.7.1 relaying"
                )
            assert (await said(service, b"XCLIENT ADDR=127.0.0.1\r\n", RELAY))[-1] == "250 2.1.5 Recipient OK"
            assert (await said(service, b"XCLIENT NAME=mx.example\r\n", RELAY))[-1] == "250 2.1.5 Recipient OK"

    run(main())


def test_a_client_whose_words_are_handed_through_cannot_introduce_itself():
    async def main() -> None:
        async with inbound(xclient_from=LOOPBACK) as service:
            got = await said(
                service,
                b"XCLIENT NAME=mx.example\r\n",
                b"XCLIENT ADDR=192.0.2.7\r\n",
                EHLO,
                b"XCLIENT ADDR=127.0.0.1\r\n",
                RELAY,
            )
            assert [line[:9] for line in got] == [
                "220 gw.ex", "220 gw.ex", "250 START", "550 5.7.0", "250 START", "250 2.1.0", "550 5.7.1",
            ]  # fmt: skip

    run(main())


def test_what_was_said_before_is_forgotten_and_the_policy_is_asked_about_the_client():
    policy = """
    kumo.on('smtp_server_connection_accepted', function(conn_meta)
      if conn_meta:get_meta('received_from') == '192.0.2.66:5' then kumo.reject(550, '5.7.1 no') end
    end)
    kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn_meta)
      return { banner = conn_meta:get_meta('received_from') .. ' ' .. listener }
    end)
    kumo.on('smtp_server_mail_from', function(sender, conn_meta)
      local told = {}
      for _, name in ipairs { 'received_from', 'received_via', 'orig_received_from', 'xclient_name',
          'ehlo_domain', 'authz_id', 'reception_protocol', 'of_the_proxy' } do
        table.insert(told, tostring(conn_meta:get_meta(name)))
      end
      kumo.reject(550, '5.0.0 ' .. table.concat(told, ' '))
    end)
    """

    async def main() -> None:
        peers = {"127.0.0.1": {"meta": {"of_the_proxy": "yes"}}}
        async with inbound(policy, allow_xclient=True, peer=peers) as service:
            full = b"XCLIENT ADDR=192.0.2.7 PORT=5 DESTADDR=198.51.100.1 DESTPORT=587 NAME=mx.example HELO=h "
            full += b"LOGIN=me PROTO=SMTP\r\n"
            got = await said(
                service, EHLO, full, b"MAIL FROM:<a@out.example>\r\n", b"EHLO c.example\r\nMAIL FROM:<>\r\n"
            )
            assert got[1] == "220 gw.example 192.0.2.7:5 198.51.100.1:587"
            assert got[2].startswith("503 5.5.1 Send EHLO")
            told = got[-1].split(" ")
            assert told[2:4] == ["192.0.2.7:5", "198.51.100.1:587"] and told[4].startswith("127.0.0.1:")
            assert told[5:] == ["mx.example", "c.example", "me", "SMTP", "nil"]
            assert (await said(service, b"XCLIENT ADDR=192.0.2.66 PORT=5\r\n"))[-1] == "550 5.7.1 no"
            assert service.metric("connections_refused_total") == 0

    run(main())


def test_within_a_transaction_it_is_out_of_order():
    async def main() -> None:
        async with inbound(allow_xclient=True) as service:
            got = await said(
                service, RELAY, b"XCLIENT ADDR=192.0.2.7\r\n", b"XCLIENT X=1\r\n", b"RSET\r\n", b"XCLIENT X=1\r\n"
            )
            assert [line[:9] for line in got[-4:]] == ["503 5.5.1", "503 5.5.1", "250 2.0.0", "501 5.5.4"]

    run(main())


def test_swaks_introduces_a_client(start):
    program("swaks")
    gateway = start(
        INIT.replace("relay_hosts = {}", "relay_hosts = { '192.0.2.7' }, allow_xclient = true") + TO_MAILDIR
    )
    sent = subprocess.run(
        [program("swaks"), "--server", "{}:{}".format(*gateway.address), "--helo", "c.example",
         "--from", "a@out.example", "--to", "b@far.example",
         "--xclient-addr", "192.0.2.7", "--xclient-name", "mx.example"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stdout
    (mail,) = gateway.mails()
    assert b"(192.0.2.7)" in mail
    wait_until(lambda: len(gateway.records()) == 2, "records")
    assert next(r for r in gateway.records() if r["type"] == "Reception")["peer_address"]["addr"] == "192.0.2.7"


def test_a_proxys_certificate_is_not_its_clients(folder: Path):
    options = f"relay_hosts = {{}}, allow_xclient = true, tls_optional_client_ca = '{folder}/ca.pem'"

    async def main() -> None:
        async with listening(POLICY % options) as asked:
            talk = await (await asked.greeted()).secure(asked.context)
            assert "EXTERNAL" in await talk.offers()
            await talk.say("XCLIENT ADDR=192.0.2.7")
            assert "EXTERNAL" not in await talk.offers()
            assert (await talk.say("AUTH EXTERNAL =")).startswith("504 5.5.4 ")

    run(main())


def test_who_a_proxy_says_has_logged_in_is_counted_as_that():
    options = "relay_hosts = {}, allow_xclient = true, limits_per_identity = { connections = 1 }"

    async def main() -> None:
        async with listening(POLICY % options) as asked:
            said = [
                await (await asked.greeted()).say(f"XCLIENT ADDR={address} LOGIN=me")
                for address in ("[UNAVAILABLE]", "192.0.2.7")
            ]
            assert [line[:9] for line in said] == ["220 gw.ex", "421 4.7.0"]

    run(main())
