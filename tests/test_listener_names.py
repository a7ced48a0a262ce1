"""Every listener parameter of ours has an effect at the wire: each is asked the same with it and without it, at real
sockets, from the policy's text on; and a wrong value of each is an error with its name.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from gateway.arena import Arena, parts_for
from gateway.inbound.pace import WINDOW
from gateway.net.streams import Poller
from gateway.policy.schemas import _LIMITS, _LIMITS_PER_IDENTITY, LISTENER_BLOCK
from gateway.quotas import Quotas
from tests.inbound import Inbound, inbound, run
from tests.policy_tools import examine, load, source_of
from tests.test_tls_listener import Authority

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', hostname = 'gw.example', %s }
end)
kumo.on('get_listener_domain', function(domain)
  if domain == 'far.example' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_message_received', function(message) message:set_meta('queue', 'null') end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'right' end)
"""
EHLO, MAIL, RCPT, BAD_RCPT = "EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@far.example>", "RCPT TO:<c@d>"
MESSAGE = (MAIL, RCPT, "DATA", "hello\r\n.")
AUTH, WRONG_AUTH = "AUTH PLAIN AHUAcmlnaHQ=", "AUTH PLAIN AHUAd3Jvbmc="


class Hasty(Poller):
    """Whose loop lets no refusal wait."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)


class Talk:
    """One client's, reply by reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> str:
        """The last line of the next one; "" at the end of the connection."""
        while (line := await self.reader.readline())[3:4] == b"-":
            pass
        return line.decode().rstrip()

    async def say(self, *lines: str) -> str:
        """The reply to the last one."""
        answer = ""
        for line in lines:
            self.writer.write(line.encode() + b"\r\n")
            answer = await self.reply()
        return answer

    async def offers(self) -> set[str]:
        self.writer.write(EHLO.encode() + b"\r\n")
        found = set()
        while line := (await self.reader.readline()).decode():
            found |= set(line[4:].split())
            if line[3] == " ":
                break
        return found

    async def secure(self, context: ssl.SSLContext, name: str = "gw.example") -> Talk:
        await self.say(EHLO, "STARTTLS")
        await self.writer.start_tls(context, server_hostname=name)
        return self


class Asked:
    """What probes have: a listener, and what a client may need."""

    context: ClassVar[ssl.SSLContext]  # trusts everybody, and has a certificate

    def __init__(self, service: Inbound, stack: AsyncExitStack) -> None:
        self.service, self._stack = service, stack

    async def call(self, source: str = "127.0.0.1", **tls: object) -> Talk:
        """A client that is connected."""
        reader, writer = await asyncio.open_connection(
            *self.service.address,
            local_addr=(source, 0),
            **tls,  # type: ignore[arg-type]
        )
        self._stack.push_async_callback(_closed, writer)
        return Talk(reader, writer)

    async def greeted(self, source: str = "127.0.0.1") -> Talk:
        talk = await self.call(source)
        await talk.reply()
        return talk

    def look_on(self, seconds: float) -> None:
        """What a worker does once a second, so many seconds later."""
        self.service.roster.check_idle(self.service.loop.time() + seconds)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def greeting(asked: Asked) -> str:
    return await (await asked.call()).reply()


async def second_greeting(asked: Asked, *others: str) -> str:
    await asked.greeted()
    return await (await asked.call(*others)).reply()


async def from_next_door(asked: Asked) -> str:
    return await second_greeting(asked, "127.0.0.5")


async def after_another_from_v6(asked: Asked) -> str:
    answer = ""
    for peer in ("2001:db8:1:1::1", "2001:db8:1:2::1"):
        talk = await asked.call()
        talk.writer.write(f"PROXY TCP6 {peer} 2001:db8::2 9 25\r\n".encode())
        answer = await talk.reply()
    return answer


def saying(*lines: str) -> Callable[[Asked], Awaitable[str]]:
    async def probe(asked: Asked) -> str:
        return await (await asked.greeted()).say(*lines)

    return probe


def logged_in(*lines: str, source: str = "127.0.0.1", again: bool = False) -> Callable[[Asked], Awaitable[str]]:
    """The last reply; again: to another one, who has logged in as the same from elsewhere."""

    async def probe(asked: Asked) -> str:
        first = await (await asked.greeted(source)).secure(asked.context)
        answer = await first.say(EHLO, *lines)
        if again:
            second = await (await asked.greeted("127.0.0.7")).secure(asked.context)
            answer = await second.say(EHLO, *lines)
        return answer

    return probe


async def early(asked: Asked) -> str:
    talk = await asked.call()
    return await talk.say(EHLO)


