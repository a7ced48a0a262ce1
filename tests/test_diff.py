"""`relay-gateway diff`: what is said to change does change, at running gateways with the old and the new policy."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gateway import cli
from gateway.policy.background import Background
from gateway.policy.source import PolicySource
from gateway.why.asking import desk_for
from gateway.why.deciding import Deciding
from gateway.why.diff_command import Progress
from gateway.why.messages import BOUNCE, COMPLAINT, LETTER, MESSAGES
from gateway.why.recorded import RecordedQuestion, Unusable, asked_in
from tests.gateway_process import Gateway, wait_until

ROOT = Path(__file__).parent.parent
POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { RELAY_HOST } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0, meta = { 'authz_id', 'received_via' } }
end)
kumo.on('smtp_server_auth_plain', function() return true end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'in.example' then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'gone.example' then return kumo.make_listener_domain { relay_to = GONE } end
  if domain == 'bounce.example' then return kumo.make_listener_domain { log_oob = BOUNCES } end
  if domain == 'fbl.example' then return kumo.make_listener_domain { log_arf = 'LogThenDrop' } end
  if conn:get_meta 'authz_id' == AUTHENTICATED then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR .. (domain == 'in.example' and '' or '') } }
end)
"""
OLD = {
    "RELAY_HOST": "'127.9.0.0/16'",
    "GONE": "true",
    "BOUNCES": "'LogThenDrop'",
    "AUTHENTICATED": "'ann'",
    "MOVED": "''",
}
NEW = {"RELAY_HOST": "'127.10.0.0/16'", "GONE": "false", "BOUNCES": "false", "AUTHENTICATED": "'bob'", "MOVED": "''"}
# peer, sender, recipient, who authenticates, content
SENT = [
    ("127.8.0.1", "a@x.example", "b@in.example", None, LETTER),
    ("127.8.0.1", "a@x.example", "b@gone.example", None, LETTER),
    ("127.8.0.1", "c@x.example", "d@gone.example", None, LETTER),
    ("127.9.0.1", "a@x.example", "b@far.example", None, LETTER),
    ("127.10.0.1", "a@x.example", "b@far.example", None, LETTER),
    ("127.8.0.2", "a@x.example", "b@far.example", "ann", LETTER),
    ("127.8.0.2", "a@x.example", "b@far.example", "bob", LETTER),
    ("127.8.0.3", "", "b@bounce.example", None, BOUNCE),
    ("127.8.0.3", "", "b@bounce.example", None, LETTER),
    ("127.8.0.3", "", "b@fbl.example", None, COMPLAINT),
    ("127.8.0.4", "a@x.example", "b@nobodys.example", None, LETTER),
]


def policy(values: dict[str, str]) -> str:
    return re.sub(r"\b(" + "|".join(values) + r")\b", lambda found: values[found[0]], POLICY).lstrip()


def send(gateway: Gateway, peer: str, sender: str, recipient: str, user: str | None, content: str) -> int:
    """The code of the decisive reply."""
    client = gateway.smtp(peer)
    client.ehlo()
    try:
        if user is not None:
            client.starttls()
            client.login(user, "password")
        client.sendmail(sender, [recipient], MESSAGES[content])
    except smtplib.SMTPRecipientsRefused as refused:
        return next(iter(refused.recipients.values()))[0]
    except smtplib.SMTPResponseException as refused:
        return refused.smtp_code
    finally:
        client.close()
    return 250


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Gateway]]:
    """Running with the old policy, which has been sent everything, and with the new one."""
    old, new = (
        Gateway(tmp_path_factory.mktemp("gateway"), policy(values), "--workers", "1") for values in (OLD, NEW)
    )  # fmt: skip
    for each in SENT:
        send(old, *each)
    try:
        wait_until(lambda: len(old.records()) == 17, lambda: str([record["type"] for record in old.records()]))
        shutil.copytree(old.logs, old.folder / "sent")
        text = new.policy_file.read_text().replace(str(new.folder), str(old.folder))  # the same Maildir
        (old.folder / "new.lua").write_text(text)
        yield old, new
    finally:
        old.kill()
        new.kill()


