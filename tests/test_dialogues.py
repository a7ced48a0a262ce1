"""The dialogues of tests/dialogues, in memory in any portions of bytes, and over sockets with real processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.dialogue import Dialogue, ScriptedUpstream, play_in_memory, play_over_sockets
from tests.gateway_process import Gateway

ROOT = Path(__file__).parent / "dialogues"
DIALOGUES = [Dialogue.read(path, ROOT) for path in sorted(ROOT.rglob("*.smtp"))]
MEMORY = "LISTEN, HTTP, LOGS, MAILDIR, UPSTREAMS = '127.0.0.1:0', '127.0.0.1:0', 'logs', 'maildir', { '127.0.0.1:1' }; "


def at_random(data: bytes) -> list[bytes]:
    cuts = sorted(random.randint(0, len(data)) for _ in range(6))  # pytest-randomly prints the seed
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


SPLITS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "whole": lambda data: [data],
    "byte by byte": lambda data: (data[i : i + 1] for i in range(len(data))),
    "at each CRLF": lambda data: data.splitlines(keepends=True),
    "at random": at_random,
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dialogue", [d for d in DIALOGUES if not d.needs_sockets], ids=lambda dialogue: dialogue.name)
def test_in_memory(dialogue, split):
    play_in_memory(dialogue, MEMORY + (ROOT / dialogue.policy).read_text(), SPLITS[split])


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Gateway, ScriptedUpstream]]]:
    """The running gateway, and its upstream, for a policy; started when it is first asked for."""
    running: dict[str, tuple[Gateway, ScriptedUpstream]] = {}

    def running_with(policy: str) -> tuple[Gateway, ScriptedUpstream]:
        if policy not in running:
            upstream = ScriptedUpstream()
            folder = tmp_path_factory.mktemp("gateway")
            text = (ROOT / policy).read_text()
            running[policy] = Gateway(folder, text, "--workers", "1", upstreams=[upstream.address]), upstream
        return running[policy]

    yield running_with
    for gateway, upstream in running.values():
        gateway.kill()
        upstream.stop()


@pytest.mark.parametrize("number", range(len(DIALOGUES)), ids=lambda number: DIALOGUES[number].name)
def test_over_sockets(number, gateways):
    gateway, upstream = gateways(DIALOGUES[number].policy)
    play_over_sockets(DIALOGUES[number], gateway, upstream, number + 1)
