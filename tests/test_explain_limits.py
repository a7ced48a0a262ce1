"""`relay-gateway explain` names the limits that a client is held to; with --live it sees them as they are now, and
uses none of them up.
"""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from tests.gateway_process import PATIENCE, TO_MAILDIR, Gateway

POLICY = (
    """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.9.0.0/16' },
    limits = {
      connections = 2,
      message_rate = '2/1h',
    },
    limits_per_identity = { recipient_rate = '10/1h,max_burst=5' },
    peer = { ['127.10.0.0/16'] = { relay_hosts = { '127.10.0.0/16' }, limits = { trusted = true, errors = 0 } } },
  }
  kumo.start_http_listener { listen = HTTP }
end)
kumo.on('smtp_server_auth_plain', function() return true end)
kumo.on('smtp_server_rcpt_to', function(recipient)
  if recipient.user == 'once' and kumo.make_throttle('once', '1/1h'):throttle().throttled then
    kumo.reject(451, '4.7.9 not again')
  end
end)
kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_to = true } end)
"""
    + TO_MAILDIR
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("limited"), POLICY, "--workers", "2")
    yield gateway
    gateway.kill()


def explained(gateway: Gateway, capsys: Any, *more: str, live: bool = False, to: str = "b@in.example") -> Any:
    where = ["--policy", str(gateway.policy_file)]
    if live:
        where = ["--admin", f"http://{gateway.announced()['http'][0]}"]
    assert cli.main(["explain", *where, "--from", "a@x.example", "--to", to, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def client_at(gateway: Gateway, peer: str, *commands: str) -> smtplib.SMTP:
    """A client at this address that has said something."""
    client = smtplib.SMTP(*gateway.address, timeout=PATIENCE, source_address=(peer, 0))
    for command in ("EHLO client.example", *commands):
        client.docmd(command)
    return client


def named(explanation: Any, *keys: str) -> set[tuple[object, ...]]:
    return {tuple(limit[key] for key in keys) for limit in explanation["limits"]}


def test_the_limits_of_a_stranger_an_identity_and_a_relay_host_are_named(gateway, capsys):
    session = {("errors", "session", "", 20), ("invalid_recipients", "session", "", 20)}
    session |= {("idle_commands", "session", "", 100)}
    network = {("connections", "network", "127.8.0.1/32", 2), ("message_rate", "network", "127.8.0.1/32", 2)}
    network |= {("auth_failures", "network", "127.8.0.1/32", 30)}
    stranger = explained(gateway, capsys, "--peer", "127.8.0.1", "--auth", "ann")
    identity = {("recipient_rate", "identity", "ann", 5)}
    assert named(stranger, "limit", "by", "who", "most") == session | network | identity
    assert {("recipient_rate", 360.0), ("message_rate", 1800.0)} < named(stranger, "limit", "every")
    assert named(stranger, "left", "retry_after") == {(None, None)}
    assert explained(gateway, capsys, "--peer", "127.9.0.1")["limits"] == []
    trusted = named(explained(gateway, capsys, "--peer", "127.10.0.1"), "limit", "most")
    assert ("connections", 1000) in trusted
    assert "errors" not in {limit for limit, _ in trusted}


def test_for_a_person_they_are_a_line_for_each_who_is_counted(gateway, capsys):
    asked = ["--policy", str(gateway.policy_file), "--from", "a@x.example", "--to", "b@in.example"]
    assert cli.main(["explain", *asked, "--peer", "127.8.0.1"]) == 0
    told = capsys.readouterr().out
    assert "  limits of the session: errors 20, invalid_recipients 20, idle_commands 100\n" in told
    assert "of the network 127.8.0.1/32: connections 2, message_rate 2 and one every 1800 s, auth_failures 30" in told


def test_a_running_gateway_tells_what_is_left_and_asking_leaves_it(gateway, capsys):
    peer = "127.8.0.2"

    def left(name: str) -> object:
        told = explained(gateway, capsys, "--peer", peer, live=True)
        return next(limit["left"] for limit in told["limits"] if limit["limit"] == name)

    for _ in range(3):
        assert left("connections") == 2
        assert left("message_rate") == 2
    with client_at(gateway, peer, "MAIL FROM:<a@x.example>") as client:
        assert left("connections") == 1
        assert left("message_rate") == 1
        client.docmd("RSET")
        client.docmd("MAIL FROM:<a@x.example>")
        told = explained(gateway, capsys, "--peer", peer, live=True)
        assert (told["reply"]["code"], told["reason"], told["stage"]) == (451, "message_rate", "mail")
        line = Path(gateway.policy_file).read_text().splitlines()[told["rule"]["line"] - 1]
        assert (told["rule"]["what"], told["rule"]["value"]) == ("limits", "message_rate")
        assert "message_rate = '2/1h'" in line
        wait = next(limit["retry_after"] for limit in told["limits"] if limit["limit"] == "message_rate")
        assert 0 < wait <= 1800
        assert "peer" in {proposal["what"] for proposal in told["differ"]}
        with client_at(gateway, peer):
            assert left("connections") == 0
            told = explained(gateway, capsys, "--peer", peer, live=True)
            assert (told["reply"]["code"], told["reason"], told["stage"]) == (421, "peer_connections", "connect")
            assert explained(gateway, capsys, "--peer", peer)["accepted"] is True  # by the policy alone


def test_a_throttle_of_the_policy_is_seen_as_it_is_and_takes_no_turn(gateway, capsys):
    for _ in range(3):
        assert explained(gateway, capsys, "--peer", "127.9.0.1", live=True, to="once@in.example")["accepted"] is True
    with client_at(gateway, "127.9.0.1", "MAIL FROM:<a@x.example>", "RCPT TO:<once@in.example>"):
        pass
    told = explained(gateway, capsys, "--peer", "127.9.0.1", live=True, to="once@in.example")
    assert (told["reply"]["code"], told["reply"]["text"]) == (451, "not again")


def test_an_answer_of_a_running_gateway_names_the_epoch_of_its_policy(gateway, capsys):
    told = explained(gateway, capsys, "--peer", "127.9.0.1", live=True)
    assert told["epoch"] == gateway.announced()["epoch"] == 1
    assert explained(gateway, capsys)["epoch"] is None
