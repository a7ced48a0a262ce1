"""What members are shown and told, over real sockets: client certificates, AUTH PLAIN, and who the client was."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from couriers_in_loop import DELIVERED, UNREACHABLE, Gateway, batch, only
from upstream import EXTENSIONS, Answer, Connection, Do, Upstream, ehlo

from gateway import metrics
from gateway.config import ClientAddress, EgressPath, KeySource, UpstreamTls
from gateway.couriers.fleet import securing
from gateway.handover import Batch
from gateway.logs.records import Origin
from gateway.net.proxy_protocol import HeaderReader
from gateway.net.tls import ClientTls, _self_signed, client_context
from gateway.policy.source import PolicySource
from gateway.smtp.introduction import introduction
from tests.policy_tools import examine

PASSWORD = "hush hush, plus+plus"
CREDENTIALS = base64.b64encode(f"\0gw\0{PASSWORD}".encode()).decode()
STARTTLS = {"EHLO": ehlo(*EXTENSIONS, "STARTTLS", "AUTH LOGIN PLAIN"), "STARTTLS": Do.START_TLS}
OK: dict[str, Answer | list[Answer]] = {"AUTH": b"235 2.7.0 yes\r\n"}
AUTH = EgressPath(smtp_auth_plain_username="gw", smtp_auth_plain_password=KeySource(key_data=PASSWORD))
IN_CLEAR = replace(AUTH, enable_tls=UpstreamTls.DISABLED, allow_smtp_auth_plain_without_tls=True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Self-signed certificates with their keys, by the name in them."""
    folder = tmp_path_factory.mktemp("pairs")
    made = {}
    for name in ("member.example", "gateway.example"):
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, pem in zip(paths, _self_signed(name), strict=True):
            path.write_bytes(pem)
        made[name] = paths
    return made


@pytest.fixture
def server(pairs: dict[str, tuple[Path, Path]]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pairs["member.example"])
    return context


@pytest.fixture
def secured(pairs: dict[str, tuple[Path, Path]]) -> EgressPath:
    """A path that trusts the member under the name in its certificate."""
    ca = KeySource(path=str(pairs["member.example"][0]))
    return EgressPath(enable_tls=UpstreamTls.REQUIRED, tls_ca=ca, tls_name="member.example")


def from_client(address: str, helo: str = "client.example") -> Batch:
    made = batch()
    origin = Origin(helo, address, "session")
    return Batch(made.message_id, made.sender, made.recipients, made.content, client=origin)


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_a_member_is_verified_by_the_paths_own_ca_and_name(run, server, secured: EgressPath) -> None:
    async def main() -> None:
        names: list[str | None] = []
        server.sni_callback = lambda _socket, name, _context: names.append(name)
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), secured)) == DELIVERED
            assert names == ["member.example"]
            assert only(await gateway.hand_over(batch(), replace(secured, tls_name="other.example"))) == UNREACHABLE
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), replace(secured, tls_ca=None))) == UNREACHABLE

    run(main())


def test_a_member_that_asks_for_a_certificate_is_shown_ours(run, server, secured: EgressPath, pairs) -> None:
    certificate, key = pairs["gateway.example"]
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate)
    server.maximum_version = ssl.TLSVersion.TLSv1_2  # which says at once whether it is content
    shown = replace(secured, tls_certificate=KeySource(path=str(certificate)), tls_private_key=KeySource(path=str(key)))

    async def main() -> None:
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), secured)) == UNREACHABLE
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), shown)) == DELIVERED
            given = next(iter(member.open)).transport.get_extra_info("ssl_object").getpeercert()
            assert given["subject"] == ((("commonName", "gateway.example"),),)

    run(main())


def test_ciphers_are_those_of_the_path(run, server, secured: EgressPath) -> None:
    server.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            path = replace(secured, openssl_cipher_list="ECDHE-ECDSA-CHACHA20-POLY1305")
            handed = await gateway.hand_over(batch(), path)
            assert (only(handed), handed.tls_cipher) == (DELIVERED, "ECDHE-ECDSA-CHACHA20-POLY1305")

    run(main())


