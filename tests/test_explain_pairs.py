"""Where no single change gives the opposite answer, `relay-gateway explain` finds two that do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import cli

POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '192.0.2.77' } }
  kumo.start_esmtp_listener { listen = '127.0.0.1:2526', relay_hosts = { '192.0.2.78' } }
end)
kumo.on('smtp_server_auth_plain', function() return true end)
kumo.on('smtp_server_rcpt_to', function(recipient)
  local known = recipient.domain:find '%.example$' or recipient.domain == 'open.org'
  if not known then kumo.reject(550, 'no such domain') end
end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'customer.example' then return kumo.make_listener_domain { relay_from = { '10.1.0.0/16' } } end
  if domain == 'paid.example' and conn:get_meta 'authz_id' == 'ann' then
    return kumo.make_listener_domain { relay_to = true }
  end
  if domain == 'open.org' and conn:get_meta 'tls_cipher' then
    return kumo.make_listener_domain { relay_to = true }
  end
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { maildir_path = '/nowhere' } }
end)
"""
PAID = POLICY.replace("conn:get_meta 'tls_cipher'", "false")  # nothing is for whoever uses TLS


@pytest.fixture
def explained(tmp_path, capsys):
    policy = tmp_path / "init.lua"

    def explain(*asked: str, text: str = POLICY, json_wanted: bool = True) -> Any:
        policy.write_text(text)
        assert cli.main(["explain", "--policy", str(policy), *asked, *["--json"][:json_wanted]]) == 0
        told = capsys.readouterr().out
        return json.loads(told) if json_wanted else told

    return explain


def pairs_of(explanation: Any) -> list[dict[str, object]]:
    return [{each["what"]: each["to"] for each in (found, *found["and"])} for found in explanation["differ"]]


def to_of(explanation: Any) -> list[object]:
    return [[each["to"] for each in (found, *found["and"])] for found in explanation["differ"]]


def test_two_changes_are_found_where_one_is_not_enough(explained):
    told = explained("--from", "a@x.example", "--to", "b@far.net")
    assert told["accepted"] is False
    assert {"tls": True, "recipient": "b@open.org"} in pairs_of(told)
    assert 1 < len(told["differ"]) <= 3
    assert all(found["reply"]["code"] == 250 and found["what"] for found in told["differ"])
    assert [
        pair for pair in pairs_of(explained("--from", "a@x.example", "--to", "b@far.net", text=PAID)) if "auth" in pair
    ] == [{"auth": "ann", "recipient": "b@paid.example"}]


def test_where_one_is_enough_no_two_are_told(explained):
    told = explained("--from", "a@x.example", "--to", "b@far.example")
    assert {"peer", "listener"} & {found["what"] for found in told["differ"]}
    assert all("and" not in found for found in told["differ"])


def test_two_recipients_may_both_have_to_differ(explained):
    told = explained("--from", "a@x.example", "--to", "b@far.net", "--to", "c@far.net", "--tls")
    assert ["b@open.org", "c@open.org"] in to_of(told)


def test_for_a_person_both_are_in_one_line(explained):
    told = explained("--from", "a@x.example", "--to", "b@far.net", text=PAID, json_wanted=False)
    assert "  auth 'ann' instead of nil, and recipient 'b@paid.example' instead of 'b@far.net': 250 2.0.0\n" in told


def test_what_nothing_helps_ends_after_a_bounded_number_of_trials(explained, monkeypatch):
    asked = []
    monkeypatch.setattr("gateway.why.differ._tried", lambda desk, session, changes: asked.append(changes) or _nothing())
    domains = "\n".join(f"-- 'domain{number}.example' '10.0.{number}.1'" for number in range(250))
    told = explained("--from", "a@x.example", "--to", "b@far.net", text=POLICY + domains)
    assert (told["differ"], told["complete"]) == ([], True)
    assert 900 < sum(len(changes) == 2 for changes in asked) <= 1000


def _nothing():
    return
    yield
