"""`relay-gateway ship` as a process: killed and restarted on both sides, told to stop, and given bad files."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from gateway import cli, ship
from gateway.service.context import EX_CONFIG, EX_TEMPFAIL
from tests.gateway_process import wait_until
from tests.shipping import add, begin, receiving, shipping, write


def configuration(logs: Path, sink: str, more: str = "") -> str:
    return f'[[ship]]\nname = "hook"\nlog_dirs = ["{logs}"]\nmax_batch_delay = "50ms"\n{more}\nsink.{sink}\n'


def webhook(url: str, timeout: str = "5s") -> str:
    return f'webhook = {{ url = "{url}", timeout = "{timeout}" }}'


def test_nothing_is_lost_when_either_side_is_killed_in_the_middle(tmp_path):
    logs = tmp_path / "logs"
    segments = [begin(logs), begin(logs)]
    written = 0

    def log_more() -> None:
        nonlocal written
        for segment in segments:
            add(segment, *range(written, written + 150))
            written += 150

    with receiving() as receiver:
        text = configuration(logs, webhook(receiver.url, "1s"), "max_batch_records = 20\nmax_retry_interval = '200ms'")
        with shipping(tmp_path, text) as process:
            for disturb in ("mute", "slow", 503):
                log_more()
                before = len(receiver.requests)
                receiver.mood = disturb
                wait_until(lambda before=before: len(receiver.requests) > before + 1, "requests")
                process.kill()
                receiver.mood = 200
                process.start()
            log_more()
            wait_until(lambda: len(set(receiver.taken)) > written // 2, "half of it")
            receiver.stop()
            log_more()
            receiver.start()
            wait_until(lambda: len(set(receiver.taken)) == written, lambda: f"{len(set(receiver.taken))} of {written}")
    assert sorted(set(receiver.taken)) == list(range(written))
    assert sorted(receiver.ids.values()) == list(range(written))  # with the ids duplicates are told from records
    for segment in segments:
        segment.finish()


def test_it_ends_when_told_and_what_was_read_is_shipped_before(tmp_path):
    logs = tmp_path / "logs"
    with receiving() as receiver:
        text = configuration(logs, webhook(receiver.url), "max_batch_delay = '1h'").replace('"50ms"', '"1h"', 1)
        text = text.replace("max_batch_delay = '1h'\n", "")
        metrics = tmp_path / "metrics"
        with shipping(tmp_path, text, "--metrics", str(metrics)) as process:
            write(logs, range(10))
            wait_until((logs / ".ship" / "hook.lock").exists, "its start")
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
        assert receiver.taken == list(range(10))
    assert 'relay_gateway_ship_acknowledged_records_total{shipment="hook"} 10.0' in metrics.read_text()


def test_it_ends_in_time_although_its_sink_does_not_answer(tmp_path):
    logs = tmp_path / "logs"
    write(logs, range(10))
    with receiving() as receiver:
        receiver.mood = "slow"
        with shipping(tmp_path, configuration(logs, webhook(receiver.url, "1s"))) as process:
            wait_until(lambda: receiver.requests, "a request")
            process.signal(signal.SIGTERM)
            assert process.wait() == 0


def test_once_ships_what_there_is_and_says_whether_that_is_all(tmp_path, capfd):
    logs = tmp_path / "logs"
    write(logs, range(3))
    file = tmp_path / "ship.toml"
    file.write_text(configuration(logs, "stdout = {}"))
    assert cli.main(["ship", "--once", str(file)]) == 0
    assert [json.loads(line)["number"] for line in capfd.readouterr().out.splitlines()] == [0, 1, 2]
    with receiving() as receiver:
        receiver.mood = 503
        file.write_text(configuration(logs, webhook(receiver.url)))
        (logs / ".ship" / "hook.place").unlink()
        assert cli.main(["ship", "--once", str(file)]) == 1


BAD = """\
[[ship]]
name = "a b"
log_dirs = ["/var/log/x"]
sink = { webhok = { url = "https://x.example" } }

[[ship]]
name = "b"
log_dirs = ["/var/log/x"]
max_batch_recods = 3
where = "response.code >="
[ship.sink.webhook]
url = "ftp://user:s3cret@x.example"
timeout = -1
[ship.per_record.Bounced]
enable = true

[[ship]]
name = "c"
sink.files = { directory = "" }
"""


def test_every_mistake_of_a_file_is_said_with_its_line():
    _, problems = ship.read(BAD)
    said = [f"{line}: {problem}" for line, problem in problems]
    expected = [
        (2, "name: expected a name"),
        (4, "sink: no kind of sink is called 'webhok'; did you mean 'webhook'?"),
        (9, "max_batch_recods: unknown option; did you mean 'max_batch_records'?"),
        (10, "where: not an expression"),
        (12, "sink.webhook.url: expected an URL that begins with http:// or https://"),
        (13, "sink.webhook.timeout: expected a number of seconds"),
        (14, "per_record.Bounced: expected one of"),
        (19, "sink.files.directory: expected a directory"),
    ]
    assert len(said) == len(expected)
    for (line, words), found in zip(expected, said, strict=True):
        assert found.startswith(f"{line}: {words}")
    assert "s3cret" not in "".join(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: nothing is to be shipped"),
        ("[[shp]]\nname = 'x'\n", "1: unknown table 'shp'; accepted: ship"),
        ("[[ship]\n", "1: no TOML"),
        ("[[ship]]\nname = 'x'\nsink.stdout = {}\n", "1: 'log_dirs' is missing"),
        (
            "[[ship]]\nname = 'x'\nlog_dirs = ['d']\nsink.stdout = {}\n" * 2,
            "6: there is a shipment 'x' already",
        ),
    ],
)
def test_a_file_without_sense_is_refused(text, said, tmp_path, capsys):
    file = tmp_path / "ship.toml"
    file.write_text(text)
    assert cli.main(["ship", "--check", str(file)]) == EX_CONFIG
    assert f"{file}:{said}" in capsys.readouterr().err


def test_a_file_or_secret_that_cannot_be_read_may_pass(tmp_path, capsys):
    assert cli.main(["ship", str(tmp_path / "absent")]) == EX_TEMPFAIL
    file = tmp_path / "ship.toml"
    file.write_text(
        configuration(tmp_path, f'webhook = {{ url = "http://127.0.0.1:1", signing_key = "{tmp_path}/key" }}')
    )
    assert cli.main(["ship", "--once", str(file)]) == EX_TEMPFAIL
    assert re.search(r"key: No such file", capsys.readouterr().err)
