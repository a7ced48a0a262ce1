"""`relay-gateway send`: what it says, what it shows, and its exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import send
from gateway.cli import main
from tests.gateway_process import INIT, TO_MAILDIR, Gateway

OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("send"), OPEN + TO_MAILDIR, "--workers", "1")
    yield running
    running.kill()


def sent(gateway: Gateway, *arguments: str) -> int:
    return main(["send", gateway.announced()["smtp"][0], *arguments])


def new(gateway: Gateway, before: list[bytes]) -> list[bytes]:
    return [mail for mail in gateway.mails() if mail not in before]


def test_a_letter_is_sent_and_the_dialogue_shown(gateway, capsys):
    before = gateway.mails()
    assert (
        sent(gateway, "--from", "a@b.example", "--to", "c@d.example", "--to", "e@d.example", "--subject", "hello") == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("< 220 gw.example")
    for line in ("> EHLO client.example", "> MAIL FROM:<a@b.example>", "> RCPT TO:<e@d.example>", "> DATA", "> QUIT"):
        assert line in lines
    assert any(re.match(r"< 250 2\.0\.0 OK ids=\w+", line) for line in lines)
    (mail,) = new(gateway, before)
    assert b"Subject: hello" in mail


def test_a_file_arrives_as_it_is_dots_and_all_under_tls(gateway, capsys, tmp_path):
    before = gateway.mails()
    letter = tmp_path / "letter"
    letter.write_bytes(b"Subject: dots\n\n.\n..two\nend without line end\n.")
    assert sent(gateway, "--to", "c@d.example", "--tls", "--file", str(letter), "--quiet") == 0
    assert re.fullmatch(r"< 250 2\.0\.0 OK ids=\w+\n", capsys.readouterr().out)
    (mail,) = new(gateway, before)
    assert mail.replace(b"\r\n", b"\n").endswith(b"Subject: dots\n\n.\n..two\nend without line end\n.\n")
    assert b"with ESMTPS" in mail


def test_many_go_over_one_connection(gateway, capsys):
    before, connections = gateway.mails(), gateway.metric("connections_opened_total")
    assert sent(gateway, "--to", "c@d.example", "--count", "3", "--quiet") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(new(gateway, before)) == 3
    assert gateway.metric("connections_opened_total") == connections + 1


def test_what_is_refused_is_shown_and_ends_with_1(gateway, capsys):
    assert sent(gateway, "--from", "nonsense", "--to", "c@d.example", "--quiet") == 1
    assert re.fullmatch(r"< 5\d\d 5\.\d\.\d .*\n", capsys.readouterr().out)


def test_who_cannot_be_reached_and_what_cannot_be_read_end_with_2(gateway, capsys):
    assert main(["send", "127.0.0.1:1", "--to", "a@b.example"]) == 2
    assert capsys.readouterr().err.startswith("relay-gateway send: 127.0.0.1:1: ")
    assert sent(gateway, "--to", "a@b.example", "--file", "/nowhere") == 2
    assert capsys.readouterr().err == "relay-gateway send: /nowhere: No such file or directory\n"


def test_servers_are_understood():
    assert send._server("gw.example") == ("gw.example", 25)
    assert send._server("gw.example:2525") == ("gw.example", 2525)
    assert send._server("[::1]:2525") == ("::1", 2525)
    assert send._server("::1") == ("::1", 25)
    for arguments in (["gw.example:x"], ["gw.example:0"], ["gw.example", "--count", "0"]):
        with pytest.raises(SystemExit):
            main(["send", *arguments, "--to", "a@b.example"])


def test_standard_input_is_sent(gateway, monkeypatch, capsys, tmp_path):
    letter = Path(tmp_path / "letter")
    letter.write_bytes(b"Subject: piped\n\nx\n")
    before = gateway.mails()
    with open(letter) as file:
        monkeypatch.setattr("sys.stdin", file)
        assert sent(gateway, "--to", "c@d.example", "--file", "-", "--quiet") == 0
    (mail,) = new(gateway, before)
    assert b"Subject: piped" in mail