def compare(capsys: pytest.CaptureFixture[str], old: Path, new: Path, logs: Path) -> tuple[int, dict[str, Any]]:
    status = cli.main(["diff", "--old", str(old), "--new", str(new), "--log", str(logs), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_what_changes_changes_at_running_gateways_and_nothing_else(gateways, capsys):
    old, new = gateways
    status, found = compare(capsys, old.policy_file, old.folder / "new.lua", old.folder / "sent")
    answers = [(send(old, *each), send(new, *each)) for each in SENT]
    expected = {each[:4] for each, (before, after) in zip(SENT, answers, strict=True) if before != after}
    told = set()
    for change in found["by_rule"]:
        for example in change["examples"]:
            told.add((example["peer"], example["from"], example["to"], example["auth"]))
    assert status == 1
    # each distinct question once: without a handler for addresses only their domains tell them apart
    assert told == expected - {("127.8.0.1", "c@x.example", "d@gone.example", None)}
    other_codes = [each for each in found["by_rule"] if each["old"]["reply"]["code"] != each["new"]["reply"]["code"]]
    (another_reason,) = [each for each in found["by_rule"] if each not in other_codes]
    assert (another_reason["old"]["reason"], another_reason["new"]["reason"]) == ("not_a_report", "relay_denied")
    assert sum(each["recipients"] for each in other_codes) == sum(before != after for before, after in answers)
    assert found["unlike_recorded"] == 0
    for change in found["by_rule"]:
        example = change["examples"][0]
        (place,) = [
            place for place, each in enumerate(SENT)
            if (*each[:4], each[4]) == (*(example[key] for key in ("peer", "from", "to", "auth")), example["message"])
        ]  # fmt: skip
        assert (change["old"]["reply"]["code"], change["new"]["reply"]["code"]) == answers[place]


def test_a_change_has_its_counts_and_rules(gateways, capsys):
    old, _ = gateways
    _, found = compare(capsys, old.policy_file, old.folder / "new.lua", old.folder / "sent")
    (gone,) = [change for change in found["by_rule"] if change["domains"][0]["domain"] == "gone.example"]
    assert (gone["recipients"], gone["questions"]) == (2, 1)
    assert (gone["old"]["rule"]["what"], gone["old"]["outcome"]) == ("relay_to", "relayed")
    assert gone["new"]["rule"]["what"] == "nothing"
    assert gone["new"]["rule"]["file"] == str(old.folder / "new.lua")
    assert {"domain": "gone.example", "recipients": 2} in found["by_domain"]
    assert {"peer": "127.8.0.2", "recipients": 2} in found["by_peer"]
    assert found["left_out"]["a hand-over does not name the client"] == found["records"]["Delivery"]


def test_the_same_policy_changes_nothing_with_status_0(gateways, capsys):
    old, _ = gateways
    status, found = compare(capsys, old.policy_file, old.policy_file, old.folder / "sent")
    assert (status, found["by_rule"], found["changed"]) == (0, [], 0)
    assert (
        cli.main(
            ["diff", "--old", str(old.policy_file), "--new", str(old.policy_file), "--log", str(old.folder / "sent")]
        )
        == 0
    )
    assert "nothing would change" in capsys.readouterr().out


def test_another_destination_is_a_change(gateways, capsys, tmp_path):
    old, _ = gateways
    moved = tmp_path / "moved.lua"
    moved.write_text(old.policy_file.read_text().replace("and '' or ''", "and '/elsewhere' or ''"))
    status, found = compare(capsys, old.policy_file, moved, old.folder / "sent")
    assert status == 1
    (change,) = found["by_rule"]
    assert change["new"]["where"] == change["old"]["where"] + "/elsewhere"


def test_for_a_person_changes_are_told_with_counts_and_examples(gateways, capsys):
    old, new = gateways
    assert (
        cli.main(
            ["diff", "--old", str(old.policy_file), "--new", str(new.policy_file), "--log", str(old.folder / "sent")]
        )
        == 1
    )
    out = capsys.readouterr().out
    assert "by domain" in out
    assert re.search(r"^ +2 gone\.example$", out, re.MULTILINE)
    assert "such as 127.9.0.1 from <a@x.example> to <b@far.example>: a letter" in out


# --- deciding once ----------------------------------------------------------------------------------------------------

LOOKING_AT = {
    "nobody": "",
    "the peer": "local from = conn:get_meta 'received_from' if from:find '^192%.0%.2%.7:' then return ours end",
    "the EHLO name": "if conn:get_meta 'ehlo_domain' == 'client7.example' then return ours end",
    "relay_from": "return domain == 's3.example' and kumo.make_listener_domain { relay_from = { '192.0.2.7' } } or nil",
    "reports": "if domain == 'd1.example' then return kumo.make_listener_domain { log_oob = 'LogThenDrop' } end",
}
DECIDING = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:25', relay_hosts = { '192.0.2.5' }, peer = { ['192.0.2.4'] = { max_message_size = 10 } },
  }
end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  local ours = kumo.make_listener_domain { relay_to = true }
  if domain == 'd0.example' then return ours end
  LOOK
end)
kumo.on('get_queue_config', function() return kumo.make_queue_config { protocol = { maildir_path = 'm' } } end)
"""


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background.alone()
    yield made
    made.end()


def deciding(text: str, background: Background) -> Deciding:
    return Deciding(desk_for(PolicySource("policy.lua", {"policy.lua": text.encode()}), background))


def questions() -> list[RecordedQuestion]:
    return [
        RecordedQuestion(
            f"a@s{sender}.example", f"b@d{recipient}.example", f"192.0.2.{peer}", None, None, False,
            f"client{peer}.example", LETTER, None,
        )
        for peer in range(4, 9) for sender in range(4) for recipient in range(3)
    ]  # fmt: skip


@pytest.mark.parametrize("looked_at", LOOKING_AT)
def test_an_answer_that_is_shared_is_the_one_that_would_be_given(looked_at, background):
    text = DECIDING.replace("LOOK", LOOKING_AT[looked_at])
    shared = deciding(text, background)
    order = questions()
    random.shuffle(order)  # pytest-randomly prints the seed
    for asked in order:
        assert shared.decide(asked)[0] == deciding(text, background).decide(asked)[0], asked


def test_what_differs_only_in_what_nobody_looks_at_is_decided_once(background):
    shared = deciding(DECIDING.replace("LOOK", ""), background)
    for peer in range(1, 255):
        for sender in range(3):
            one = f"198.51.100.{peer}", f"a@s{sender}.example", f"client{peer}.example"
            shared.decide(questions()[0]._replace(peer=one[0], sender=one[1], ehlo=one[2]))
    assert shared.made == 1
    shared.decide(questions()[0]._replace(peer="192.0.2.5"))  # a relay host
    shared.decide(questions()[0]._replace(peer="192.0.2.4"))  # with terms of its own
    assert shared.made == 3


# --- records ----------------------------------------------------------------------------------------------------------

RECEPTION = {
    "type": "Reception", "id": "1", "sender": "a@x.example", "recipient": ["b@y.example", "c@y.example"],
    "peer_address": {"name": "client.example", "addr": "192.0.2.7"}, "meta": {}, "reason": None,
}  # fmt: skip


DAMAGED: list[dict[str, Any]] = [
    {"id": 5}, {"sender": 5}, {"recipient": {}}, {"recipient": ["a@b.example", 5]}, {"peer_address": "192.0.2.7"},
    {"peer_address": {"name": "x", "addr": "nowhere"}}, {"peer_address": {"addr": 5}}, {"meta": []},
    {"meta": {"received_via": 25}}, {"meta": {"authz_id": ["ann"]}},
]  # fmt: skip


def test_each_recipient_of_a_reception_is_a_question():
    asked = list(asked_in({**RECEPTION, "tls_cipher": "x", "meta": {"authz_id": "ann"}}, set()))
    assert [each.recipient for each in asked] == ["b@y.example", "c@y.example"]
    assert asked[0] == RecordedQuestion(
        "a@x.example", "b@y.example", "192.0.2.7", None, "ann", True, "client.example", LETTER, None
    )  # fmt: skip


def test_a_bounce_came_to_the_sender_that_its_record_names():
    (asked,) = asked_in({**RECEPTION, "type": "OOB", "sender": "verp@x.example", "recipient": "gone@y.example"}, set())
    assert (asked.sender, asked.recipient, asked.content) == ("", "verp@x.example", BOUNCE)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({**RECEPTION, "type": "Delivery"}, "a hand-over does not name the client"),
        ({**RECEPTION, "type": "Rejection", "reason": "syntax"}, "a refusal that no policy decides"),
        ({**RECEPTION, "id": "a report"}, "the Reception of a report, which has its own record"),
        ({**RECEPTION, "peer_address": None}, "no peer is recorded"),
        ({}, "not a record of this gateway"),
        (None, "not a record of this gateway"),
        *(({**RECEPTION, **damaged}, "it has not what a record of this gateway has") for damaged in DAMAGED),
        ({"type": "Reception"}, "it has not what a record of this gateway has"),
    ],
)
def test_what_a_record_does_not_hold_is_said(record, why):
    with pytest.raises(Unusable, match=why):
        list(asked_in(record, {"a report"}))


def write(logs: Path, *records: dict[str, Any]) -> None:
    logs.mkdir(exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records) + "no JSON\n"
    (logs / "20260101-000000.000000000").write_bytes(zstandard.ZstdCompressor().compress(text.encode()))


TWO = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:25', relay_hosts = {} }
  kumo.start_esmtp_listener { listen = '0.0.0.0:587', relay_hosts = { '0.0.0.0/0' } }
end)
kumo.on('get_queue_config', function() return kumo.make_queue_config { protocol = { maildir_path = 'm' } } end)
"""


