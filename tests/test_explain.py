"""`relay-gateway explain` says what the server says: its dialogues get the same replies from a running gateway."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway._fastpath import stuff
from gateway.policy.background import Background
from gateway.policy.source import PolicySource
from gateway.why.asking import Answering, desk_for, settled
from gateway.why.conversation import PASSWORD, Account, Desk, Question
from gateway.why.differ import Proposal, proposals
from gateway.why.explain import explain
from gateway.why.messages import BOUNCE, COMPLAINT, LETTER, MESSAGES
from gateway.why.prose import in_words
from gateway.why.rules import Rules
from tests.dialogue import Lines
from tests.gateway_process import PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.test_fleet_policies import CASES, at_home

ROOT = Path(__file__).parent.parent
POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', max_message_size = 20000,
    relay_hosts = {
      '127.9.0.0/16',
    },
    peer = { ['127.12.0.0/16'] = { relay_hosts = { '127.12.0.1' }, meta = { class = 'gold' } } },
  }
  kumo.start_esmtp_listener { listen = '127.0.0.2:0', hostname = 'second.example', relay_hosts = { '127.8.0.0/16' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
kumo.on('smtp_server_connection_accepted', function(conn)
  if conn:get_meta('received_from'):find '^127%.11%.' then kumo.reject(554, '5.7.1 go away') end
end)
kumo.on('smtp_server_ehlo', function(name)
  if name == 'bad.example' then kumo.disconnect(550, 'not you', 'FollowWith421') end
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'supposed' end)
kumo.on('smtp_server_mail_from', function(sender)
  if sender.user == 'spam' then kumo.reject(550, 'no spam') end
end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'in.example' then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'bounce.example' then return kumo.make_listener_domain { log_oob = 'LogThenDrop' } end
  if domain == 'both.example' then return kumo.make_listener_domain { log_oob = true, log_arf = 'LogThenRelay' } end
  if domain == 'customer.example' then
    return kumo.make_listener_domain { relay_from = { '127.10.0.0/16' } }
  end
  if domain == 'broken.example' then error 'it is broken' end
  if domain == 'slow.example' then
    kumo.sleep(0.001)
    return kumo.make_listener_domain { relay_to = true }
  end
  if domain == 'gw.example' then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'secret.example' and conn:get_meta 'tls_cipher' then
    return kumo.make_listener_domain { relay_to = true }
  end
  if conn:get_meta 'authz_id' == 'ann' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_rcpt_to', function(recipient)
  if recipient.user == 'nobody' then kumo.reject(550, '5.1.1 no such user') end
end)
kumo.on('smtp_server_message_received', function(msg)
  if msg:get_first_named_header_value 'X-Verdict' == 'no' then kumo.reject(554, '5.6.0 not this') end
  if msg:get_first_named_header_value 'X-Verdict' == 'drop' then msg:set_meta('queue', 'null') end
end)
kumo.on('get_queue_config', function(domain)
  if domain == 'nowhere.example' then return nil end
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
"""
STRANGER = "127.8.0.1"
MINE = {name: content for name, content in MESSAGES.items()} | {
    "refused": b"X-Verdict: no\r\n\r\n",
    "dropped": b"X-Verdict: drop\r\n\r\n",
    "big": b"Subject: x\r\n\r\n" + b"x" * 60 + b"\r\n" * 12_000,
    "long": b"Subject: x\r\n\r\n" + b"x" * 2000 + b"\r\n",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n",
    "bare": b"Subject: x\r\n\r\na\nb\r\n",
}


def question(
    sender: str = "a@out.example", *to: str, peer: str = STRANGER, message: str = LETTER, listener: int = 0, **more: Any
) -> Question:
    local = ("127.0.0.1", 25) if listener == 0 else ("127.0.0.2", 25)
    return Question(
        sender=sender, recipients=to or ("b@in.example",), peer=(peer, 40_000), listener=listener, local=local,
        message=MINE[message], message_name=message, **more,
    )  # fmt: skip


