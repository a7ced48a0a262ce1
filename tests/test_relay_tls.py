"""STARTTLS towards the fleet, over real sockets: when it is used, what is checked, and no way back to clear."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from couriers_in_loop import DELIVERED, UNREACHABLE, Gateway, batch, only
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from upstream import EXTENSIONS, Do, Upstream, ehlo

from gateway import metrics
from gateway.config import EgressPath, UpstreamTls
from gateway.couriers.fleet import securing
from gateway.handover import Status

Main = Coroutine[Any, Any, None]
OFFERED = {"EHLO": ehlo(*EXTENSIONS, "STARTTLS"), "STARTTLS": Do.START_TLS}
INSECURE = (UpstreamTls.OPPORTUNISTIC_INSECURE, UpstreamTls.REQUIRED_INSECURE)
VALIDATING = (UpstreamTls.OPPORTUNISTIC, UpstreamTls.REQUIRED)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The certificate is one that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    securing.context_of.cache_clear()
    yield
    securing.context_of.cache_clear()


@pytest.mark.parametrize("mode", INSECURE)
def test_the_insecure_modes_encrypt_without_looking_at_the_certificate(run, server_context, mode: UpstreamTls) -> None:
    async def main() -> None:
        async with Upstream(OFFERED, tls=server_context) as member, Gateway(member) as gateway:
            for _ in range(2):
                hand_over = await gateway.hand_over(batch(), EgressPath(enable_tls=mode))
                assert only(hand_over) == DELIVERED
            assert hand_over.tls_protocol_version == "TLSv1.3"
            assert hand_over.tls_cipher
            assert member.commands[:4] == ["EHLO gw.example", "STARTTLS", "EHLO gw.example", member.commands[3]]
            assert member.commands[3].startswith("MAIL")
            assert len(member.dialogues) == 1

    run(main())


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("mode", VALIDATING)
def test_a_valid_certificate_is_accepted(run, server_context, mode: UpstreamTls) -> None:
    async def main() -> None:
        async with Upstream(OFFERED, tls=server_context) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(), EgressPath(enable_tls=mode))
            assert only(hand_over) == DELIVERED
            assert hand_over.tls_protocol_version == "TLSv1.3"

    run(main())


@pytest.mark.parametrize("mode", VALIDATING)
def test_a_certificate_that_nobody_vouches_for_ends_the_connection_without_a_way_back(
    run, server_context, mode: UpstreamTls
) -> None:
    async def main() -> None:
        async with Upstream(OFFERED, tls=server_context) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), EgressPath(enable_tls=mode))) == UNREACHABLE
            assert member.commands == ["EHLO gw.example", "STARTTLS"]
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("tls")) == 1

    run(main())


@pytest.mark.parametrize(
    "answer", [b"454 4.7.0 not now\r\n", b"220 go\r\n250 injected\r\n", Do.DROP, Do.RESET], ids=str
)
def test_a_failed_starttls_is_a_members_failure_and_another_one_takes_over(run, server_context, answer) -> None:
    async def main() -> None:
        path = EgressPath(enable_tls=UpstreamTls.OPPORTUNISTIC_INSECURE)
        broken = Upstream({**OFFERED, "STARTTLS": answer})
        async with broken, Upstream(OFFERED, tls=server_context) as sound, Gateway(sound, broken) as gateway:
            hand_over = await gateway.hand_over(batch(), path)
            assert only(hand_over) == DELIVERED
            assert hand_over.tls_cipher
            assert broken.commands == ["EHLO gw.example", "STARTTLS"]

    run(main())


@pytest.mark.parametrize("handshake", [b"220 go\r\n", b"220 go\r\n\0"], ids=["silent", "early byte"])
def test_a_handshake_that_does_not_happen_ends_in_time(run, handshake: bytes) -> None:
    async def main() -> None:
        path = EgressPath(enable_tls=UpstreamTls.REQUIRED_INSECURE, starttls_timeout=0.05)
        async with Upstream({**OFFERED, "STARTTLS": handshake}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), path)) == UNREACHABLE

    run(main())


def test_a_member_that_leaves_in_the_handshake_has_failed(run) -> None:
    async def main() -> None:
        path = EgressPath(enable_tls=UpstreamTls.REQUIRED_INSECURE)
        async with Upstream({**OFFERED, "STARTTLS": b"220 go\r\n"}) as member, Gateway(member) as gateway:
            result = gateway.start(batch(), path)
            await member.until(lambda member: bool(member.dialogues) and b"\x16\x03" in member.dialogues[0].received)
            member.drop_all()
            assert only(await result) == UNREACHABLE

    run(main())


@pytest.mark.parametrize("mode", list(UpstreamTls))
def test_without_an_offer_clear_text_will_do_unless_tls_is_required(run, mode: UpstreamTls) -> None:
    async def main() -> None:
        required = mode in (UpstreamTls.REQUIRED, UpstreamTls.REQUIRED_INSECURE)
        async with Upstream() as member, Gateway(member) as gateway:
            status, _, _ = only(await gateway.hand_over(batch(), EgressPath(enable_tls=mode)))
            assert status is (Status.TRANSIENT if required else Status.DELIVERED)

    run(main())


def test_a_large_content_under_tls_arrives_whole(run, server_context) -> None:
    async def main() -> None:
        content = (b"x" * 998 + b"\r\n") * 3000
        path = EgressPath(enable_tls=UpstreamTls.REQUIRED_INSECURE)
        async with Upstream(OFFERED, tls=server_context) as member, Gateway(member) as gateway:
            for _ in range(2):
                assert only(await gateway.hand_over(batch(content=content), path)) == DELIVERED
            assert [mail.content == content for mail in member.mails] == [True, True]

    run(main())