@pytest.mark.parametrize("broken", [{"tls_ca": KeySource(path="/nowhere")}, {"openssl_cipher_list": "NONE-OF-THEM"}])
def test_what_cannot_be_used_is_a_members_failure_and_logged(run, server, secured, broken, caplog) -> None:
    async def main() -> None:
        async with Upstream(STARTTLS, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), replace(secured, **broken))) == UNREACHABLE
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("tls")) >= 1

    run(main())
    assert (
        "/nowhere: No such file" in caplog.text
        or "NONE-OF-THEM: no cipher that OpenSSL knows is in openssl_cipher_list" in caplog.text
    )


# --- AUTH -------------------------------------------------------------------------------------------------------------


def test_a_password_is_told_under_verified_tls_once_a_connection(run, server, secured, tmp_path: Path, caplog) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    path = replace(secured, smtp_auth_plain_username="gw", smtp_auth_plain_password=KeySource(path=str(file)))

    async def main() -> None:
        async with Upstream({**STARTTLS, **OK}, tls=server) as member, Gateway(member) as gateway:
            for _ in range(2):
                assert only(await gateway.hand_over(batch(), path)) == DELIVERED
            verbs = [command.split()[0] for command in member.commands]
            assert verbs[:5] == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"]
            assert member.commands[3] == f"AUTH PLAIN {CREDENTIALS}"
            assert verbs.count("AUTH") == 1

    run(main())
    assert "hush" not in caplog.text + repr(path)


@pytest.mark.parametrize(
    ("path", "offer", "answer", "said"),
    [
        (IN_CLEAR, "AUTH PLAIN", f"535 5.7.8 no: {PASSWORD} {CREDENTIALS}\r\n".encode(), "AUTH PLAIN: '535 5.7.8 no:"),
        (IN_CLEAR, "AUTH PLAIN", b"334 go on\r\n", "AUTH PLAIN: '334 go on'"),
        (IN_CLEAR, "AUTH LOGIN CRAM-MD5", b"", "AUTH PLAIN is not offered"),
        (replace(IN_CLEAR, allow_smtp_auth_plain_without_tls=False), "AUTH PLAIN", b"", "there is no TLS"),
        (replace(IN_CLEAR, smtp_auth_plain_password=KeySource(path="/nowhere")), "AUTH PLAIN", b"", "cannot be read"),
    ],
)
def test_a_member_without_it_gets_neither_mail_nor_password(run, caplog, path, offer, answer, said) -> None:
    async def main() -> None:
        answers: dict[str, Answer | list[Answer]] = {"EHLO": ehlo(*EXTENSIONS, offer), "AUTH": answer}
        async with Upstream(answers) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), path)) == UNREACHABLE
            assert not any(command.startswith("MAIL") for command in member.commands)
            assert any(command.startswith("AUTH") for command in member.commands) == bool(answer)
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("auth")) >= 1

    run(main())
    assert said in caplog.text
    assert "hush" not in caplog.text
    assert CREDENTIALS not in caplog.text


def test_a_certificate_that_nobody_looks_at_gets_no_password_unless_allowed(run, server) -> None:
    path = replace(AUTH, enable_tls=UpstreamTls.REQUIRED_INSECURE)
    allowed = replace(path, allow_smtp_auth_plain_without_valid_certificate=True)

    async def main() -> None:
        async with Upstream({**STARTTLS, **OK}, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), path)) == UNREACHABLE
            assert not any(command.startswith("AUTH") for command in member.commands)
        async with Upstream({**STARTTLS, **OK}, tls=server) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), allowed)) == DELIVERED

    run(main())


# --- who the client was -----------------------------------------------------------------------------------------------

