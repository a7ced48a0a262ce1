"""REQUIRETLS (RFC 8689) at the wire: offered under TLS alone and for a fleet that keeps it, and kept on every way."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.net.tls import _self_signed
from gateway.smtp.requests import Requests, from_values
from tests.fleets import Fleets, gateway_before
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import EXTENSIONS, Answer, Do, Upstream, ehlo

NO = b"550 5.1.1 no such mailbox\r\n"
LATER = [b"451 4.3.0 later\r\n", b"250 2.0.0 now\r\n"]
KNOWS = ehlo(*EXTENSIONS, "STARTTLS", "DSN", "REQUIRETLS")
MEMBERS: dict[str, dict[str, Answer | list[Answer]]] = {
    "kept": {"EHLO": KNOWS, "STARTTLS": Do.START_TLS, "RCPT <no@kept.example>": NO},
    "waits": {"EHLO": KNOWS, "STARTTLS": Do.START_TLS, ".": LATER},
    "senders": {"EHLO": KNOWS, "STARTTLS": Do.START_TLS},
    "unverified": {"EHLO": KNOWS, "STARTTLS": Do.START_TLS},
    "without": {"EHLO": ehlo(*EXTENSIONS, "STARTTLS", "DSN"), "STARTTLS": Do.START_TLS},
    "clear": {"EHLO": ehlo(*EXTENSIONS, "REQUIRETLS")},
}
POLICY = (
    INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/8' }")
    + """
kumo.define_spool { name = 'data', path = LOGS .. '-spool', min_free_space = 0, min_free_inodes = 0 }
kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  if domain ~= 'more.example' then return end
  for _, keyword in ipairs { 'DSN', 'REQUIRETLS' } do table.insert(extensions, keyword) end
  return extensions
end)
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  if name == 'stored' then return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } } end
  local members = { FLEETS[name] }
  if name == 'mixed' then members = { FLEETS.clear, FLEETS.without, FLEETS.kept } end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = members } }, retry_interval = '1 second' }
end)
kumo.on('get_egress_path_config', function(domain, source, site)
  if site:find(FLEETS.unverified, 1, true) then return kumo.make_egress_path { enable_tls = 'RequiredInsecure' } end
  return kumo.make_egress_path { enable_tls = 'Opportunistic', tls_ca = 'CERTIFICATE', tls_name = 'member.example' }
end)
"""
)
SENDER = "ann@senders.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the members', with its key."""
    path = tmp_path_factory.mktemp("tls") / "member.pem"
    path.write_bytes(b"".join(_self_signed("member.example")))
    return path


@pytest.fixture(scope="module")
def fleets(certificate: Path) -> Iterator[Fleets]:
    running = Fleets()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name, answers in MEMBERS.items():
        running.add(name, answers).tls = context
    try:
        yield running
    finally:
        for member in MEMBERS:
            running._run(_abort(running.upstreams[member]))
        running.close()


async def _abort(member: Upstream) -> None:
    """Without a word of TLS: nobody is left who would answer."""
    member.drop_all(Do.RESET)
    await asyncio.sleep(0)


def client(gateway: Gateway, name: str = "client.example", *, tls: bool = True) -> smtplib.SMTP:
    opened = smtplib.SMTP(*gateway.address, name, 30)
    if tls:
        opened.starttls(context=ssl._create_unverified_context())  # it is our own
    opened.ehlo()
    return opened


def offers(gateway: Gateway, *, tls: bool) -> bool:
    with client(gateway, tls=tls) as asking:
        return asking.has_extn("requiretls")


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One that offers it of its own accord first, as long as it knows a member alone that keeps it."""
    policy = POLICY.replace("CERTIFICATE", str(certificate))
    with gateway_before(fleets, tmp_path_factory.mktemp("requiretls"), policy) as running:
        assert not offers(running, tls=True)
        assert send(running, "x@kept.example", "")[0] == 250
        wait_until(lambda: offers(running, tls=True), "offered")
        assert not offers(running, tls=False)
        assert send(running, "x@unverified.example", "")[0] == 250
        wait_until(lambda: not offers(running, tls=True), "withdrawn")
        yield running


def send(gateway: Gateway, to: str, mail: str = "REQUIRETLS", sender: str = SENDER) -> tuple[int, bytes]:
    """Returns what was said to the content, which others have as well."""
    with client(gateway, "more.example") as sending:
        assert sending.docmd(f"MAIL FROM:<{sender}> {mail}")[0] == 250
        for each in to.split():
            assert sending.docmd(f"RCPT TO:<{each}>")[0] == 250
        return sending.data(b"Subject: x\r\nTLS-Required: No\r\n\r\nx\r\n")


def test_in_clear_and_with_a_value_it_is_refused(gateway: Gateway):
    with client(gateway, "more.example", tls=False) as asking:
        assert not asking.has_extn("requiretls")  # whatever a policy says
        assert asking.docmd("MAIL FROM:<a@b.example> REQUIRETLS")[0] == 555
    with client(gateway, "more.example") as asking:
        assert asking.docmd("MAIL FROM:<a@b.example> REQUIRETLS=yes") == (501, b"5.5.4 Malformed parameter")


def test_it_is_passed_on_and_the_header_field_of_the_opposite_stays(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "a@kept.example", "RET=FULL REQUIRETLS", sender="on@senders.example")[0] == 250
    (mail,) = fleets.mail_commands("kept", "on@senders.example")
    assert mail.endswith(" RET=HDRS REQUIRETLS")  # RFC 8689 §5
    assert b"TLS-Required: No\r\n" in fleets.mails("kept")[-1].content


@pytest.mark.parametrize(("name", "status"), [("unverified", b"5.7.10"), ("without", b"5.7.30"), ("clear", b"5.7.10")])
def test_who_would_not_keep_it_does_not_get_the_message(fleets: Fleets, gateway: Gateway, name: str, status: bytes):
    code, text = send(gateway, f"a@{name}.example", sender=f"{name}@senders.example")
    assert (code, text[:7].strip()) == (550, status)  # RFC 8689 §4.2.1
    assert not fleets.mail_commands(name, f"{name}@senders.example")


def test_of_several_it_goes_to_the_one_that_keeps_it(fleets: Fleets, gateway: Gateway):
    for _ in range(3):
        assert send(gateway, "a@mixed.example", sender="mixed@senders.example")[0] == 250
    assert len(fleets.mail_commands("kept", "mixed@senders.example")) == 3


def test_what_is_stored_here_has_arrived(gateway: Gateway):
    assert send(gateway, "a@stored.example")[0] == 250


def test_it_is_kept_in_the_spool(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "w@waits.example", sender="kept@senders.example")[0] == 250
    wait_until(lambda: fleets.mails("waits"), "tried again")
    commands = fleets.mail_commands("waits", "kept@senders.example")
    assert [each.endswith(" REQUIRETLS") for each in commands] == [True, True]
    asked = Requests()
    asked.require_tls = True
    kept = from_values(asked.as_values())
    assert kept is not None and kept.require_tls


def test_what_the_sender_is_told_needs_it_too_and_returns_no_content(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "no@kept.example yes@kept.example", "RET=FULL REQUIRETLS")[0] == 250
    (mail,) = fleets.told("no@kept.example")
    assert b"text/rfc822-headers" in mail.content
    assert fleets.mail_commands("senders", "")[-1].endswith(" REQUIRETLS")


def test_a_notification_is_not_lost_for_it(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "a@without.example", sender="")[0] == 250
    assert "REQUIRETLS" not in fleets.mail_commands("without", "")[-1]
