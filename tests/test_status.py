"""The status page, `relay-gateway status` and `top`: what they show, to whom; that no stranger's text does anything."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin import html, status_command
from gateway.admin.following import MOST_EVENTS, MOST_SESSIONS, Ways
from gateway.admin.history import History, quantile
from gateway.admin.status_command import StatusCommand, lines_of
from gateway.cli import main
from gateway.service.announcement import first_steps
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, TO_UPSTREAMS, Gateway, wait_until
from tests.test_admin import AdminProcess
from tests.test_metrics import new_page

HOSTILE = "<img/src=x/onerror=alert(1)>\"'&\u202e"
POLICY = (
    INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
    + """
kumo.on('smtp_server_mail_from', function(from)
  if from.domain == 'refused.example' then kumo.reject(550, [[5.7.1 </pre><script>alert(1)</script>]]) end
end)
"""
    + TO_MAILDIR
)
TAGS = {
    "a", "b", "body", "div", "h1", "h2", "head", "html", "link", "main", "meta", "meter", "nav", "p", "pre", "script",
    "section", "span", "style", "table", "tbody", "td", "th", "title", "tr",
}  # fmt: skip
ATTRIBUTES = {"class", "charset", "content", "high", "href", "id", "lang", "name", "optimum", "rel", "value"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("status"), POLICY, "--workers", "2")
    yield running
    running.kill()


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text += data


def talk(gateway: Gateway, *lines: str) -> str:
    """What the server answers to lines that are sent one by one."""
    with gateway.connect() as client, client.makefile("rb") as replies:
        said = replies.readline()
        for line in lines:
            client.sendall(line.encode() + b"\r\n")
            while True:
                reply = replies.readline()
                said += reply
                if reply[3:4] != b"-":
                    break
        return said.decode()


def page_of(gateway: Gateway) -> str:
    status, text = gateway.get("/")
    assert status == 200
    return text


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_way_of_a_message_is_shown_to_who_looks(gateway):
    page_of(gateway)
    name = "way.example"
    wait_until(lambda: json.loads(gateway.get("/status")[1])["following"]["on"], "it is followed")
    reply = talk(gateway, f"EHLO {name}", f"MAIL FROM:<a@{name}>", f"RCPT TO:<b@{name}>", "DATA", "x\r\n.", "QUIT")
    found = re.search(r"ids=(\w+)", reply)
    assert found, reply
    parts = [
        found[1],
        f"RCPT TO:<b@{name}>",  # what was said
        "the peer is in relay_hosts",  # why it was accepted
        "=> Maildir",  # where it went
        "250 2.0.0 OK",
        "relay-gateway logs -m",
        "Reception ",  # what was written of it
        "Delivery ",
    ]

    def missing() -> list[str]:
        text = Tags(page_of(gateway)).text
        return [part for part in parts if part not in text]

    wait_until(lambda: not missing(), lambda: f"on the page: {missing()}")


def test_numbers_are_in_the_page_without_javascript(gateway):
    page_of(gateway)
    talk(gateway, "EHLO x.example", "MAIL FROM:<a@refused.example>", "QUIT")

    def counted() -> Any:
        rows = re.findall(r"<td>policy_reject</td><td>mail</td><td class=\"n\">(\d+)</td>", page_of(gateway))
        return rows and int(rows[0]) >= 1

    wait_until(counted, "the refusal among those of the last minute")
    text = Tags(page_of(gateway)).text
    for part in ("ready", "messages/s", "Limits", gateway.announced()["smtp"][0], str(gateway.policy_file)):
        assert part in text


def test_what_strangers_write_is_text_and_nothing_else(gateway):
    page_of(gateway)
    for _ in range(2):
        talk(
            gateway,
            f"EHLO {HOSTILE}",
            "EHLO x.example",
            f'MAIL FROM:<"{HOSTILE}"@a.example> {HOSTILE}',
            f"RCPT TO:<{HOSTILE}>",
            "MAIL FROM:<a@refused.example>",
            HOSTILE,
            "QUIT",
        )
    wait_until(lambda: "onerror" in page_of(gateway), "the strangers' texts")
    for text in (page_of(gateway), html.fragment(json.loads(gateway.get("/status")[1]))):
        page = Tags(text)
        assert page.tags <= TAGS
        assert page.attributes <= ATTRIBUTES
        assert page.scripts <= 1
    assert "<img" not in page_of(gateway)
    assert "\u202e" not in page_of(gateway)


def test_a_refusal_leads_to_what_the_policy_makes_of_it(gateway):
    talk(gateway, "EHLO x.example", "MAIL FROM:<a@refused.example>", "QUIT")
    link = wait_until(
        lambda: re.search(r'a@refused.example</td>.*?href="(/status/refused\?[^"]*)"', page_of(gateway)), "the refusal"
    )[1].replace("&amp;", "&")
    status, text = gateway.get(link)
    assert status == 200
    assert "policy_reject, at mail" in Tags(text).text
    assert Tags(text).scripts == 0
    assert gateway.get("/status/refused?session=none")[0] == 404


def test_browsers_are_told_to_run_nothing_but_the_pages_own_script(gateway):
    host, _, port = gateway.announced()["http"][0].rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request("GET", "/")
    response = connection.getresponse()
    policy, text = response.headers["Content-Security-Policy"], response.read().decode()
    connection.close()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"https?://(127\.0\.0\.1|\[::1\])[:\d]*", "", text)  # nothing from elsewhere


def test_events_bring_the_page_anew_and_end_with_the_process(gateway):
    host, _, port = gateway.announced()["http"][0].rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request("GET", "/status/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    try:
        for _ in range(2):
            line = response.readline()
            assert line.startswith(b"data: ")
            assert json.loads(line[6:]).startswith("<p>")
            assert response.readline() == b"\n"
        epoch = gateway.announced()["epoch"]
        gateway.reload(POLICY)
        gateway.announced(epoch=epoch + 1)
        while response.readline():
            pass
    finally:
        connection.close()


def test_only_trusted_hosts_see_what_happens(tmp_path):
    running = AdminProcess(("127.0.0.1",), ("192.0.2.0/24",))
    try:
        assert "Limits" in running.status("/")[1]
        assert "Limits" not in running.status("/", listener=1)[1]
        assert "/metrics" in running.status("/", listener=1)[1]
        for path in ("/status", "/status/events", "/status/refused"):
            assert running.status(path, listener=1)[0] == 403
        for path in ("/operator/fleet", "/operator/spool"):
            assert running.status(path, listener=1, method="POST")[0] == 403
        assert running.status("/status", method="POST")[0] == 405
    finally:
        assert running.stop() == 0


def test_a_busy_gateway_is_not_followed(tmp_path):
    running = AdminProcess(("127.0.0.1",))

    def busy() -> bool:
        running.pages[2].add(metrics.CONNECTIONS_OPENED.slot(), 10_000)
        return not json.loads(running.status("/status")[1])["following"]["on"]

    try:
        wait_until(busy, "it is not followed any more")
        assert "too much happens" in running.status("/")[1]
    finally:
        assert running.stop() == 0


def test_a_browser_shows_it_live_and_runs_no_strangers_script(gateway, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("NOT CHECKED: chromium is not installed (Debian: chromium)")
    talk(gateway, f"EHLO {HOSTILE}", "EHLO x.example", "MAIL FROM:<a@refused.example>", "QUIT")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    address = f"http://{gateway.announced()['http'][0]}/"
    for patience in (5, 10, 20):  # seconds that it loads and waits; a busy machine takes its time
        done = subprocess.run(
            [*command, f"--timeout={patience * 1000}", address],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE + patience,
        )
        page = Tags(done.stdout)
        if "· live" in page.text:
            break
    assert "· live" in page.text, done.stderr
    assert page.tags <= TAGS
    assert "alert(1)" in page.text


def test_members_of_the_fleet_are_shown_with_their_state(tmp_path):
    with_fleet = POLICY.replace(TO_MAILDIR, TO_UPSTREAMS)
    running = Gateway(tmp_path, with_fleet, "--workers", "1", upstreams=["127.0.0.1:1"])
    try:
        talk(running, "EHLO x.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x\r\n.", "QUIT")
        wait_until(lambda: "127.0.0.1:1" in Tags(page_of(running)).text, "the member")
        (member,) = json.loads(running.get("/status")[1])["members"]
        assert member["member"] == "127.0.0.1:1"
        assert member["state"] in ("unknown", "suspect", "down")
        assert member["connections"] >= 0
    finally:
        running.kill()


# --- in a terminal ----------------------------------------------------------------------------------------------------


def test_status_prints_the_same_and_says_by_its_exit_code_whether_it_is_ready(gateway, capsys):
    talk(gateway, "EHLO x.example", f"MAIL FROM:<{HOSTILE}", "MAIL FROM:<a@refused.example>", "QUIT")
    admin = f"http://{gateway.announced()['http'][0]}"
    wait_until(
        lambda: any(row["reason"] == "policy_reject" for row in json.loads(gateway.get("/status")[1])["refusals"]),
        "the refusal is counted",
    )
    assert main(["status", "--admin", admin]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"relay-gateway [\d.]+: ready; up \d+ s", lines[0])
    assert any(line.split()[:2] == ["policy_reject", "mail"] for line in lines)
    address = re.escape(gateway.announced()["smtp"][0])
    assert re.search(rf"^  {address} +ok +open \d+, accepted \d+, turned away 0, messages \d+$", "\n".join(lines), re.M)
    assert all(line.isprintable() for line in lines)
    assert main(["status", "--json", "--admin", admin]) == 0
    status = json.loads(capsys.readouterr().out)
    status["ready"] |= {"ready": False, "problem": "no worker is ready yet"}
    status["policy"]["failed"] = status["policy"]["loaded"] + 1
    text = "\n".join(lines_of(status))
    assert "NOT READY: no worker is ready yet" in text
    assert "could not be loaded" in text


def test_status_says_where_nobody_answers(capsys):
    assert main(["status", "--admin", "http://127.0.0.1:1"]) == 1
    assert "nothing listens there" in capsys.readouterr().err


def test_top_shows_it_again_and_again_until_it_is_interrupted(gateway, monkeypatch, capsys):
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(status_command, "time", SimpleNamespace(sleep=look))  # this module's alone
    assert main(["top", "--interval", "1", "--admin", f"http://{gateway.announced()['http'][0]}"]) == 130
    assert looks == [1.0, 1.0]
    assert capsys.readouterr().out.count("\x1b[2J") == 2
    assert StatusCommand(follow=True) is not None


# --- what it is made of -----------------------------------------------------------------------------------------------


def test_rates_are_of_the_seconds_that_were_asked_for():
    page = new_page()
    history = History([page])
    slot = metrics.MESSAGES.slot("relayed")
    for second in range(200):
        page.add(slot, 10 if second > 190 else 1)
        page.observe(metrics.RELAY_DURATION.slot(), 0.002)
        history.take(float(second))
    assert history.rates(metrics.MESSAGES, 5)["relayed",] == 10
    assert history.rates(metrics.MESSAGES)["relayed",] == pytest.approx((9 * 10 + 51) / 60)
    assert history.counted(metrics.MESSAGES)["relayed",] == 9 * 10 + 51
    *buckets, total = history.observed(metrics.RELAY_DURATION)
    assert (sum(buckets), total) == (60, pytest.approx(0.12))


def test_one_sample_is_no_rate():
    history = History([CounterPage(bytearray(metrics.page_size()))])
    history.take(0.0)
    assert set(history.rates(metrics.MESSAGES).values()) == {0.0}


def test_quantiles_are_the_upper_bounds_of_buckets():
    assert quantile((1.0, 2.0), [50, 49, 1], 0.5) == 1.0
    assert quantile((1.0, 2.0), [50, 49, 1], 0.99) == 2.0
    assert quantile((1.0, 2.0), [50, 49, 1], 1.0) == float("inf")
    assert quantile((1.0, 2.0), [0, 0, 0], 0.5) is None


def test_ways_are_bounded_and_those_without_a_message_are_left_out():
    ways = Ways()
    ways.take(b'{"event":"watching","worker":0}\n{"event":"connected","session":"silent","peer":"p"}\n')
    for number in range(20):
        for _ in range(100):
            ways.take(json.dumps({"event": "command", "command": "NOOP", "session": str(number)}).encode())
    told = ways.told()
    assert [way["session"] for way in told] == [str(19 - number) for number in range(MOST_SESSIONS)]
    assert {len(way["lines"]) for way in told} == {MOST_EVENTS}


def test_it_is_followed_once_every_worker_tells():
    ways = Ways()
    assert ways.watched([])
    ways.take(b'{"event":"watching","worker":0}\n')
    assert ways.watched([0]) and not ways.watched([0, 1])
    ways.take(b'{"event":"watching","worker":1}\n{"event":"gone","worker":0}\n')
    assert ways.watched([1]) and not ways.watched([0, 1])
    ways.stopped()
    assert not ways.watched([1])


def test_first_steps_name_the_page_and_the_command():
    assert first_steps("rg", smtp=["127.0.0.1:2525", "127.0.0.1:25"], http=["127.0.0.1:8025"]) == [
        "what happens is shown at http://127.0.0.1:8025/",
        "send a message: rg send 127.0.0.1:2525 --to you@example.com",
    ]
    assert first_steps("rg", smtp=[], http=[]) == []


def test_a_person_at_a_terminal_is_told_the_first_steps_and_others_are_not(gateway, tmp_path):
    assert "send a message" not in gateway.diagnostics()
    policy = tmp_path / "init.lua"
    policy.write_text(gateway.policy_file.read_text())
    terminal, other = os.openpty()
    command = [sys.executable, "-m", "gateway", "run", "--workers", "1", "--policy", str(policy)]
    process = subprocess.Popen(command, stderr=other, cwd=Path(__file__).parent.parent)
    os.close(other)
    said = b""
    try:
        while b"send a message" not in said:
            said += os.read(terminal, 4096)
    finally:
        process.terminate()
        with contextlib.suppress(OSError):  # the terminal's end
            while os.read(terminal, 4096):
                pass
        process.wait(PATIENCE)
        os.close(terminal)
    assert b"what happens is shown at http://127.0.0.1:" in said