def test_the_listener_is_the_recorded_one_and_else_the_first_which_is_said(capsys, tmp_path):
    (tmp_path / "old.lua").write_text(TWO)
    (tmp_path / "new.lua").write_text(TWO.replace("587', relay_hosts = { '0.0.0.0/0' }", "587', relay_hosts = {}"))
    at_587 = {**RECEPTION, "recipient": "b@y.example", "meta": {"received_via": "10.0.0.1:587"}}
    write(tmp_path / "logs", at_587, {**RECEPTION, "recipient": "b@y.example"})
    status, found = compare(capsys, tmp_path / "old.lua", tmp_path / "new.lua", tmp_path / "logs")
    assert (status, found["changed"], found["unknown_listener"]) == (1, 1, 1)
    assert found["by_rule"][0]["examples"][0]["listener"] == "10.0.0.1:587"
    assert found["unlike_recorded"] == 1  # the one whose listener is not recorded was accepted
    assert found["left_out"] == {"not a record of this gateway": 1}


def test_records_of_a_gateway_that_had_a_fleet_remind_of_it(capsys, tmp_path):
    (tmp_path / "init.lua").write_text(TWO.replace("maildir_path = 'm'", ""))
    write(tmp_path / "logs", {**RECEPTION, "recipient": "b@y.example", "meta": {"received_via": "10.0.0.1:587"}})
    policy = str(tmp_path / "init.lua")
    options = ["diff", "--old", policy, "--new", policy, "--log", str(tmp_path / "logs")]
    assert cli.main(options) == 0
    reminder = "decided by the old policy otherwise than was recorded; where that was with --fleet, give it here, too"
    assert reminder in capsys.readouterr().out
    assert cli.main([*options, "--fleet", "mta.example"]) == 0
    assert "otherwise than" not in capsys.readouterr().out


