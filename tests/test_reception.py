"""What the dialogues cannot bring about: our own faults, as a client meets them."""

from __future__ import annotations

from gateway.policy.engine import Policy
from tests.dialogue import MemoryClient, new_page, source_of

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