XCLIENT = EgressPath(client_address=ClientAddress.XCLIENT, enable_tls=UpstreamTls.DISABLED)
XFORWARD = replace(XCLIENT, client_address=ClientAddress.XFORWARD)
PROXY = replace(XCLIENT, client_address=ClientAddress.PROXY)
TAKES_XCLIENT: dict[str, Answer | list[Answer]] = {
    "EHLO": ehlo(*EXTENSIONS, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"),
    "XCLIENT": b"220 fake.example ESMTP\r\n",
}
FIRST = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PROTO=ESMTP HELO=client.example"
TAKES_XFORWARD: dict[str, Answer | list[Answer]] = {
    "EHLO": ehlo(*EXTENSIONS, "XFORWARD NAME ADDR PROTO HELO SOURCE"),
    "XFORWARD": b"250 2.0.0 ok\r\n",
}


def verbs(member: Upstream) -> list[str]:
    return [command.split()[0] for command in member.commands]


def test_xclient_is_said_when_the_client_is_another_and_all_begins_anew(run) -> None:
    async def main() -> None:
        async with Upstream({**TAKES_XCLIENT}) as member, Gateway(member) as gateway:
            for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1"):
                assert only(await gateway.hand_over(from_client(address), XCLIENT)) == DELIVERED
            one, two = ["EHLO", "XCLIENT", "EHLO", "MAIL"], ["XCLIENT", "EHLO", "MAIL"]
            rest = ["RCPT", "DATA", "."]
            assert verbs(member) == [*one, *rest, "MAIL", *rest, *two, *rest]
            said = [command for command in member.commands if command.startswith("XCLIENT")]
            assert said == [FIRST, FIRST.replace("192.0.2.1", "IPV6:2001:db8::1")]
            # the gateway's own message does not pass for a client's
            assert only(await gateway.hand_over(batch(), XCLIENT)) == DELIVERED
            assert [dialogue.commands[1].split()[0] for dialogue in member.dialogues] == ["XCLIENT", "MAIL"]

    run(main())


def test_after_xclient_auth_is_said_again(run) -> None:
    async def main() -> None:
        offered = ehlo(*EXTENSIONS, "AUTH PLAIN", "XCLIENT ADDR")
        async with Upstream({**TAKES_XCLIENT, **OK, "EHLO": offered}) as member, Gateway(member) as gateway:
            path = replace(IN_CLEAR, client_address=ClientAddress.XCLIENT)
            assert only(await gateway.hand_over(from_client("192.0.2.1"), path)) == DELIVERED
            assert verbs(member)[:6] == ["EHLO", "AUTH", "XCLIENT", "EHLO", "AUTH", "MAIL"]
            assert member.commands[2] == "XCLIENT ADDR=192.0.2.1"

    run(main())


def test_xforward_is_said_before_every_message(run) -> None:
    async def main() -> None:
        async with Upstream({**TAKES_XFORWARD}) as member, Gateway(member) as gateway:
            for handed in (from_client("192.0.2.1", "ä b=c"), batch()):
                assert only(await gateway.hand_over(handed, XFORWARD)) == DELIVERED
            assert [command for command in member.commands if command.startswith("XFORWARD")] == [
                "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PROTO=ESMTP HELO=+C3+A4+20b+3Dc SOURCE=REMOTE",
                "XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE] SOURCE=LOCAL",
            ]
            assert len(member.dialogues) == 1

    run(main())


@pytest.mark.parametrize("path", [XCLIENT, XFORWARD])
@pytest.mark.parametrize("answer", [None, b"550 5.7.1 not you\r\n", b"451 4.3.0 later\r\n", b"501 5.5.4 what\r\n"])
def test_a_member_that_does_not_take_it_gets_the_message_all_the_same_and_is_told_of_once(
    run, path, answer, caplog
) -> None:
    verb = path.client_address.value.upper()
    takes = {**TAKES_XCLIENT, **TAKES_XFORWARD, "EHLO": ehlo(*EXTENSIONS, f"{verb} ADDR"), verb: answer}
    answers: dict[str, Answer | list[Answer]] = {} if answer is None else takes

    async def main() -> None:
        async with Upstream(answers) as member, Gateway(member) as gateway:
            for _ in range(3):
                assert only(await gateway.hand_over(from_client("192.0.2.1"), path)) == DELIVERED
            assert (verb in verbs(member)) == (answer is not None)
            assert len(member.mails) == 3

    run(main())
    assert caplog.text.count("is not told whose messages it gets") == 1


@pytest.mark.parametrize("path", [XCLIENT, XFORWARD])
@pytest.mark.parametrize("answer", [b"421 4.3.2 not now\r\n", Do.DROP, b"garbage\r\n"])
def test_a_member_that_fails_there_has_not_got_the_message_and_another_takes_it(run, path, answer) -> None:
    verb = path.client_address.value.upper()

    async def main() -> None:
        takes = {**TAKES_XCLIENT, **TAKES_XFORWARD, "EHLO": ehlo(*EXTENSIONS, f"{verb} ADDR")}
        async with (
            Upstream({**takes, verb: answer}) as faulty,
            Upstream(takes) as sound,
            Gateway(faulty, sound) as gateway,
        ):
            for _ in range(4):
                assert only(await gateway.hand_over(from_client("192.0.2.1"), path)) == DELIVERED
            assert (len(faulty.mails), len(sound.mails)) == (0, 4)

    run(main())


class ProxyUpstream(Upstream):
    """A member that takes a PROXY header first. clients: what each connection said of its client."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[tuple[str, int] | None] = []

    async def __aenter__(self) -> Upstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ProxiedConnection(self), self.host, self.port)
        return self


class ProxiedConnection(Connection):
    def __init__(self, upstream: ProxyUpstream) -> None:
        super().__init__(upstream)
        self._members = upstream
        self._reader: HeaderReader | None = HeaderReader()

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            header = self._reader.feed(data)
            if header is None:
                return
            self._reader = None
            self._members.clients.append(header.client)
            data = header.rest
        super().data_received(data)


def test_a_connection_with_a_proxy_header_is_one_clients(run) -> None:
    async def main() -> None:
        async with ProxyUpstream() as member, Gateway(member) as gateway:
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
                assert only(await gateway.hand_over(from_client(address), PROXY)) == DELIVERED
            assert only(await gateway.hand_over(batch(), PROXY)) == DELIVERED
            assert member.clients == [("192.0.2.1", 0), ("192.0.2.2", 0), None]
            one = replace(PROXY, connection_limit=1)
            for number in range(1, 4):  # whoever is there makes room
                assert only(await gateway.hand_over(from_client(f"2001:db8::{number}"), one)) == DELIVERED
            assert member.clients[3:] == [(f"2001:db8::{number}", 0) for number in range(1, 4)]

    run(main())


def test_an_introduction_has_what_the_member_wants_to_know_alone() -> None:
    client = Origin("", "", "x", protocol="SMTP")
    offered = {"XFORWARD": "ADDR IDENT", "XCLIENT": "NAME"}
    assert introduction(ClientAddress.XFORWARD, client, offered) == "XFORWARD ADDR=[UNAVAILABLE]\r\n"
    assert introduction(ClientAddress.XCLIENT, client, offered) == ""


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tls_ca = '/nowhere'", "/nowhere: No such file or directory"),
        ("tls_certificate = '/nowhere', tls_private_key = '/x'", "/nowhere: No such file or directory"),
        ("openssl_cipher_list = 'NONE'", "NONE: no cipher "),
        ("tls_certificate = '/nowhere'", "tls_certificate: 'tls_private_key' is missing, which belongs to it"),
        ("smtp_auth_plain_password = { key_data = 'x' }", "'smtp_auth_plain_username' is missing"),
    ],
)
def test_check_looks_at_what_is_written_out_and_names_its_line(path: str, said: str) -> None:
    fleet = f"require('gateway').fleet {{\nmembers = {{ 'a',\n{{ host = 'b',\npath = {{ {path} }} }} }},\n}}\n"
    text = f"{fleet}kumo.on('get_egress_path_config', function()\nreturn kumo.make_egress_path {{\n{path} }} end)\n"
    errors, _, _ = examine(PolicySource("policy.lua", {"policy.lua": text.encode()}))
    found = [(error.line, error.text) for error in errors if said in error.text]
    assert [line for line, _ in found] == [4, 8], errors
    assert [text.partition(":")[0] for _, text in found] == ["gateway.fleet", "kumo.make_egress_path"]


def test_every_python_looks_at_a_members_certificate_alike() -> None:
    assert not client_context(ClientTls()).verify_flags & ssl.VERIFY_X509_STRICT


def test_files_are_read_once() -> None:
    path = replace(AUTH, tls_name="x")
    assert securing.tls_context(path) is securing.tls_context(replace(path, smtp_port=26))
