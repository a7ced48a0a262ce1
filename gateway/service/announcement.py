"""Saying where the service listens: a line of JSON, for programs that start it on port 0; what to do first, for
a person at a terminal.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def announce(target: str, *, epoch: int, smtp: Sequence[str], http: Sequence[str]) -> None:
    """Write it. target: a file, which then appears whole, or a file descriptor's number."""
    text = json.dumps({"pid": os.getpid(), "epoch": epoch, "smtp": smtp, "http": http})
    try:
        if target.isdigit():
            os.write(int(target), text.encode() + b"\n")
        else:
            partial = Path(target + ".new")
            partial.write_text(text + "\n")
            partial.replace(target)
    except OSError as error:
        log.error("cannot announce to %s: %s", target, error)


def first_steps(program: str, *, smtp: Sequence[str], http: Sequence[str]) -> list[str]:
    """Lines for a person who has just started it. program: how they call it."""
    lines = [f"what happens is shown at http://{address}/" for address in http[:1]]
    return lines + [f"send a message: {program} send {address} --to you@example.com" for address in smtp[:1]]
