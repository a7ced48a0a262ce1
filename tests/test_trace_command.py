"""`relay-gateway trace` at the wire: a real gateway with two workers, real clients, the command as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import INIT, TO_UPSTREAMS, Gateway, wait_until
from tests.ports import free_port

PASSWORD = "c0rrect-horse"
SHOUTED = "QUJDREVG"  # a password in base64 that looks like a command
POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = {} }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'in.example' or domain == 'other.example' then
    return kumo.make_listener_domain { relay_to = true }
  end
  conn:get_meta('copied')
end)
kumo.on('smtp_server_mail_from', function(sender)
  if sender.domain == 'bad.example' then
    kumo.reject(550, '5.7.1 go away')
  end
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn)
  conn:set_meta('copied', 'it is ' .. password)
  if authc == 'liar' then
    kumo.reject(535, '5.7.8 it is not ' .. password)
  end
  if authc == 'broken' then error('no ' .. password) end
  return password == 'c0rrect-horse'
end)
"""
TWO = ("--workers", "2")
CLIENTS = 12  # so many that either worker gets one, all but certainly


def in_capitals(command: str) -> str:
    """As RFC 5321 writes the beginning of MAIL and RCPT, of which smtplib has left a part small since Python 3.14."""
    return re.sub(r"\b(mail from|rcpt to):", lambda match: match[0].upper(), command, flags=re.IGNORECASE)


