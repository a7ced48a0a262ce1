"""What the dialogues cannot bring about: our own faults, as a client meets them."""

from __future__ import annotations

import pytest

from gateway.policy.api import Handler
from gateway.policy.engine import Policy
from gateway.policy.handlers import Handlers
from tests.dialogue import MemoryClient, metrics_of, new_page, source_of

POLICY = (
    "local kumo = require 'kumo' kumo.on('init', function() kumo.start_esmtp_listener { hostname = 'gw.example' } end)"
)


def test_a_fault_of_ours_ends_the_session_with_421_and_a_traceback(monkeypatch, caplog):
    def fail(*args: object, **kwargs: object) -> bytes:
        raise LookupError("secret detail")

    page = new_page()
    client = MemoryClient(Policy.load(source_of(POLICY), page=page), "127.0.0.1", lambda data: [data], page)
    assert str(client.read_line()).startswith("220 ")
    monkeypatch.setattr("gateway.smtp.address.idna.encode", fail)
    client.send("EHLO sonst-nirgends-ä.example\r\nNOOP\r\n".encode())
    assert client.read_line() == "421 4.3.0 gw.example technical difficulties"
    assert client.read_line() is None
    assert "secret detail" in caplog.text


EVERYTHING = """
local kumo = require 'kumo'
kumo.on('init', function() kumo.start_esmtp_listener { hostname = 'gw.example', relay_hosts = { '127.0.0.1' } } end)
for _, event in ipairs { 'connection_accepted', 'ehlo', 'auth_plain', 'mail_from', 'rcpt_to', 'message_received' } do
  kumo.on('smtp_server_' .. event, function() end)
end
"""
BEFORE = [b"EHLO x\r\n", b"STARTTLS\r\n"]
SECURED = [
    *(b"EHLO x\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@far.example>\r\n"),
    *(b"DATA\r\n", b"\r\n.\r\n"),
]


@pytest.mark.parametrize(
    ("stage", "event"),
    [
        ("connect", "smtp_server_connection_accepted"),
        ("command", "smtp_server_ehlo"),
        ("auth", "smtp_server_auth_plain"),
        ("mail", "smtp_server_mail_from"),
        ("rcpt", "smtp_server_rcpt_to"),
        ("data", "smtp_server_message_received"),
    ],
)
def test_a_fault_of_ours_is_counted_at_the_stage_where_it_struck(stage, event, monkeypatch, caplog):
    handlers_of = Handlers.of

    def fail(handlers: Handlers, asked: str) -> list[Handler]:
        if asked == event:
            raise LookupError("secret detail")
        return handlers_of(handlers, asked)

    monkeypatch.setattr(Handlers, "of", fail)
    page = new_page()
    client = MemoryClient(Policy.load(source_of(EVERYTHING), page=page), "127.0.0.1", lambda data: [data], page)
    for line in BEFORE:
        client.send(line)
    if stage not in ("connect", "command"):
        client.start_tls()
        for line in SECURED:
            client.send(line)
    ours = ((dict(labels), value) for (name, labels), value in metrics_of(page).items() if _is_ours(name, labels))
    counted = {(labels["stage"], value) for labels, value in ours}
    assert (stage, 1.0) in counted
    assert "secret detail" in caplog.text


def _is_ours(name: str, labels: frozenset[tuple[str, str]]) -> bool:
    return name == "relay_gateway_rejections_total" and ("reason", "internal_error") in labels
