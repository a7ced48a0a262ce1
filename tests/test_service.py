"""The service as operators meet it: stopping, reloading, dying workers, limits, the quickstart, and above all the
delivery contract: what got a 250 is where it belongs, whatever is killed meanwhile.
"""

from __future__ import annotations

import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dialogue import ScriptedUpstream
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, TO_UPSTREAMS, Gateway, wait_until

ROOT = Path(__file__).parent.parent
OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
CLOSED = INIT


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    yield scripted
    scripted.stop()


def begin_data(session: smtplib.SMTP) -> None:
    """A transaction up to the middle of its content."""
    session.ehlo()
    session.mail("a@out.example")
    assert session.rcpt("b@far.example")[0] == 250
    assert session.docmd("DATA")[0] == 354
    session.send("Subject: under way\r\n\r\nfirst half\r\n")


def finish_data(session: smtplib.SMTP) -> tuple[int, bytes]:
    session.send("second half\r\n.\r\n")
    return session.getreply()


def is_closed(session: smtplib.SMTP) -> bool:
    """Whether the server has closed; the client then does so, too."""
    assert session.sock is not None
    closed = session.sock.recv(1) == b""
    session.close()
    return closed


def refuses_connections(gateway: Gateway) -> bool:
    try:
        socket.create_connection(gateway.address, PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


# --- readiness --------------------------------------------------------------------------------------------------------


def becomes(gateway: Gateway, status: int, answer: str) -> None:
    """Waits until /readyz has this status, and says this of the first listener."""
    listener = gateway.announced()["smtp"][0]

    def holds() -> bool:
        found, text = gateway.get("/readyz")
        return found == status and f"\n{listener}: {answer}\n" in text

    wait_until(holds, lambda: f"{status} {answer}: {gateway.get('/readyz')}")


def greeting(gateway: Gateway) -> bytes:
    with gateway.connect() as client:
        return client.recv(3)


def test_a_full_log_disk_is_told_by_readiness_as_it_is_to_clients(start):
    gateway = start(OPEN.replace("min_free_space = 0", "min_free_space = '100%'"), "--workers", "2")
    becomes(gateway, 503, "storage")
    assert greeting(gateway) == b"421"
    assert gateway.get("/healthz")[0] == 200


def test_a_log_directory_that_goes_away_is_told_by_readiness(start, monkeypatch):
    gateway = start(OPEN, "--workers", "1")
    becomes(gateway, 200, "ok")
    gateway.logs.rename(gateway.folder / "elsewhere")
    gateway.logs.write_text("a file where a directory should be")
    becomes(gateway, 503, "storage")
    assert greeting(gateway) == b"421"
    gateway.logs.unlink()
    becomes(gateway, 200, "ok")
    assert greeting(gateway) == b"220"


def test_readiness_is_told_by_listener(start):
    second = "kumo.start_esmtp_listener { listen = LISTEN, max_connections = 1 }\n  kumo.start_http"
    gateway = start(OPEN.replace("kumo.start_http", second), "--workers", "1")
    _, full = gateway.announced()["smtp"]
    host, _, port = full.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        assert client.recv(3) == b"220"
        wait_until(lambda: f"\n{full}: too_many_connections\n" in gateway.get("/readyz")[1], "one listener is full")
        becomes(gateway, 503, "ok")
        assert gateway.get(f"/readyz?listener={full}")[0] == 503
        assert gateway.get(f"/readyz?listener={gateway.announced()['smtp'][0]}")[0] == 200
    wait_until(lambda: gateway.get("/readyz")[0] == 200, "both take connections")


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_sigterm_ends_idle_sessions_and_lets_a_transaction_finish(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "2")
    idle, busy = gateway.smtp(), gateway.smtp()
    idle.ehlo()
    begin_data(busy)
    gateway.process.terminate()
    assert idle.getreply() == (421, b"4.3.2 gw.example shutting down")
    assert is_closed(idle)
    wait_until(lambda: refuses_connections(gateway), "connections are refused")
    assert finish_data(busy)[0] == 250
    assert busy.getreply() == (421, b"4.3.2 gw.example shutting down")
    assert is_closed(busy)
    assert gateway.process.wait(PATIENCE) == 0
    assert [mail.endswith(b"first half\r\nsecond half\r\n") for mail in gateway.mails()] == [True]
    types = [record["type"] for record in gateway.records() if record["response"]["code"] != 421]
    assert types == ["Reception", "Delivery"]


def test_sigterm_ends_a_session_under_tls_whose_client_does_not_react(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "1", "--drain-timeout", "3600")
    silent = gateway.smtp()
    silent.starttls()
    silent.ehlo()
    assert gateway.stop() == 0


def test_sigterm_waits_for_the_fleets_answer(start, upstream):
    gateway = start(OPEN + TO_UPSTREAMS, "--workers", "1", upstreams=[upstream.address])
    session = gateway.smtp()
    begin_data(session)
    session.send("second half\r\n.\r\n")
    upstream.expect("~^MAIL FROM:<a@out.example>")
    gateway.process.terminate()
    wait_until(lambda: refuses_connections(gateway), "connections are refused")
    for answer in ("250 ok", "250 ok", "354 go"):
        upstream.say(answer)
    upstream.expect("...")
    upstream.expect(".")
    upstream.say("250 queued")
    assert session.getreply()[0] == 250
    assert session.getreply()[0] == 421
    assert is_closed(session)
    upstream.expect("QUIT")
    upstream.close()
    assert gateway.process.wait(PATIENCE) == 0


def test_the_drain_deadline_ends_what_does_not_finish(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "1", "--drain-timeout", "0.1")
    session = gateway.smtp()
    begin_data(session)
    assert gateway.stop() == 0
    assert is_closed(session)
    assert gateway.mails() == []


# --- reloading --------------------------------------------------------------------------------------------------------


def relays(session: smtplib.SMTP) -> bool:
    """Whether the session's policy takes mail for others."""
    session.ehlo_or_helo_if_needed()
    session.mail("a@out.example")
    code = session.rcpt("b@far.example")[0]
    session.quit()
    return {250: True, 550: False}[code]


def test_once_a_policy_is_announced_every_new_connection_meets_it_and_a_transaction_under_way_keeps_the_old(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "2")
    busy = gateway.smtp()
    begin_data(busy)
    gateway.reload(CLOSED + TO_MAILDIR)
    gateway.announced(epoch=2)
    assert [relays(gateway.smtp()) for _ in range(20)] == [False] * 20
    assert finish_data(busy)[0] == 250
    assert busy.getreply()[0] == 421
    assert gateway.metric('policy_reloads_total{result="ok"}') == 1


def test_a_policy_is_not_announced_while_a_worker_of_the_one_before_might_accept(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "1")
    (old,) = gateway.workers()
    os.kill(old, signal.SIGSTOP)
    gateway.reload(CLOSED + TO_MAILDIR)
    assert not relays(gateway.smtp())  # waits at the slot's socket until the new worker accepts
    wait_until(lambda: has_pending(old, signal.SIGTERM), "the old worker is told")
    assert gateway.metric("policy_epoch") == 1
    assert gateway.announced()["epoch"] == 1
    os.kill(old, signal.SIGCONT)
    gateway.announced(epoch=2)
    assert gateway.metric("policy_epoch") == 2
    assert [relays(gateway.smtp()) for _ in range(20)] == [False] * 20


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process has been sent that signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^S\w+Pnd:\s*(\w+)", status, re.MULTILINE))


def test_a_bad_policy_changes_nothing_and_is_told(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "1")
    session = gateway.smtp()
    session.ehlo()
    gateway.reload("kumo.on('init', function() kumo.start_esmtp_listener { listne = LISTEN } end)")
    wait_until(lambda: gateway.metric('policy_reloads_total{result="failed"}') == 1, "the failed reload is counted")
    assert session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n") == {}
    assert gateway.get("/readyz")[0] == 200
    assert gateway.metric("policy_epoch") == 1
    assert "listne" in gateway.diagnostics()
    gateway.reload(OPEN + TO_MAILDIR)
    gateway.announced(epoch=2)


def test_no_client_is_turned_away_while_policies_change(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "2")
    stop, sent, failures = threading.Event(), [], []

    def send_on() -> None:
        while not stop.is_set():
            try:
                with gateway.smtp() as session:
                    session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
                sent.append(1)
            except smtplib.SMTPResponseException as error:
                if error.smtp_code != 421:  # which says "come again"
                    failures.append(error)
            except smtplib.SMTPServerDisconnected:
                pass  # behind a 421
            except OSError as error:
                failures.append(error)

    gateway.announced()
    thread = threading.Thread(target=send_on)
    thread.start()
    for epoch in (2, 3, 4):
        seen = len(sent)
        gateway.reload(OPEN + TO_MAILDIR)
        gateway.announced(epoch)
        wait_until(lambda seen=seen: len(sent) > seen + 5, "messages went on")
    stop.set()
    thread.join()
    assert failures == []
    assert len(gateway.mails()) >= len(sent)


# --- workers that die -------------------------------------------------------------------------------------------------


def test_a_killed_workers_clients_wait_at_its_socket_and_are_served(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "1")
    with gateway.smtp() as session:
        session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
    wait_until(lambda: gateway.metric("connections_open") == 0, "the connection is counted as closed")
    before = gateway.get("/metrics")[1]
    (pid,) = gateway.workers()
    os.kill(pid, signal.SIGKILL)
    with gateway.smtp() as session:  # the socket is the supervisor's: it goes on listening
        session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
    (replacement,) = gateway.workers()
    assert replacement != pid
    assert gateway.metric("worker_restarts_total") == 1
    assert gateway.metric('messages_total{disposition="relayed"}') == 2
    counter = re.compile(r"^(relay_gateway_\w+_total(?:\{.*\})?) (\S+)$", re.MULTILINE)
    after = dict(counter.findall(gateway.get("/metrics")[1]))
    went_down = [name for name, value in counter.findall(before) if float(after[name]) < float(value)]
    assert went_down == []
    assert f"worker-0[{pid}] died" in gateway.diagnostics()


# --- limits that need a clock or neighbours ---------------------------------------------------------------------------


def test_an_idle_client_is_told_so_and_sent_away(start):
    gateway = start(OPEN.replace("hostname =", "client_timeout = 0.2, hostname ="), "--workers", "1")
    session = gateway.smtp()
    assert session.getreply() == (421, b"4.4.2 gw.example idle too long")
    assert is_closed(session)
    wait_until(lambda: [r["reason"] for r in gateway.records()] == ["idle_timeout"], "a Rejection is logged")


def test_connections_over_the_limit_are_turned_away(start):
    gateway = start(OPEN.replace("hostname =", "max_connections = 1, hostname ="), "--workers", "1")
    with gateway.smtp():
        with pytest.raises(smtplib.SMTPConnectError) as refused:
            gateway.smtp()
        assert refused.value.smtp_code == 421
    wait_until(lambda: gateway.metric("connections_open") == 0, "the place is free again")
    with gateway.smtp() as session:
        session.noop()
    assert gateway.metric('connections_refused_total{reason="too_many_connections"}') == 1
    (record,) = wait_until(gateway.records, "a Rejection is logged")
    assert (record["reason"], record["response"]["code"]) == ("too_many_connections", 421)
    assert record["peer_address"] == {"name": "", "addr": "127.0.0.1"}


def test_a_message_in_many_portions_and_of_many_megabytes_arrives_whole(start, sink):
    gateway = start(OPEN + TO_UPSTREAMS, "--workers", "1", upstreams=[sink.address])
    lines = [b"%d " % n + b"x" * (n % 900) for n in range(30_000)]
    content = b"Subject: big\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"
    with gateway.smtp() as session:
        session.sendmail("a@out.example", "b@far.example", content)
    assert [mail.endswith(content) for mail in sink.mails()] == [True]


# --- the quickstart ---------------------------------------------------------------------------------------------------


def test_the_quickstart_does_what_the_readme_says(start):
    policy = (ROOT / "deploy" / "quickstart.lua").read_text()
    for port in ("2525", "8025"):
        assert f"'127.0.0.1:{port}'" in policy
        policy = policy.replace(f"'127.0.0.1:{port}'", "'127.0.0.1:0'")
    gateway = start(policy)
    with gateway.smtp() as session:
        session.sendmail("me@sender.example", "you@example.com", "Subject: first\r\n\r\nHello")
    (stored,) = (gateway.folder / "var" / "maildir" / "new").iterdir()
    assert b"\nReceived: from" in b"\n" + stored.read_bytes()

    def printed() -> list[str]:
        command = [sys.executable, "-m", "gateway", "logs", str(gateway.folder / "var" / "log")]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.findall(r'"type": ?"(\w+)"', out)

    wait_until(lambda: printed() == ["Reception", "Delivery"], "both records")
    assert gateway.metric('messages_total{disposition="relayed"}') == 1
    assert gateway.stop() == 0


# --- the delivery contract --------------------------------------------------------------------------------------------

DSN = """From: MAILER-DAEMON@far.example
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.far.example

Final-Recipient: rfc822; {}@far.example
Action: failed
Status: 5.1.1

--b--
""".replace("\n", "\r\n")
LOG_THEN_DROP = """
kumo.on('get_listener_domain', function(domain)
  return kumo.make_listener_domain { log_oob = 'LogThenDrop' }
end)
"""


class Load:
    """Clients that try each message until it gets its 250. Every attempt has a name of its own."""

    def __init__(self, gateway: Gateway, content: str, *, clients: int = 4, each: int = 60) -> None:
        gateway.announced()
        self._gateway, self._content, self._each = gateway, content, each
        self.acknowledged: list[str] = []
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self, number: int) -> None:
        session: smtplib.SMTP | None = None
        done = attempt = 0
        while done < self._each:
            attempt += 1
            name = f"m-{number}-{attempt}-"
            try:
                session = session or self._gateway.smtp()
                session.sendmail("", "b@far.example", self._content.format(name))
            except (smtplib.SMTPException, OSError):  # refused for now, or cut off: once more
                if session is not None:
                    session.close()
                session = None
                continue
            done += 1
            with self._changed:
                self.acknowledged.append(name)
                self._changed.notify()
        if session is not None:
            session.close()

    def until(self, count: int) -> None:
        """Waits for so many acknowledged messages."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.acknowledged) >= count, PATIENCE)

    def finish(self) -> list[str]:
        for thread in self._threads:
            thread.join(PATIENCE)
        return self.acknowledged


def under_fire(gateway: Gateway, content: str, fault: Callable[[], object], times: int = 4) -> list[str]:
    """The acknowledged attempts of a load during which `fault` strikes at random moments."""
    load = Load(gateway, content)
    for moment in sorted(random.sample(range(10, 200), times)):
        load.until(moment)
        fault()
    return load.finish()


def kill_a_worker(gateway: Gateway) -> Callable[[], None]:
    def kill() -> None:
        worker = random.choice(wait_until(gateway.workers, "a worker"))
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in gateway.workers(), "its death, so that nobody is killed twice")

    return kill


def missing(acknowledged: list[str], found: list[bytes]) -> list[str]:
    everything = b"\0".join(found)
    return [name for name in acknowledged if name.encode() not in everything]


SIMPLE = "Subject: {}\r\n\r\n" + "text\r\n" * 300


def test_no_message_with_a_250_is_lost_when_workers_are_killed(start, sink):
    gateway = start(OPEN + TO_UPSTREAMS, "--workers", "2", upstreams=[sink.address])
    acknowledged = under_fire(gateway, SIMPLE, kill_a_worker(gateway))
    assert len(acknowledged) == 240
    assert missing(acknowledged, sink.mails()) == []
    wait_until(lambda: gateway.metric("worker_restarts_total") == 4, "a new worker for each that died")


def test_no_message_with_a_250_is_lost_from_a_maildir(start):
    gateway = start(OPEN + TO_MAILDIR, "--workers", "2")
    acknowledged = under_fire(gateway, SIMPLE, kill_a_worker(gateway))
    assert missing(acknowledged, gateway.mails()) == []
    assert all(mail.endswith(b"text\r\n" * 300) for mail in gateway.mails())


def test_no_dropped_report_with_a_250_is_without_its_record(start):
    gateway = start(CLOSED + LOG_THEN_DROP, "--workers", "2")
    acknowledged = under_fire(gateway, DSN, kill_a_worker(gateway))
    for pid in gateway.workers():  # nothing that waits in memory counts
        os.kill(pid, signal.SIGKILL)
    recorded = [record["recipient"].encode() for record in gateway.records() if record["type"] == "OOB"]
    assert missing(acknowledged, recorded) == []