def test_what_a_policy_prints_does_not_get_into_the_json(tmp_path):
    policy = tmp_path / "policy.lua"
    policy.write_text("print 'hello'\n" + TWO)
    write(tmp_path / "logs", {**RECEPTION, "recipient": "b@y.example"})
    options = ["--old", str(policy), "--new", str(policy), "--log", str(tmp_path / "logs")]
    command = [sys.executable, "-m", "gateway", "diff", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["changed"] == 0
    assert "hello" in done.stderr


def test_progress_is_told_on_a_terminal_once_a_second(monkeypatch):
    now = [100.0]
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress()
    for number in range(12):
        progress.tell(f"{number} records read")
        now[0] += 0.25
    progress.end()
    told = terminal.getvalue().replace("\033[K", "").split("\r")
    assert [line for line in told if line] == ["4 records read", "8 records read"]


def test_bad_policies_and_missing_logs_have_their_status(capsys, tmp_path):
    good = str(ROOT / "deploy/quickstart.lua")
    (tmp_path / "bad.lua").write_text("kumo.nothing()")
    assert cli.main(["diff", "--old", good, "--new", str(tmp_path / "bad.lua"), "--log", str(tmp_path)]) == 78
    assert cli.main(["diff", "--old", good, "--new", good, "--log", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["diff", "--old", good, "--new", good, "--log", str(tmp_path)]) == 2
    assert f"there are no log records in {tmp_path}" in capsys.readouterr().err


def test_damaged_records_are_left_out_and_counted(capsys, tmp_path):
    write(tmp_path / "logs", *({**RECEPTION, **damaged} for damaged in DAMAGED), RECEPTION)
    status, found = compare(capsys, ROOT / "deploy/quickstart.lua", ROOT / "deploy/quickstart.lua", tmp_path / "logs")
    assert (status, found["recipients"]) == (0, 2)
    assert found["left_out"]["it has not what a record of this gateway has"] == len(DAMAGED)


def keys_in(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for item in value for key in keys_in(item)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {
        key for name, item in value.items() if name not in ("records", "left_out") for key in keys_in(item)
    }


def test_every_key_of_the_json_is_documented(gateways, capsys):
    old, _ = gateways
    _, found = compare(capsys, old.policy_file, old.folder / "new.lua", old.folder / "sent")
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/why.md").read_text()))
    assert keys_in(found) - documented == set()