async def beside_one_of_ours(asked: Asked) -> str:
    stranger = await asked.call("127.0.0.2")
    await asked.greeted()
    line = asyncio.ensure_future(stranger.reply())
    await asyncio.sleep(0)
    await asked.greeted()
    line.cancel()
    return "greeted" if line.done() and not line.cancelled() else "waits"


async def implicit(asked: Asked) -> str:
    try:
        talk = await asked.call(ssl=asked.context, server_hostname="gw.example")
    except ssl.SSLError:
        return "no TLS"
    return await talk.reply()


async def behind_a_header(asked: Asked) -> str:
    talk = await asked.call()
    talk.writer.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 9 25\r\n")
    await talk.reply()
    answer = await talk.say(EHLO)
    return await talk.say(MAIL, BAD_RCPT) if answer[:3] == "250" else answer


async def offered(asked: Asked) -> str:
    talk = await asked.greeted()
    return " ".join(sorted(await talk.offers() & {"XCLIENT", "CHUNKING"}))


async def name_shown(asked: Asked) -> str:
    talk = await (await asked.greeted()).secure(asked.context, "mail.example")
    return (b"mail.example" in talk.writer.get_extra_info("ssl_object").getpeercert(True)) * "by name"


def under_tls(*, certificate: bool, **versions: ssl.TLSVersion) -> Callable[[Asked], Awaitable[str]]:
    async def probe(asked: Asked) -> str:
        context = asked.context if certificate else _context(**versions)
        try:
            talk = await (await asked.greeted()).secure(context)
            return "EXTERNAL" if "EXTERNAL" in await talk.offers() else await talk.say("NOOP")
        except (ssl.SSLError, ConnectionError, IndexError):
            return "no TLS"

    return probe


async def cipher(asked: Asked) -> str:
    talk = await (await asked.greeted()).secure(_context(maximum_version=ssl.TLSVersion.TLSv1_2))
    return str(talk.writer.get_extra_info("cipher")[0])


def dawdling(seconds: float, *lines: str, octets: bytes = b"") -> Callable[[Asked], Awaitable[str]]:
    """What a client is told that says no more, so many seconds later."""

    async def probe(asked: Asked) -> str:
        talk = await asked.greeted()
        await talk.say(*lines)
        talk.writer.write(octets)
        other = await asked.greeted("127.0.0.9")
        await other.say("NOOP")  # so it has arrived
        asked.look_on(0)
        asked.look_on(seconds)
        told = asyncio.ensure_future(talk.reply())
        await other.say("NOOP", "NOOP")
        if told.done():
            return told.result()
        told.cancel()
        return "waits"

    return probe


