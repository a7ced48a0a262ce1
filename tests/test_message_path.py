"""What every message passes through is compiled: an interpreted function costs as much as a hundred compiled ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gateway
from bench.in_memory import Client
from gateway.rates import Rate

ROOM = str(Path(gateway.__file__).parent)
STANDS_IN = "/why/"  # clocks and the like of a session in memory
MESSAGES = 20


def interpreted_during(call: Callable[[], object]) -> Counter[str]:
    """How often each of the gateway's functions that Python interprets was called."""
    called: Counter[str] = Counter()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOM) and STANDS_IN not in code.co_filename:
            called[f"{code.co_filename.removeprefix(ROOM)}: {code.co_qualname}"] += 1

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return called


def test_an_interpreted_function_is_seen():
    assert interpreted_during(lambda: Rate.read("1/s"))


def test_nothing_that_a_relayed_message_passes_through_is_interpreted():
    client = Client()
    client.message()
    assert client.message().count(b"250 ") == 3
    assert interpreted_during(lambda: [client.message() for _ in range(MESSAGES)]) == {}