class Trace:
    """The running command, with --json unless options say otherwise."""

    def __init__(self, gateway: Gateway, *options: str, workers: int = 2, json: bool = True) -> None:
        where = "--admin", f"http://{gateway.announced()['http'][0]}"
        command = [sys.executable, "-m", "gateway", "trace", *where, *(["--json"] if json else []), *options]
        self.path = gateway.folder / f"trace-{len(list(gateway.folder.glob('trace-*')))}"
        with open(self.path, "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        word = '"watching"' if json else "watched from here on"
        wait_until(lambda: self.text().count(word) >= workers, self.text)

    def text(self) -> str:
        return self.path.read_text()

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        lines = [line for line in self.text().splitlines(keepends=True) if line.endswith("\n") and line[0] != "#"]
        events = [json.loads(line) for line in lines]
        return [event for event in events if kind is None or event["event"] == kind]

    def until(self, holds: Callable[[list[dict[str, Any]]], Any]) -> list[dict[str, Any]]:
        wait_until(lambda: holds(self.events()), self.text)
        return self.events()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def trace() -> Iterator[Callable[..., Trace]]:
    running: list[Trace] = []

    def begin(*arguments: Any, **options: Any) -> Trace:
        running.append(Trace(*arguments, **options))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def asked(gateway: Gateway, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    where = "--admin", f"http://{gateway.announced()['http'][0]}"
    command = [sys.executable, "-m", "gateway", "trace", *where, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def send(client: smtplib.SMTP, sender: str, *recipients: str, size: int = 10) -> dict[str, Any]:
    return client.sendmail(sender, recipients, f"Subject: x\r\n\r\n{'x' * size}\r\n")


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def closed(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: kinds(events).count("closed") >= count


def test_a_session_is_told_from_its_beginning_to_its_end(start, trace, sink):
    gateway = start(POLICY + TO_UPSTREAMS, *TWO, upstreams=[sink.address])
    watching = trace(gateway)
    with gateway.smtp() as client:
        refused = send(client, "a@b.example", "x@in.example", "y@far.example")
    assert list(refused) == ["y@far.example"]
    events = [event for event in watching.until(closed(1)) if event["event"] != "watching"]
    told = [
        (event["event"], in_capitals(event.get("command", "")) or event.get("code") or event.get("decision"))
        for event in events
    ]
    assert told == [
        ("connected", None), ("reply", 220),
        ("command", "EHLO client.example"), ("reply", 250),
        ("command", "MAIL FROM:<a@b.example> size=26"), ("policy", None), ("reply", 250),
        ("command", "RCPT TO:<x@in.example>"), ("policy", None), ("decision", "relay"), ("reply", 250),
        ("command", "RCPT TO:<y@far.example>"), ("policy", None), ("policy", None),
        ("decision", "denied"), ("reply", 550),
        ("command", "DATA"), ("reply", 354), ("content", None),
        ("message", None), ("handing_over", None), ("handed_over", None), ("reply", 250),
        ("command", "QUIT"), ("reply", 221), ("closed", None),
    ]  # fmt: skip
    assert {event["session"] for event in events} == {events[0]["session"]}
    assert {event["peer"] for event in events} == {events[0]["peer"]}
    assert [event["since"] for event in events] == sorted(event["since"] for event in events)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_kind.setdefault(event["event"], []).append(event)
    init = str(gateway.policy_file)
    mail_from, granted, *_ = by_kind["policy"]
    assert (mail_from["name"], mail_from["handler"]) == ("smtp_server_mail_from", f"{init}:13")
    assert (granted["name"], granted["domain"], granted["result"]) == (
        *("get_listener_domain", "in.example"), {"relay_to": True},
    )  # fmt: skip
    relay, denied = by_kind["decision"]
    assert (relay["because"], relay["handler"]) == ("relay_to is granted for in.example", f"{init}:7")
    assert denied["because"] == (
        "the peer is not in relay_hosts; nothing is granted for far.example; "
        "nothing is granted for b.example, the sender's domain"
    )
    assert by_kind["handing_over"][0]["fleet"] == [sink.address]
    [handed_over] = by_kind["handed_over"]
    assert handed_over["address"] == sink.address.rpartition(":")[0]
    assert [(each["recipient"], each["status"], each["code"]) for each in handed_over["recipients"]] == [
        ("x@in.example", "delivered", 250)
    ]
    assert by_kind["content"][0]["octets"] == 26
    assert by_kind["reply"][-2]["text"].startswith("OK ids=")


def test_all_workers_are_watched_and_what_is_cached_says_so(start, trace, sink):
    gateway = start(POLICY + TO_UPSTREAMS, *TWO, upstreams=[sink.address])
    watching = trace(gateway)
    for _ in range(CLIENTS):
        with gateway.smtp() as client:
            send(client, "a@b.example", "x@in.example")
            send(client, "a@b.example", "x@in.example")
    events = watching.until(closed(CLIENTS))
    assert {event["worker"] for event in events} == {0, 1}
    decisions = [event for event in events if event["event"] == "decision"]
    assert {event["cached"] for event in decisions} == {True, False}
    assert {event["handler"] for event in decisions} == {f"{gateway.policy_file}:7"}


def test_a_session_that_is_under_way_is_told_from_then_on(start, trace, sink):
    gateway = start(POLICY + TO_UPSTREAMS, *TWO, upstreams=[sink.address])
    client = gateway.smtp()
    client.ehlo()
    client.mail("a@b.example")
    client.rcpt("x@in.example")
    watching = trace(gateway)
    assert kinds(watching.events()) == ["watching"] * 2  # nothing has happened yet
    assert client.data("Subject: x\r\n\r\nx\r\n")[0] == 250
    client.quit()
    joined = watching.until(closed(1))[2]
    assert (joined["event"], joined["sender"], joined["recipients"]) == ("joined", "a@b.example", ["x@in.example"])
    assert joined["known"]["ehlo_domain"] == "client.example"
    assert joined["since"] > 0
    # whoever has been seen already is not told of again
    trace(gateway)
    with gateway.smtp() as another:
        send(another, "a@b.example", "x@in.example")
    assert kinds(watching.until(closed(2))).count("joined") == 1


def test_all_of_many_sessions_that_are_under_way_are_told_of(start, trace):
    gateway = start(POLICY, "--workers", "1")
    with ExitStack() as connections:
        clients = [connections.enter_context(gateway.connect()) for _ in range(250)]
        for client in clients:
            assert client.recv(3) == b"220"
        watching = trace(gateway, workers=1)
        for client in clients:
            client.sendall(b"NOOP\r\n")
        watching.until(lambda events: sum(event.get("command") == "NOOP" for event in events) == len(clients))
    assert kinds(watching.until(closed(len(clients)))).count("joined") == len(clients)


def test_filters_show_what_was_asked_for_and_nothing_else(start, trace, sink):
    gateway = start(POLICY + TO_UPSTREAMS, *TWO, upstreams=[sink.address])
    options = {
        "peer": ("--peer", "127.9.0.0/16"),
        "to": ("--to", "OTHER.example"),
        "refused": ("--refused",),
        "both": ("--refused", "--to", "far.example"),
        "terse": ("--terse",),
        "terse and refused": ("--terse", "--refused"),
        "terse to": ("--terse", "--to", "other.example"),
        "all": (),
    }
    traces = {name: trace(gateway, *each) for name, each in options.items()}
    with gateway.smtp() as client:
        send(client, "first@b.example", "x@in.example")
        send(client, "second@b.example", "x@other.example")
        send(client, "third@b.example", "x@in.example", "x@far.example")
        client.docmd("MAIL FROM:<fourth@bad.example>")
        send(client, "fifth@b.example", "x@in.example")
    with gateway.smtp("127.9.0.1") as client:
        client.noop()
    traces["all"].until(closed(2))
    traces["peer"].until(closed(1))

    def senders(name: str) -> list[str]:
        commands = (in_capitals(event.get("command", "")) for event in traces[name].events())
        found = (re.match(r"MAIL FROM:<(\w+)@", command) for command in commands)
        return [match[1] for match in found if match]

    assert {event["peer"].rpartition(":")[0] for event in traces["peer"].events() if "peer" in event} == {"127.9.0.1"}
    # what came before the first transaction belongs to each, what comes after one to that one
    assert senders("all") == ["first", "second", "third", "fourth", "fifth"]
    wait_until(lambda: "third" in senders("both"), traces["both"].text)
    wait_until(lambda: "fourth" in senders("refused"), traces["refused"].text)
    assert senders("to") == ["second"]
    assert "EHLO client.example" in traces["to"].text() and "handed_over" in traces["to"].text()
    assert senders("refused") == ["third", "fourth"]
    assert senders("both") == ["third"]
    summaries = traces["terse"].until(lambda events: kinds(events).count("transaction") == 5)
    assert [(e["sender"], e["recipients"], e["code"]) for e in summaries if e["event"] == "transaction"] == [
        ("first@b.example", ["x@in.example"], 250),
        ("second@b.example", ["x@other.example"], 250),
        ("third@b.example", ["x@in.example", "x@far.example"], 250),
        ("fourth@bad.example", [], 550),
        ("fifth@b.example", ["x@in.example"], 250),
    ]
    assert [(e.get("sender"), e.get("reason")) for e in traces["terse and refused"].events("transaction")] == [
        ("third@b.example", None), ("fourth@bad.example", "policy_reject"),
    ]  # fmt: skip
    assert [e["sender"] for e in traces["terse to"].events("transaction")] == ["second@b.example"]
    assert set(kinds(traces["terse"].events())) == {"watching", "transaction", "session"}


def test_a_person_gets_a_line_for_each_event_and_none_that_a_client_made(start, trace, sink):
    gateway = start(POLICY + TO_UPSTREAMS, *TWO, upstreams=[sink.address])
    whole, terse = trace(gateway, json=False), trace(gateway, "--terse", json=False)
    with gateway.smtp() as client:
        send(client, "a@b.example", "x@in.example")
        client.send("RCPT TO:<\x1b[31m\u202egotcha@in.example>\r\n".encode())
        assert client.getreply()[0] == 503
    wait_until(lambda: "closed" in whole.text() and "-> <x@in.example>" in terse.text(), whole.text)
    lines = [line for line in whole.text().splitlines() if not line.startswith("#")]
    prefix = r"\d\d:\d\d:\d\d\.\d{3} \+\d+\.\d{3} [0-9a-f]{8}-[0-9a-f-]{27} 127\.0\.0\.1:\d+ "
    assert [line for line in lines if not re.match(prefix, line)] == []
    told = [in_capitals(re.sub(prefix, "", line)) for line in lines]
    assert "< RCPT TO:<x@in.example>" in told
    assert "relay for <x@in.example>: relay_to is granted for in.example" in told
    assert any(
        re.match(r"policy get_listener_domain\(in\.example\) at \S+init\.lua:7: relay_to True", line) for line in told
    )
    assert any(line.startswith(f"=> fleet {sink.address}") for line in told)
    assert any("delivered <x@in.example> 250" in line for line in told)
    assert "\x1b" not in whole.text() and "\u202e" not in whole.text() and "gotcha" in whole.text()
    assert re.search(prefix + r"<a@b.example> -> <x@in.example> via \S+: 250 2\.0\.0 OK ids=", terse.text())


EVERY_EVENT = (
    POLICY
    + """
kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn) return {} end)
kumo.on('smtp_server_connection_accepted', function(conn) end)
kumo.on('smtp_server_ehlo', function(domain, conn, extensions) end)
kumo.on('smtp_server_rcpt_to', function(recipient, conn) end)
kumo.on('smtp_server_data', function(msg, conn) end)
kumo.on('smtp_server_message_received', function(msg, conn)
  msg:set_meta('queue', 'elsewhere')
  if msg:get_first_named_header_value('Subject') == 'fault' then error('no idea') end
end)
"""
)


def test_every_event_of_a_session_is_told_with_its_handler_and_a_fault_with_its_line(start, trace):
    gateway = start(EVERY_EVENT, "--workers", "1", upstreams=[])
    watching = trace(gateway, workers=1)
    with gateway.smtp() as client:
        client.ehlo()
        client.mail("a@b.example")
        client.rcpt("x@in.example")
        assert client.data("Subject: fault\r\n\r\nx\r\n")[0] == 451
    events = [event for event in watching.until(closed(1)) if event["event"] == "policy"]
    handlers = {event["name"]: int(event["handler"].rpartition(":")[2]) for event in events}
    first = EVERY_EVENT.count("\n", 0, EVERY_EVENT.index("kumo.on('smtp_server_get_dynamic")) + 1
    assert handlers == {
        "smtp_server_get_dynamic_parameters": first, "smtp_server_connection_accepted": first + 1,
        "smtp_server_ehlo": first + 2, "smtp_server_mail_from": 13, "get_listener_domain": 7,
        "smtp_server_rcpt_to": first + 3, "smtp_server_data": first + 4, "smtp_server_message_received": first + 5,
    }  # fmt: skip
    assert re.search(rf"init\.lua:{first + 7}: no idea", events[-1]["error"])


def test_a_hand_over_that_fails_says_where_and_why(start, trace):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    gateway = start(POLICY + TO_UPSTREAMS, "--workers", "1", upstreams=[f"127.0.0.1:{port}"])
    watching = trace(gateway, "--refused", workers=1)
    with gateway.smtp() as client:
        client.ehlo()
        client.mail("a@b.example")
        client.rcpt("x@in.example")
        assert client.data("Subject: x\r\n\r\nx\r\n")[0] == 451
    events = watching.until(closed(1))
    [handed_over] = [event for event in events if event["event"] == "handed_over"]
    [outcome] = handed_over["recipients"]
    assert (outcome["status"], outcome["reason"]) == ("transient", "upstream_unreachable")
    assert events[-4]["reason"] == "upstream_unreachable"


def test_what_the_spool_keeps_is_told_as_spooled(start, trace, tmp_path):
    fleet = f"127.0.0.1:{free_port()}"
    gateway = start(POLICY + TO_UPSTREAMS, "--workers", "1", "--spool", str(tmp_path / "spool"), upstreams=[fleet])
    watching = trace(gateway, workers=1)
    with gateway.smtp() as client:
        assert not send(client, "a@b.example", "x@in.example")
    events = watching.until(closed(1))
    [handed_over] = [event for event in events if event["event"] == "handed_over"]
    [outcome] = handed_over["recipients"]
    assert (outcome["status"], outcome["reason"]) == ("spooled", "upstream_unreachable")
    assert [event["code"] for event in events if event["event"] == "reply"][-2:] == [250, 221]


BOUNCE = (
    "From: <>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
    "--b\r\n\r\nno such user\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
    "Reporting-MTA: dns; mx.example\r\n\r\n"
    "Final-Recipient: rfc822; u@far.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"
)


def test_a_report_that_is_logged_and_goes_no_further_says_so(start, trace):
    logs = POLICY.replace("{ relay_to = true }", "{ log_oob = 'LogThenDrop' }")
    gateway = start(logs, "--workers", "1")
    watching = trace(gateway, workers=1)
    with gateway.smtp() as client:
        client.sendmail("", ["x@in.example"], BOUNCE)
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("a@b.example", ["x@in.example"], "Subject: none\r\n\r\nx\r\n")
    events = watching.until(closed(1))
    [message] = [event for event in events if event["event"] == "message"]
    assert (message["report"], message["goes_on"]) == ("oob", False)
    assert [(e["decision"], e["because"]) for e in events if e["event"] == "decision"] == [
        (
            "reports only",
            "reports are logged for in.example; the peer is not in relay_hosts; no relay_to for in.example; "
            f"nothing is granted for {sender}",
        )
        for sender in ("the null sender", "b.example, the sender's domain")
    ]
    assert [event.get("reason") for event in events if event.get("code", 0) >= 500] == ["not_a_report"]


# --- secrets ----------------------------------------------------------------------------------------------------------


def under_tls(gateway: Gateway) -> smtplib.SMTP:
    client = gateway.smtp()
    client.starttls(context=ssl._create_unverified_context())
    client.ehlo()
    return client


def test_no_secret_is_shown_in_whatever_form_a_client_sends_it(start, trace):
    gateway = start(POLICY, *TWO)
    before = under_tls(gateway)  # AUTH succeeds before anybody looks on
    plain = b64encode(f"\0user\0{PASSWORD}".encode()).decode()
    assert before.docmd("AUTH PLAIN", plain)[0] == 235
    watching, people = trace(gateway), trace(gateway, json=False)
    before.docmd("MAIL FROM:<a@b.example>")
    before.docmd("RCPT TO:<x@far.example>")
    before.quit()
    with under_tls(gateway) as client:
        liar = b64encode(f"\0liar\0{PASSWORD}".encode()).decode()
        assert client.docmd("AUTH PLAIN", liar)[0] == 535  # the policy tells it in its reply
        broken = b64encode(f"\0broken\0{PASSWORD}".encode()).decode()
        assert client.docmd("AUTH PLAIN", broken)[0] == 451
        assert client.docmd("AUTH PLAIN") == (334, b"")
        assert client.docmd(b64encode(b"\0user\0wrong" + PASSWORD.encode()).decode())[0] == 535
        assert client.docmd("AUTH PLAIN") == (334, b"")
        assert client.docmd(PASSWORD)[0] == 501
        assert client.docmd("auth plain", PASSWORD)[0] == 501
        assert client.docmd("AUTH LOGIN", b64encode(b"user").decode())[0] == 334
        assert client.docmd(b64encode(b"wrong" + PASSWORD.encode()).decode())[0] == 535
        assert client.docmd("AUTH CRAM-MD5", b64encode(b"user").decode())[0] == 504
        assert client.docmd(b64encode(PASSWORD.encode()).decode())[0] == 500
        assert client.docmd(PASSWORD)[0] == 500
        assert client.docmd(SHOUTED)[0] == 500
        assert client.docmd("AUTH", PASSWORD)[0] >= 500
        assert client.docmd("AUTH PLAIN") == (334, b"")
        assert client.docmd(plain)[0] == 235
        assert client.docmd("AUTH PLAIN", plain)[0] == 503
        client.docmd("MAIL FROM:<a@b.example>")
        client.docmd("AUTH PLAIN", plain)
        client.docmd("RCPT TO:<x@far.example>")
    with gateway.smtp() as client:  # in clear, where it is refused, and before EHLO
        assert client.docmd("AUTH PLAIN", plain)[0] >= 500
        client.ehlo()
        assert client.docmd("AUTH PLAIN", plain)[0] == 538
    events = watching.until(closed(3))
    recent = asked(gateway, "--recent", "--json").stdout + asked(gateway, "--recent").stdout
    assert "copied" in recent and "authn_id" in recent
    assert re.search(r"error: smtp_server_auth_plain: \S*init\.lua:\d+: no \*\*\*", recent), recent
    assert [event["command"] for event in events if event.get("command") == "***"]
    assert next(event["text"] for event in events if event.get("code") == 535) == "it is not ***"
    wait_until(lambda: people.text().count("closed") >= 3, people.text)
    encoded = [b64encode(secret).decode().rstrip("=") for secret in (
        PASSWORD.encode(), b"wrong" + PASSWORD.encode(),
        f"user\0{PASSWORD}".encode(), f"\0user\0{PASSWORD}".encode(), f"\0liar\0{PASSWORD}".encode(),
        f"\0broken\0{PASSWORD}".encode(),
    )]  # fmt: skip
    for text in (watching.text(), people.text(), recent):
        assert [secret for secret in (PASSWORD, SHOUTED, *encoded) if secret in text] == []
        assert "***" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_other_user_looks_in_at_a_workers_window(start, trace):
    gateway = start(POLICY, "--workers", "1")
    trace(gateway, workers=1)
    [worker] = gateway.workers()
    inodes = {os.readlink(path)[8:-1] for path in Path(f"/proc/{worker}/fd").iterdir() if path.is_symlink()}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    [window] = {row[7] for row in rows if row[6] in inodes and row[7:] and row[3] == "00010000"}  # those that listen
    look = (
        "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); "
        's.connect(sys.argv[1].replace(\'@\', chr(0))); s.sendall(b\'{"ask": "recent", "wanted": [["x", ""]]}\\n\'); '
        "print(s.recv(100))"
    )

    def answer(user: str) -> str:
        command = [sys.executable, "-S", "-c", look, window, user]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    assert "not understood: x: expected one of peer, to, refused, terse" in answer("0")
    assert answer("65534") in ("", "b''\n")  # reset, or closed


# --- slow, gone, dead -------------------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def slow_reader(gateway: Gateway) -> socket.socket:
    host, _, port = gateway.announced()["http"][0].rpartition(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(30)
    reader.connect((host, int(port)))
    reader.sendall(b"GET /trace HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reader.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"
    return reader


def test_who_reads_slowly_is_told_what_is_missing_and_nobody_else_notices(start, trace):
    patient = POLICY.replace("relay_hosts", "limits = { idle_commands = 100000 }, relay_hosts", 1)
    gateway = start(patient, "--workers", "1")
    with slow_reader(gateway) as reader:
        fast = trace(gateway, "--refused", workers=1)
        before = {process: resident(process) for process in gateway.children()}  # the worker, and admin
        assert len(before) == 2
        commands = 40_000  # some 200 octets and more for each, twice
        with gateway.connect() as client:
            client.settimeout(30)
            replies = client.makefile("rb")
            client.sendall(b"EHLO client.example\r\n")
            while (
                not replies.readline().startswith((b"220", b"250 ")) or b"STARTTLS" not in replies.peek(1) + b"STARTTLS"
            ):
                pass
            for _ in range(commands // 100):
                client.sendall(b"NOOP\r\n" * 100)
                for _ in range(100):
                    while not replies.readline().startswith(b"250 "):
                        pass
            replies.close()
        assert [grown for pid, size in before.items() if (grown := resident(pid) - size) >= 8 << 20] == []
        received = bytearray()
        while not (dropped := re.search(rb'"event":"dropped","worker":0,"count":(\d+)}', received)):
            data = reader.recv(1 << 20)
            assert data, "the stream ended"
            received += data
        count = int(dropped[1])
        shown = received.count(b'"NOOP"')
        assert 0 < shown < commands
        assert commands < 2 * shown + count + 100 and count > commands / 2
    assert fast.process.poll() is None


def sockets_of(pid: int) -> int:
    return sum("socket:" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())


def test_who_goes_away_ends_it_in_every_worker(start, trace):
    gateway = start(POLICY, *TWO)
    workers = gateway.workers()
    before = [sockets_of(worker) for worker in workers]
    watching = trace(gateway)
    assert [sockets_of(worker) for worker in workers] == [count + 1 for count in before]
    watching.stop()
    wait_until(lambda: [sockets_of(worker) for worker in workers] == before, "the workers' sockets closed")


def test_a_worker_that_dies_is_told_and_the_next_one_is_watched(start, trace):
    gateway = start(POLICY, *TWO)
    watching = trace(gateway)
    victim = gateway.workers()[0]
    os.kill(victim, signal.SIGKILL)
    watching.until(lambda events: kinds(events).count("watching") == 3)
    assert [event["pid"] for event in watching.events("gone")] == [victim]
    for _ in range(CLIENTS):
        with gateway.smtp() as client:
            client.noop()
    events = watching.until(closed(CLIENTS))
    assert {event["worker"] for event in events if event["event"] == "closed"} == {0, 1}


@pytest.mark.parametrize("request_it", [signal.SIGHUP, signal.SIGUSR2])
def test_a_reload_and_an_upgrade_are_outlived(start, trace, request_it):
    gateway = start(POLICY, *TWO)
    held = gateway.smtp()
    held.ehlo()
    watching = trace(gateway)
    gateway.write_policy(POLICY.replace("5.7.1 go away", "5.7.1 go far away"))
    gateway.process.send_signal(request_it)
    gateway.announced(epoch=2)
    wait_until(lambda: "asking again" in watching.text(), watching.text)
    watching.until(lambda events: kinds(events)[-1] == "watching" and kinds(events).count("watching") >= 4)
    with gateway.smtp() as client:
        client.ehlo()
        client.docmd("MAIL FROM:<a@bad.example>")
    watching.until(lambda events: any(event.get("text") == "go far away" for event in events))
    held.close()
    if request_it == signal.SIGUSR2:
        return  # the rest takes its time
    gateway.stop()
    assert watching.process.wait(30) == 1
    assert "nothing listens there; is the gateway running?" in watching.text()


def test_only_so_many_look_on_at_a_time(start):
    gateway = start(POLICY, *TWO)
    readers = [slow_reader(gateway) for _ in range(8)]
    result = asked(gateway)
    assert (result.returncode, result.stdout) == (1, "")
    assert "8 others look on already" in result.stderr
    for reader in readers:
        reader.close()
    wait_until(lambda: asked(gateway, "--recent").returncode == 0, "room again")


# --- what was refused before ------------------------------------------------------------------------------------------


def test_the_last_refusals_are_there_before_anybody_asks(start):
    gateway = start(POLICY, *TWO)
    for number in range(CLIENTS):
        with gateway.smtp(f"127.0.0.{number + 1}") as client:
            client.ehlo()
            client.docmd(f"MAIL FROM:<{number}@b.example>")
            client.docmd("RCPT TO:<x@far.example>")
            client.docmd("RCPT TO:<x@near.example>")
            client.docmd("RSET")
            client.docmd("MAIL FROM:<a@bad.example>")
    result = asked(gateway, "--recent", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(events) == 3 * CLIENTS
    assert {event["worker"] for event in events} == {0, 1}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    first, _, third = events[:3]
    assert (first["command"], first["reason"], first["sender"]) == (
        *("RCPT TO:<x@far.example>", "relay_denied", "0@b.example"),
    )  # fmt: skip
    assert first["because"].startswith("the peer is not in relay_hosts; nothing is granted for far.example; ")
    assert (third["reason"], third["rule"]) == ("policy_reject", f"{gateway.policy_file}:15")
    by_peer = asked(gateway, "--recent", "--peer", "127.0.0.3").stdout
    head, *refusals = by_peer.splitlines()
    assert re.match(r"[0-9a-f-]{36} 127\.0\.0\.3:\d+ to 127\.0\.0\.1:\d+: .*ehlo_domain client\.example", head)
    assert [line.split()[1] for line in refusals] == ["RCPT", "RCPT", "MAIL"]
    assert all(line.startswith("  20") for line in refusals)
    to_far = asked(gateway, "--recent", "--to", "far.example", "--terse").stdout.splitlines()
    assert len(to_far) == CLIENTS and all("550 5.7.1 relaying not permitted" in line for line in to_far)


def test_a_connection_that_is_turned_away_is_told_and_kept(start, trace):
    policy = POLICY.replace("relay_hosts = {}", "relay_hosts = {}, max_connections = 1")
    gateway = start(policy, "--workers", "1")
    watching = trace(gateway, workers=1)
    with gateway.smtp(), gateway.connect() as second:
        assert second.recv(3) == b"421"
    events = watching.until(lambda events: any(event.get("reason") for event in events))
    assert [event["reason"] for event in events if "reason" in event] == ["too_many_connections"]
    [kept] = [json.loads(line) for line in asked(gateway, "--recent", "--json").stdout.splitlines()]
    assert (kept["reason"], kept["peer_address"]) == ("too_many_connections", "127.0.0.1")


# --- nobody to ask ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_said_kindly(start, tmp_path):
    gateway = start(POLICY.replace("listen = HTTP", "listen = HTTP, trusted_hosts = { '192.0.2.1' }"), *TWO)
    said = f"http://{gateway.announced()['http'][0]}: 127.0.0.1 is not in this listener's trusted_hosts"
    assert asked(gateway).stderr == f"relay-gateway trace: {said}\n"
    wrong = asked(gateway, "--peer", "127.0.0.1/99")
    assert wrong.returncode == 2 and "--peer: " in wrong.stderr and "127.0.0.1/99" in wrong.stderr
    wrong = asked(gateway, "--to", "a..b")
    assert wrong.returncode == 2 and wrong.stderr.startswith("relay-gateway trace: --to=a..b: ")
    assert gateway.get("/trace?nonsense=1")[0] == 403
    silent = tmp_path / "silent.lua"
    silent.write_text("")
    command = [sys.executable, "-m", "gateway", "trace", "--policy", str(silent)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1 and "has no HTTP listener" in result.stderr


def test_a_query_that_is_none_is_refused(start):
    gateway = start(INIT)
    for query, said in (
        ("nonsense=1", "nonsense: expected one of peer, to, refused, terse"),
        ("refused=x", "refused=x: expected 1 or 0"),
        ("&".join(["to=a.example"] * 65), "at most 64 peers and 64 domains"),
    ):
        for path in ("/trace", "/trace/recent"):
            assert gateway.get(f"{path}?{query}") == (400, f"{said}\n")
