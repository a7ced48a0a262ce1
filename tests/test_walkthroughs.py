"""docs/in-front.md, followed: its policies, settings and commands, with loopback addresses in place of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from relay_gateway_bench.peers.base import Knobs
from relay_gateway_bench.peers.configured import PostfixQueue
from relay_gateway_bench.sink import SinkProcess

from tests.gateway_process import PATIENCE, wait_until
from tests.ports import free_port
from tests.programs import program

PAGE = (Path(__file__).parent.parent / "docs" / "in-front.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
MEMBERS = ("10.20.0.11", "10.20.0.12")


def blocks(section: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)


class Walk:
    """One section, in a folder of its own. members: the ports that stand for those of the page's two members."""

    def __init__(self, folder: Path, section: str, members: list[int]) -> None:
        self.folder, self.port = folder, free_port()
        self._http = free_port()
        self._replaced = {f"{name}:2525": f"127.0.0.1:{port}" for name, port in zip(MEMBERS, members, strict=True)}
        self._replaced |= {
            "0.0.0.0:25'": f"127.0.0.1:{self.port}'",
            "10.20.0.5:25 ": f"127.0.0.1:{self.port} ",
            "127.0.0.1:8000": f"127.0.0.1:{self._http}",
            "127.0.0.1:8025": f"127.0.0.1:{self._http}",
            "10.10.0.0/16": "127.0.0.0/8",
            "/var/log/": f"{folder}/log/",
        }
        (policy,) = blocks(section, "lua")
        (folder / "init.lua").write_text(self._here(policy))
        self._commands = [
            self._here(line.removeprefix("$ ")) for block in blocks(section, "console") for line in block.splitlines()
        ]
        self._running: subprocess.Popen[bytes] | None = None

    def _here(self, text: str) -> str:
        for theirs, ours in self._replaced.items():
            text = text.replace(theirs, ours)
        assert "10." not in re.sub(r"relay_hosts = \{ '10.20.0.5' \}", "", text), text
        return text

    def follow(self) -> dict[str, str]:
        """Does what the page says, in order; what each command printed."""
        said = {}
        for command in self._commands:
            words = _words(command)
            if words[3] == "run":
                self._start(words)
            else:
                said[command] = self.run(command)
        return said

    def run(self, command: str) -> str:
        """What a command prints, which has to succeed."""
        done = subprocess.run(_words(command), cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self._log())
        return done.stdout

    def _start(self, words: list[str]) -> None:
        announced = self.folder / "announced"
        with open(self.folder / "diagnostics", "wb") as log:
            self._running = subprocess.Popen(
                [*words, "--workers", "1", "--announce", str(announced)], cwd=self.folder, stderr=log
            )

        def is_ready() -> bool:
            assert self._running is not None and self._running.poll() is None, self._log()
            return announced.exists()

        wait_until(is_ready, self._log)

    def _log(self) -> str:
        file = self.folder / "diagnostics"
        return file.read_text() if file.exists() else ""

    def end(self) -> None:
        if self._running is not None:
            self._running.terminate()
            self._running.wait(PATIENCE)


def _words(command: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *shlex.split(command)[1:]]


def wait_until_up(walk: Walk, said: dict[str, str], member: str) -> None:
    """By the page's own command; workers tell of members once a second."""
    (command,) = [each for each in said if each.startswith("relay-gateway fleet --control")]
    wait_until(lambda: re.search(rf"^{member} +up ", walk.run(command), re.MULTILINE), f"{member} is up")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def sinks(stack: ExitStack, folder: Path) -> list[int]:
    """Two servers in the place of MTAs; what they take is in folder/0 and folder/1."""
    ports = []
    for number in range(2):
        ports.append(free_port())
        words = ["sink", "--listen", f"127.0.0.1:{ports[-1]}", "--maildir", str(folder / str(number)), "--quiet"]
        process = subprocess.Popen([sys.executable, "-m", "gateway", *words], stdout=subprocess.PIPE)
        stack.callback(process.wait, PATIENCE)
        stack.callback(process.terminate)
        stack.enter_context(process.stdout)
        wait_until(lambda at=folder / str(number) / "new": at.is_dir(), "the sink's directory")
    return ports


def arrived(folder: Path) -> list[bytes]:
    return [file.read_bytes() for number in "01" for file in (folder / number / "new").iterdir()]


@pytest.mark.parametrize("section", ["KumoMTA", "PowerMTA"])
def test_the_walk_through_leads_to_a_message_at_a_member(section, tmp_path, stack):
    walk = Walk(tmp_path, section, sinks(stack, tmp_path))
    stack.callback(walk.end)
    said = walk.follow()
    (message,) = arrived(tmp_path)
    assert b"you@example.org" in message
    wait_until_up(walk, said, r"127.0.0.1:\d+")
    if section == "PowerMTA":
        assert b"X-Virtual-MTA: pool-news\r\n" in message.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r")


class Member(PostfixQueue):
    """Postfix with the page's lines behind the bench's own."""

    def configure(self, template: str, to: str | None = None, **values: object) -> Path:
        path = super().configure(template, to, **values)
        if to == "main.cf":
            lines, _ = blocks("Postfix", "ini")
            with open(path, "a") as main:
                main.write(lines.replace("10.20.0.5/32", "127.0.0.1/32"))
        return path


def test_the_walk_through_leads_to_a_message_in_a_real_postfix(tmp_path, stack):
    program("postfix")
    sink = stack.enter_context(SinkProcess())
    peer = Member(Knobs(upstream=sink.port))
    if (why := peer.missing()) is not None:
        pytest.skip(f"not tried: {why}")
    member = stack.enter_context(peer)
    walk = Walk(tmp_path, "Postfix", [member.port, free_port()])
    stack.callback(walk.end)
    before = sink.counts()["unmarked"]
    said = walk.follow()
    wait_until(lambda: sink.counts()["unmarked"] == before + 1, "the message behind Postfix")
    wait_until_up(walk, said, f"127.0.0.1:{member.port}")
    assert "orig_client=" in (member.home / "maillog").read_text()


def test_the_postfix_ports_line_is_one_of_master_cf():
    _, line = blocks("Postfix", "ini")
    assert line.split() == ["2525", "inet", "n", "-", "y", "-", "-", "smtpd"]