# The question, the decisive reply's code and stage, what its rule is, and a word of the rule's line.
QUESTIONS: dict[str, tuple[Question, int, str, str | None, str]] = {
    "recipient's domain": (question(), 250, "data", "relay_to", "in.example"),
    "nobody": (question("a@x.example", "b@y.example"), 550, "rcpt", "nothing", "get_listener_domain"),
    "relay host": (question("a@x.example", "b@y.example", peer="127.9.1.1"), 250, "data", "relay_hosts", "127.9.0.0"),
    "peer block": (question("a@x.example", "b@y.example", peer="127.12.0.1"), 250, "data", "relay_hosts", "127.12.0.1"),
    "other listener": (question("a@x.example", "b@y.example", listener=1), 250, "data", "relay_hosts", "127.0.0.2"),
    "sender's domain": (
        question("a@customer.example", "b@y.example", peer="127.10.3.4"), 250, "data", "relay_from", "127.10.0.0/16"
    ),
    "sender's domain, other peer": (question("a@customer.example", "b@y.example"), 550, "rcpt", "nothing", "domain"),
    "authenticated": (question("a@x.example", "b@y.example", auth="ann"), 250, "data", "relay_to", "authz_id"),
    "authenticated otherwise": (question("a@x.example", "b@y.example", auth="bob"), 550, "rcpt", "nothing", "domain"),
    "under TLS": (question("a@x.example", "b@secret.example", tls=True), 250, "data", "relay_to", "relay_to"),
    "not under TLS": (question("a@x.example", "b@secret.example"), 550, "rcpt", "nothing", "get_listener_domain"),
    "slow": (question("a@x.example", "b@slow.example"), 250, "data", "relay_to", "relay_to"),
    "bounce": (question("", "b@bounce.example", message=BOUNCE), 250, "data", "log_oob", "bounce.example"),
    "no bounce": (question("", "b@bounce.example"), 550, "data", "log_oob", "bounce.example"),
    "complaint": (question("", "b@both.example", message=COMPLAINT), 250, "data", "log_oob and log_arf", "log_arf"),
    "banned": (question(peer="127.11.0.1"), 554, "connect", "verdict", "go away"),
    "bad name": (question(ehlo="bad.example"), 550, "command", "verdict", "not you"),
    "sender refused": (question("spam@x.example"), 550, "mail", "verdict", "no spam"),
    "recipient refused": (question("a@x.example", "nobody@in.example"), 550, "rcpt", "verdict", "no such user"),
    "error": (question("a@x.example", "b@broken.example"), 451, "rcpt", "error", "it is broken"),
    "content refused": (question(message="refused"), 554, "data", "verdict", "not this"),
    "content discarded": (question(message="dropped"), 250, "data", "relay_to", "in.example"),
    "too big": (question(message="big"), 552, "mail", "max_message_size", "max_message_size"),
    "long line": (question(message="long"), 500, "data", "line_length_hard_limit", "start_esmtp_listener"),
    "bare LF": (question(message="bare"), 552, "data", "invalid_line_endings", "start_esmtp_listener"),
    "dots": (question(message="dots"), 250, "data", "relay_to", "in.example"),
    "no destination": (
        question("a@x.example", "b@nowhere.example", peer="127.9.0.1"), 451, "data", "get_queue_config", "queue"
    ),
    "bad sender": (question("a@-"), 501, "mail", None, ""),
    "bad recipient": (question("a@x.example", "b"), 501, "rcpt", None, ""),
    "Postmaster": (question("a@x.example", "Postmaster"), 250, "data", "relay_to", "gw.example"),
    "some refused": (
        question("a@x.example", "b@in.example", "c@y.example", "nobody@in.example"), 550, "rcpt", "nothing", "domain"
    ),
    "mixed": (question("", "b@in.example", "c@bounce.example"), 452, "rcpt", "log_oob", "bounce.example"),
    "not ASCII": (question("ä@x.example", "ö@in.example"), 250, "data", "relay_to", "in.example"),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", QUESTIONS)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("gateway"), POLICY, "--workers", "1")
    running.announced()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def desk(gateway: Gateway) -> Iterator[Desk]:
    background = Background.alone()
    yield desk_for(PolicySource.read(str(gateway.policy_file)), background)
    background.end()


def ask(desk: Desk, asked: Question) -> Account:
    session: Account = settled(desk, desk.ask(asked))
    return session


def proposed(desk: Desk, asked: Question) -> list[Proposal]:
    found: list[Proposal]
    found, complete = settled(desk, proposals(desk, ask(desk, asked)))
    assert complete
    return found


def comparable(reply: str) -> str:
    """Without what every session has of its own: ids and ports."""
    return re.sub(r"ids=\w+( \w+)*", "ids", re.sub(r"(?<=\d):\d+", ":PORT", reply))


def at_the_wire(gateway: Gateway, session: Account) -> list[str]:
    """What a running gateway answers to what was said in a session."""
    asked = session.question
    host, _, port = gateway.announced()["smtp"][asked.listener].rpartition(":")
    lines = Lines(socket.create_connection((host, int(port)), PATIENCE, source_address=(asked.peer[0], 0)))
    replies = []
    for step in session.steps:
        if step.command == "(message)":
            lines.sock.sendall(stuff(asked.message) + b".\r\n")
        elif step.command == "AUTH PLAIN ***":
            plain = base64.b64encode(f"\0{asked.auth}\0{PASSWORD}".encode())
            lines.sock.sendall(b"AUTH PLAIN " + plain + b"\r\n")
        elif step.command:
            lines.sock.sendall(step.command.encode() + b"\r\n")
        replies.append(comparable(read_reply(lines)))
        if step.command == "STARTTLS":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            lines = Lines(context.wrap_socket(lines.sock))
    lines.sock.close()
    return replies


def read_reply(lines: Lines) -> str:
    read = []
    while (line := lines.read()) is not None:
        read.append(line)
        if line[3:4] != "-":
            break
    return "\n".join(line[:3] + " " + line[4:] for line in read)


def as_explained(session: Account) -> list[str]:
    wires = [step.reply.wire.decode().rstrip("\r\n").split("\r\n") for step in session.steps]
    return [comparable("\n".join(line[:3] + " " + line[4:] for line in lines)) for lines in wires]


@ALL
def test_explain_says_what_the_server_says(name, gateway, desk):
    session = ask(desk, QUESTIONS[name][0])
    assert as_explained(session) == at_the_wire(gateway, session)


@ALL
def test_the_reply_and_the_rule_are_those_that_decide(name, gateway, desk):
    asked, code, stage, what, word = QUESTIONS[name]
    session = ask(desk, asked)
    decisive, rule = session.decisive, Rules(desk.policy).of_session(session)
    assert (decisive.reply.code, decisive.stage) == (code, stage)
    assert (None if rule is None else rule["what"]) == what
    if rule is not None:
        assert rule["file"] == str(gateway.policy_file)
        lines = gateway.policy_file.read_text().splitlines()
        near = "\n".join(lines[max(0, rule["line"] - 2) : rule["line"] + 1])
        assert word in lines[rule["line"] - 1] or word in near


@ALL
def test_every_proposal_gives_the_opposite_answer_as_the_server_gives_it(name, gateway, desk):
    asked = QUESTIONS[name][0]
    accepted = ask(desk, asked).accepted
    for changes, changed, reply in proposed(desk, asked):
        session = ask(desk, changed)
        assert session.accepted is not accepted, changes
        assert session.decisive.reply.code == reply.code
        if changed.peer[0].startswith("127."):
            assert as_explained(session) == at_the_wire(gateway, session), changes


@pytest.mark.parametrize(
    ("name", "what", "after"),
    [
        ("nobody", "peer", "127.9.0.1"),
        ("nobody", "peer", "127.12.0.1"),
        ("nobody", "auth", "ann"),
        ("nobody", "listener", "127.0.0.2:0"),
        ("nobody", "recipient", "b@in.example"),
        ("sender's domain, other peer", "peer", "127.10.0.1"),
        ("sender's domain", "peer", "192.0.2.1"),
        ("sender's domain", "sender", "a@gw.example"),
        ("not under TLS", "tls", True),
        ("under TLS", "tls", False),
        ("no bounce", "message", BOUNCE),
        ("bounce", "message", LETTER),
        ("authenticated", "auth", None),
        ("relay host", "peer", "192.0.2.1"),
        ("mixed", "recipients", ["b@in.example"]),
        ("too big", "message", LETTER),
        ("bad name", "ehlo", "client.example"),
        ("sender refused", "sender", "somebody@x.example"),
        ("recipient refused", "recipient", "somebody@in.example"),
        ("recipient's domain", "peer", "127.11.0.1"),
    ],
)
def test_what_would_have_to_differ_is_found(name, what, after, desk):
    found = [(changes[0].what, changes[0].after) for changes, _, _ in proposed(desk, QUESTIONS[name][0])]
    if (name, what) == ("recipient's domain", "peer"):  # only a handler's pattern knows those
        assert (what, after) not in found
    else:
        assert (what, after) in found


COMPUTING = (
    """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = {} }
  kumo.start_http_listener { listen = HTTP }
end)
kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn)
  if conn:get_meta('received_from'):find '^127%.9%.' then
    return { relay_hosts = { '127.9.0.0/16' }, meta = { class = 'gold' } }
  end
end)
kumo.on('smtp_server_split_transaction', function() return { { 'b@x.example' }, { 'c@x.example' } } end)
kumo.on('smtp_server_rewrite_response', function(code, text) return code, text .. ' reworded' end)
kumo.on('smtp_server_message_received', function(msg, conn)
  if conn:get_meta 'class' ~= 'gold' then kumo.reject(550, 'no gold') end
end)
"""
    + TO_MAILDIR
)


def test_computed_parameters_and_reworded_replies_are_explained_as_they_come(tmp_path):
    gateway = Gateway(tmp_path / "computing", COMPUTING, "--workers", "1")
    background = Background.alone()
    try:
        gateway.announced()
        desk = desk_for(PolicySource.read(str(gateway.policy_file)), background)
        for peer in ("127.9.0.1", "127.8.0.1"):
            session = ask(desk, question("a@x.example", "b@x.example", "c@x.example", peer=peer))
            assert as_explained(session) == at_the_wire(gateway, session)
            assert session.accepted is (peer == "127.9.0.1")
            told = settled(desk, explain(desk, session.question))
            assert {"smtp_server_get_dynamic_parameters", "smtp_server_rewrite_response"} <= {
                event["event"] for event in told["events"]
            }
            place = (told["rule"]["what"], told["rule"]["line"])
            assert place == (("relay_hosts", 7) if session.accepted else ("nothing", 4))
    finally:
        gateway.kill()
        background.end()


def test_what_takes_too_long_to_try_is_left_out_and_said(desk, monkeypatch):
    monkeypatch.setattr("gateway.why.differ.MOST_SECONDS", -1.0)
    told = settled(desk, explain(desk, question("a@x.example", "b@y.example")))
    assert (told["differ"], told["complete"]) == ([], False)
    assert "no time to try everything" in in_words(told)


DOMAINS = """
["*.example.com"]
relay_to = true

["www.example.com"]
log_oob = "LogThenDrop"

[listener."127.0.0.1:2525"."send.example.com"]
relay_from_authz = ["ann"]

["no.example.com"]
relay_to = false
"""
FROM_FILES = """
local kumo = require 'kumo'
local domains = require 'policy-extras.listener_domains'
kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = {} } end)
kumo.on('smtp_server_auth_plain', function() return true end)
HANDLER { 'DOMAINS', { ['inline.example'] = { relay_to = true } } }HANDLED
kumo.on('get_queue_config', function() return kumo.make_queue_config { protocol = { maildir_path = 'm' } } end)
"""


@pytest.mark.parametrize(
    ("handler", "handled"),
    [
        ("kumo.on('get_listener_domain', domains:setup", ")"),
        ("local look = domains:setup", " kumo.on('get_listener_domain', function(...) return look(...) end)"),
    ],
)
@pytest.mark.parametrize(
    ("sender", "recipient", "auth", "entry", "file", "line"),
    [
        ("", "b@in.example.com", None, "*.example.com", "domains.toml", 2),
        ("", "b@www.example.com", None, "www.example.com", "domains.toml", 5),
        ("a@send.example.com", "b@far.example", "ann", "send.example.com", "domains.toml", 8),
        ("", "b@inline.example", None, "inline.example", "init.lua", 6),
        ("a@x.example", "b@no.example.com", None, "no.example.com", "domains.toml", 11),
    ],
)
def test_an_entry_of_a_file_is_a_rule_with_its_line(
    sender, recipient, auth, entry, file, line, handler, handled, tmp_path, capsys
):
    (tmp_path / "domains.toml").write_text(DOMAINS)
    policy = tmp_path / "init.lua"
    text = FROM_FILES.replace("DOMAINS", str(tmp_path / "domains.toml"))
    policy.write_text(text.replace("HANDLER", handler, 1).replace("HANDLED", handled))
    arguments = ["--from", sender, "--to", recipient, *([] if auth is None else ["--auth", auth])]
    assert cli.main(["explain", "--policy", str(policy), *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rule = found["recipients"][0]["rule"]
    assert (rule["entry"], rule["file"], rule["line"]) == (entry, str(tmp_path / file), line)
    if auth is not None:
        assert {"authz_id": "ann"}.items() <= found["events"][-2]["read"].items()


# --- the command ------------------------------------------------------------------------------------------------------

QUICKSTART = ["explain", "--policy", str(ROOT / "deploy/quickstart.lua"), "--from", "a@sender.example"]


def explained(
    capsys: pytest.CaptureFixture[str], *arguments: str, command: Sequence[str] = QUICKSTART
) -> dict[str, Any]:
    assert cli.main([*command, *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_a_policy_prints_does_not_get_into_the_json(tmp_path):
    path = tmp_path / "policy.lua"
    path.write_text("print 'hello'\n" + (ROOT / "deploy/quickstart.lua").read_text())
    question = ["--policy", str(path), "--from", "a@x.example", "--to", "b@y.example"]
    command = [sys.executable, "-m", "gateway", "explain", "--json", *question]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["reason"] == "relay_denied"
    assert "hello" in done.stderr


def test_the_json_names_reply_reason_rule_events_and_differences(capsys):
    found = explained(capsys, "--to", "x@far.example", "--peer", "[2001:db8::7]:99")
    assert found["reply"] == {"code": 550, "enhanced": "5.7.1", "text": "relaying not permitted for [2001:db8::7]:99"}
    assert (found["reason"], found["stage"], found["accepted"], found["outcome"]) == (
        "relay_denied", "rcpt", False, "refused"
    )  # fmt: skip
    event = found["events"][0]
    assert event["event"] == "get_listener_domain"
    assert event["file"].endswith("quickstart.lua")
    assert (event["read"], event["cached"], event["result"]) == ({"authz_id": None}, False, None)
    assert {"what": "peer", "from": "2001:db8::7", "to": "127.0.0.1"}.items() <= found["differ"][0].items()


def test_a_message_may_come_from_a_file_and_is_read_for_reports(capsys, tmp_path):
    bounce = tmp_path / "bounce.eml"
    bounce.write_bytes(MESSAGES[BOUNCE].replace(b"\r\n", b"\n"))
    found = explained(capsys, "--to", "r@bounce.example.com", "--message", str(bounce))
    assert found["outcome"] == "report_logged"
    assert [record["type"] for record in found["records"]] == ["Reception", "OOB"]
    assert found["destinations"] == []


def test_what_a_handler_read_of_the_message_is_told(capsys, tmp_path):
    policy = tmp_path / "policy.lua"
    policy.write_text("""
        kumo.on('init', function()
          kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '192.0.2.1' } }
        end)
        kumo.on('smtp_server_message_received', function(msg)
          msg:set_meta('tenant', msg:get_first_named_header_value 'X-Tenant')
          if msg:recipient().domain == 'far.example' and not msg:get_meta 'tenant' then kumo.reject(550, 'whose?') end
          assert(#msg:get_data() > 0)
        end)""")
    command = ["explain", "--policy", str(policy), "--from", "a@sender.example"]
    found = explained(capsys, "--to", "x@far.example", command=command)
    [event] = [event for event in found["events"] if event["event"] == "smtp_server_message_received"]
    assert event["read"] == {
        "msg:get_first_named_header_value('X-Tenant')": None,
        "msg:recipient()": "x@far.example",
        "msg:get_meta('tenant')": None,
    }


def test_nothing_is_written_or_delivered(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = explained(capsys, "--to", "you@example.com")
    assert found["destinations"] == [{"to": ["you@example.com"], "maildir": "var/maildir"}]
    assert found["records"][0]["log_dirs"] == ["var/log"]
    assert list(tmp_path.iterdir()) == []


def test_metadata_of_the_question_is_what_the_policy_sees(capsys):
    found = explained(capsys, "--to", "x@far.example", "--meta", "authz_id=me")
    assert found["rule"]["what"] == "relay_to"
    assert {"what": "meta authz_id", "to": None}.items() <= found["differ"][-1].items()


def test_for_a_person_the_answer_comes_first(capsys):
    assert cli.main([*QUICKSTART, "--to", "x@far.example"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "550 5.7.1 relaying not permitted for 192.0.2.1:40000"
    assert any("quickstart.lua:" in line for line in lines)


def test_the_readme_shows_what_it_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text()
    shown = re.search(
        r"^ {4}\.venv/bin/relay-gateway (explain [^\n]*)\n\n```\n(.*?)^```", readme, re.DOTALL | re.MULTILINE
    )
    assert shown
    assert cli.main(shown[1].split()) == 0
    assert capsys.readouterr().out == shown[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listener", "127.0.0.1:99"], "no listener 127.0.0.1:99; the policy has: 127.0.0.1:2525"),
        (["--peer", "nowhere"], "'nowhere' is no IP address"),
        (["--peer", "192.0.2.1:x"], "expected IP or IP:PORT"),
        (["--meta", "x"], "expected KEY=VALUE"),
        (["--message", "/nowhere/at/all"], "No such file"),
    ],
)
def test_arguments_that_do_not_fit_are_told_kindly(arguments, words, capsys):
    assert cli.main([*QUICKSTART, "--to", "x@far.example", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_policy_without_listeners_has_nobody_to_ask(capsys, tmp_path):
    policy = tmp_path / "init.lua"
    policy.write_text("local kumo = require 'kumo'\n")
    asked = ["--from", "", "--to", "b@c.example"]
    assert cli.main(["explain", "--policy", str(policy), *asked]) == 2
    assert "the policy has no SMTP listener" in capsys.readouterr().err


def test_a_bad_policy_is_told_by_line_with_status_78(capsys, tmp_path):
    policy = tmp_path / "bad.lua"
    policy.write_text("local kumo = require 'kumo'\nkumo.on('init', function() nothing() end)\n")
    assert cli.main(["explain", "--policy", str(policy), "--from", "", "--to", "b@c.example"]) == 78
    assert "bad.lua:2: attempt to call a nil value" in capsys.readouterr().err
    assert cli.main(["explain", "--policy", str(tmp_path / "none"), "--from", "", "--to", "b@c.example"]) == 78


def keys_in(value: Any) -> set[str]:
    """The keys of objects, but for those that are a policy's or a client's words."""
    if isinstance(value, list):
        return {key for item in value for key in keys_in(item)}
    if not isinstance(value, dict):
        return set()
    inner = {key for name, item in value.items() if name not in ("read", "result", "meta") for key in keys_in(item)}
    return set(value) | inner


def test_every_key_of_the_json_is_documented(capsys, desk):
    explanations = [settled(desk, explain(desk, each[0])) for each in QUESTIONS.values()]
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/why.md").read_text()))
    assert keys_in(explanations) - documented == set()


# --- the running gateway ----------------------------------------------------------------------------------------------


def live(gateway: Gateway, *arguments: str) -> list[str]:
    admin = f"http://{gateway.announced()['http'][0]}"
    return ["explain", "--admin", admin, "--from", "a@x.example", "--to", "b@in.example", *arguments]


def comparable_json(explanation: dict[str, Any]) -> Any:
    """But for what only a running gateway knows."""
    without = {key: value for key, value in explanation.items() if key not in ("answered_by", "epoch")}
    without["limits"] = [{**limit, "left": None} for limit in explanation["limits"]]
    return json.loads(re.sub(r"ids=\w+", "ids", json.dumps(without)))


@pytest.mark.parametrize("arguments", [(), ("--peer", "127.11.0.1"), ("--auth", "ann", "--meta", "k=v")])
def test_a_running_gateway_explains_the_same(arguments, gateway, capsys):
    here = ["explain", "--policy", str(gateway.policy_file), "--from", "a@x.example", "--to", "b@in.example"]
    told = []
    for command in (live(gateway, *arguments), [*here, *arguments]):
        assert cli.main([*command, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["answered_by"].startswith("the admin process of the running gateway")
    assert comparable_json(told[0]) == comparable_json(told[1])


def test_the_policy_in_force_answers_whatever_the_disk_says(tmp_path, capsys):
    gateway = Gateway(tmp_path / "other", POLICY, "--workers", "1")
    try:
        gateway.announced()
        gateway.write_policy(POLICY.replace("'in.example'", "'out.example'"))
        assert cli.main([*live(gateway), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accepted"] is True
        gateway.process.send_signal(signal.SIGHUP)
        gateway.announced(epoch=2)
        wait_until(lambda: cli.main(live(gateway)) == 0 and capsys.readouterr().out.startswith("550 5.7.1 "), "new")
    finally:
        gateway.kill()


def test_a_running_gateway_answers_for_the_fleet_that_it_has(tmp_path, capsys):
    gateway = Gateway(tmp_path / "with-fleet", POLICY, "--workers", "1", "--fleet", "127.0.0.1:9,127.0.0.1:10")
    try:
        gateway.announced()
        assert cli.main([*live(gateway), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["destinations"][0]["fleet"] == ["127.0.0.1:9", "127.0.0.1:10"]
    finally:
        gateway.kill()


@pytest.mark.parametrize(
    ("body", "cacheable"), [("", True), ("os.time()", False), ("conn:set_meta('a', 'b')", False)]
)  # fmt: skip
def test_whether_a_decision_is_kept_is_told(body, cacheable, tmp_path, capsys):
    policy = tmp_path / "init.lua"
    policy.write_text(f"""
        kumo.on('init', function() kumo.start_esmtp_listener {{ listen = '127.0.0.1:25' }} end)
        kumo.on('get_listener_domain', function(domain, listener, conn) {body} end)
        kumo.on('smtp_server_mail_from', function() end)
    """)
    asked = ["explain", "--policy", str(policy), "--from", "a@x.example", "--to", "b@y.example", "--json"]
    assert cli.main(asked) == 0
    events = json.loads(capsys.readouterr().out)["events"]
    assert [(event["event"], event["cacheable"]) for event in events[:2]] == [
        ("smtp_server_mail_from", False), ("get_listener_domain", cacheable)
    ]  # fmt: skip
    assert cli.main(asked[:-1]) == 0
    assert ("; not cached" in capsys.readouterr().out) is not cacheable


def test_what_a_running_gateway_cannot_answer_is_told_kindly(gateway, capsys):
    assert cli.main(live(gateway, "--listener", "127.0.0.1:1")) == 1
    assert "no listener 127.0.0.1:1; the policy has: 127.0.0.1:0, 127.0.0.2:0" in capsys.readouterr().err
    assert cli.main(["explain", "--admin", "127.0.0.1:1", "--from", "", "--to", "b@c.example"]) == 1
    assert "nothing listens there" in capsys.readouterr().err


@pytest.mark.parametrize("inquiry", [b"", b"[]", b"{}", b'{"sender": 1, "recipients": ["a"]}', b'{"unknown": 1}'])
def test_what_is_no_inquiry_is_refused(inquiry):
    with pytest.raises(ValueError, match="no question"):
        Answering(PolicySource.read(str(ROOT / "deploy/quickstart.lua"))).answer(inquiry)


# --- policies of a fleet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_policy_of_a_fleet_is_explained_where_it_runs(case, tmp_path, capsys):
    policy = at_home(case, tmp_path).put(tmp_path, 0)
    for expected in case.expected["replies"]:
        if "auth" in expected:  # nobody is asked here whether a password is right
            continue
        asked = ["--from", expected["from"], "--to", expected["to"], "--peer", "127.0.0.1"]
        if "data" in expected:
            (tmp_path / "message").write_bytes(expected["data"].encode())
            asked += ["--message", str(tmp_path / "message")]
        fleet = ["--fleet", "mta1:25,mta2:25", "--listen", "127.0.0.1:25"]
        assert cli.main(["explain", "--policy", str(policy), *fleet, *asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        told = " ".join(filter(None, map(str, found["reply"].values())))
        assert re.fullmatch(expected["reply"], f"{found['stage'].upper()} {told}"), (expected, told)
        assert all(destination["fleet"] == ["mta1:25", "mta2:25"] for destination in found["destinations"])