def _context(**versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, version in versions.items():
        setattr(context, name, version)
    return context


class Name(NamedTuple):
    """One parameter. value: as a policy writes it. probe: what is asked. without, told: the answers' beginnings.
    wrong: a value that it cannot have. reason: of the refusal. also: what the listener says in both cases; beside: what
    the parameter's own table does.
    """

    value: str
    probe: Callable[[Asked], Awaitable[str]]
    without: str
    told: str
    wrong: str
    reason: str = ""
    also: str = "relay_hosts = {}"
    beside: str = ""


BANNER, OK, LATE = "220 gw.example", "250 2.", "421 4.4.2 gw.example "
FOREIGN, CLIENTS = "554 5.5.1", "550 5.7.1 relaying not permitted for 192.0.2.7:9"
OURS = "relay_hosts = { '127.0.0.0/8' }"  # of whom nothing is asked by default
NAMES: dict[str, Name] = {
    "tls_mode": Name("'ImplicitTls'", implicit, "no TLS", BANNER, "'Implicit'"),
    "require_proxy_protocol": Name("true", behind_a_header, FOREIGN, CLIENTS, "'yes'"),
    "proxy_protocol_from": Name("{ '127.0.0.1' }", behind_a_header, FOREIGN, CLIENTS, "{ '127.0.0.1/33' }"),
    "allow_xclient": Name("true", offered, "CHUNKING", "CHUNKING XCLIENT", "1"),
    "xclient_from": Name("{ '127.0.0.1' }", offered, "CHUNKING", "CHUNKING XCLIENT", "{ 'localhost' }"),
    "sni": Name("{ ['mail.example'] = { tls_certificate = 'DIR/mail.example.certificate.pem', "
                "tls_private_key = 'DIR/mail.example.key.pem' } }", name_shown, "", "by name",
                "{ ['mail.example'] = { tls_certificate = 'x' } }"),
    "tls_required_client_ca": Name("'DIR/ca.pem'", under_tls(certificate=False), OK, "no TLS", "1"),
    "tls_optional_client_ca": Name("'DIR/ca.pem'", under_tls(certificate=True), OK, "EXTERNAL", "1"),
    "tls_minimum_version": Name("'TLSv1_3'", under_tls(certificate=False, maximum_version=ssl.TLSVersion.TLSv1_2), OK,
                                "no TLS", "'TLSv1_1'"),
    "tls_ciphers": Name("'ECDHE-ECDSA-CHACHA20-POLY1305'", cipher, "ECDHE-ECDSA-AES", "ECDHE-ECDSA-CHA",
                        "'a\\nb'"),
    "early_talker": Name("'Reject'", early, BANNER, "554 5.5.0", "'Deny'", "early_talker"),
    "banner_delay": Name("'1h'", beside_one_of_ours, "greeted", "waits", "'soon'",
                         also="relay_hosts = { '127.0.0.1' }"),
    "first_command_timeout": Name("'5s'", dawdling(6), "waits", LATE + "no command came in time", "'5 parsecs'",
                                  "first_command_timeout"),
    "command_timeout": Name("'5s'", dawdling(6, EHLO, octets=b"NO"), "waits", LATE + "a command took", "true",
                            "command_timeout"),
    "data_timeout": Name("'5s'", dawdling(6, EHLO, *MESSAGE[:3], octets=b"x"), "waits", LATE + "the message took",
                         "'5x'", "data_timeout"),
    "minimum_data_rate": Name("'50/s'", dawdling(WINDOW + 1, EHLO, *MESSAGE[:3], octets=b"x" * 500), "waits",
                              LATE + "the message comes too slowly", "50", "data_too_slow", OURS),
    "disable_vrfy": Name("true", saying(EHLO, "VRFY a"), "252 2.1.5", "502 5.5.1", "'no'"),
    "withhold_extensions": Name("{ 'CHUNKING' }", offered, "CHUNKING", "", "{ 'XYZZY' }"),
}  # fmt: skip
LIMITS: dict[str, Name] = {
    "connections": Name("1", second_greeting, BANNER, "421 4.7.0", "-1", "peer_connections"),
    "connection_rate": Name("'1/1h'", second_greeting, BANNER, "421 4.7.0", "1", "connection_rate"),
    "message_rate": Name("'1/1h'", saying(EHLO, MAIL, "RSET", MAIL), OK, "451 4.7.0", "'1'", "message_rate"),
    "recipient_rate": Name("'1/1h'", saying(EHLO, MAIL, RCPT, RCPT), OK, "452 4.7.0", "'1/'", "recipient_rate"),
    "octet_rate": Name("'1/1h'", saying(EHLO, *MESSAGE, MAIL), OK, "451 4.7.0", "'/h'", "octet_rate"),
    "auth_failures": Name("'1/1h'", logged_in(WRONG_AUTH, WRONG_AUTH), "535 5.7.8", "421 4.7.0", "3", "auth_rate"),
    "errors": Name("1", saying(EHLO, "XYZZY", "XYZZY"), "500 5.5.1", "421 4.7.0", "'1'", "too_many_errors"),
    "invalid_recipients": Name("1", saying(EHLO, MAIL, BAD_RCPT, RCPT), OK, "421 4.7.0", "-1",
                              "too_many_invalid_recipients"),
    "idle_commands": Name("2", saying(EHLO, "NOOP", "NOOP"), OK, "421 4.7.0", "1.5", "too_many_idle_commands"),
    "ipv4_prefix": Name("24", from_next_door, BANNER, "421 4.7.0", "33", "peer_connections",
                        beside="connections = 1"),
    "ipv6_prefix": Name("48", after_another_from_v6, BANNER, "421 4.7.0", "129", "peer_connections",
                        "relay_hosts = {}, require_proxy_protocol = true", "connections = 1"),
    "trusted": Name("true", saying(EHLO, "XYZZY", "XYZZY"), "500 5.5.1", "421 4.7.0", "'a'", "too_many_errors",
                    OURS, "errors = 1"),
}  # fmt: skip
PER_IDENTITY: dict[str, Name] = {
    "connections": Name("1", logged_in(AUTH, again=True), "235 2.7.0", "421 4.7.0", "-1", "peer_connections"),
    "connection_rate": Name("'1/1h'", logged_in(AUTH, again=True), "235 2.7.0", "421 4.7.0", "''", "connection_rate",
                            OURS),
    "message_rate": Name("'1/1h'", logged_in(AUTH, MAIL, again=True), OK, "451 4.7.0", "5", "message_rate"),
    "recipient_rate": Name("'1/1h'", logged_in(AUTH, MAIL, RCPT, again=True), OK, "452 4.7.0", "5", "recipient_rate"),
    "octet_rate": Name("'1/1h'", logged_in(AUTH, *MESSAGE, MAIL), OK, "451 4.7.0", "5", "octet_rate"),
}  # fmt: skip
TABLES = {"limits": LIMITS, "limits_per_identity": PER_IDENTITY}
OF_REPORTS = {"feedback_senders", "report_excerpt"}  # tests/test_report_*.py
CASES = [("", name) for name in NAMES] + [(table, name) for table, names in TABLES.items() for name in names]
IDS = [f"{table}.{name}".strip(".") for table, name in CASES]


def case(table: str, name: str) -> Name:
    return TABLES[table][name] if table else NAMES[name]


def listener(table: str, entries: str, also: str = "") -> str:
    """The policy's text."""
    return POLICY % ", ".join(filter(None, (f"{table} = {{ {entries} }}" if table else entries, also)))


def test_every_name_is_here():
    ours = {name for name, option in LISTENER_BLOCK.options.items() if option.ours}
    assert ours - OF_REPORTS - set(TABLES) <= set(NAMES)
    assert set(_LIMITS.options) == set(LIMITS)
    assert set(_LIMITS_PER_IDENTITY.options) == set(PER_IDENTITY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("names")
    authority = Authority(made)
    authority.issue("mail.example")
    client = authority.issue("client.example")
    Asked.context = _context()
    Asked.context.load_cert_chain(client.certificate, client.key)
    return made


@asynccontextmanager
async def listening(policy: str) -> AsyncIterator[Asked]:
    arena = Arena(parts_for(1))
    declared = load(policy).config.listeners[0]
    try:
        async with AsyncExitStack() as stack:
            options = declared.overrides | {"quotas": Quotas(arena, 0), "peer": declared.peer, "poller": Hasty}
            service = await stack.enter_async_context(inbound(policy, **options))
            yield Asked(service, stack)
    finally:
        os.close(arena.fd)


@pytest.mark.parametrize(("table", "name"), CASES, ids=IDS)
def test_every_name_does_at_the_wire_what_it_says(folder: Path, table: str, name: str):
    each = case(table, name)

    async def main() -> None:
        for value, expected in ((None, each.without), (each.value.replace("DIR", str(folder)), each.told)):
            entries = ", ".join(filter(None, (each.beside, value and f"{name} = {value}")))
            async with listening(listener(table, entries, each.also)) as asked:
                answer = await each.probe(asked)
                assert answer.startswith(expected or "nothing") or answer == expected, (value, answer)
                if each.reason and value:
                    assert asked.service.metric("rejections_total", reason=each.reason) == 1

    run(main())


COMPUTED = """
kumo.on('smtp_server_get_dynamic_parameters', function() return { %s } end)
"""
OF_A_CONNECTION = [
    ("limits", "connections"),
    ("limits", "message_rate"),
    ("limits", "errors"),
    ("limits", "trusted"),
    ("limits_per_identity", "connections"),
]


@pytest.mark.parametrize(("table", "name"), OF_A_CONNECTION, ids=lambda part: part)
def test_limits_that_a_policy_computes_hold_instead_of_the_listeners(folder: Path, table: str, name: str):
    each = case(table, name)
    entries = ", ".join(filter(None, (each.beside, f"{name} = {each.value}")))
    policy = POLICY % f"{each.also}, limits = {{ connections = 50 }}" + COMPUTED % f"{table} = {{ {entries} }}"

    async def main() -> None:
        async with listening(policy) as asked:
            assert (await each.probe(asked)).startswith(each.told)
            assert asked.service.metric("rejections_total", reason=each.reason) == 1

    run(main())


def test_a_connection_counts_once_whose_limits_are_computed():
    limits = "limits = { connection_rate = '2/1h' }"

    async def main() -> None:
        async with listening(POLICY % f"relay_hosts = {{}}, {limits}" + COMPUTED % limits) as asked:
            greetings = [await (await asked.call()).reply() for _ in range(3)]
            assert [line[:3] for line in greetings] == ["220", "220", "421"]

    run(main())


def test_wrong_values_are_errors_with_their_names_names():
    said = {
        table: ", ".join(f"{name} = {each.wrong}" for name, each in names.items()) for table, names in TABLES.items()
    }
    tables = ", ".join(f"{table} = {{ {entries} }}" for table, entries in said.items())
    also = ", ".join(f"{name} = {each.wrong}" for name, each in NAMES.items())
    errors, _, _ = examine(source_of(listener("", tables, also)))
    told = "\n".join(error.text for error in errors)
    assert [name for name in IDS if f" {name}" not in told] == [], told
