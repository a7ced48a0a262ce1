"""What a worker would answer to a new connection, listener by listener, as words of its page that others read.

The worker says it at every heartbeat, the admin process tells it at /readyz. No clocks and no sockets.
"""

from __future__ import annotations

from gateway._fastpath import CounterPage
from gateway.metrics import ADMISSION, MOST_LISTENERS
from gateway.smtp.replies import Reason

NO_DESCRIPTORS = "no_descriptors"  # the connection waits in the kernel: the process has no descriptor or memory left
SERVED = "ok"

# What a word says; 0 is "nothing yet".
_ANSWERS = ("", SERVED, *Reason, NO_DESCRIPTORS)
_CODES = {answer: code for code, answer in enumerate(_ANSWERS)}


def publish(page: CounterPage, listener: int, answer: str) -> None:
    """Say what a new connection would get: SERVED, a Reason, or NO_DESCRIPTORS. listener: its place in the policy."""
    if listener < MOST_LISTENERS:
        page.set(ADMISSION + listener, _CODES[answer])


def published(page: CounterPage, listener: int) -> str:
    """The same, read by another process; "" where the owner has said nothing."""
    return _ANSWERS[page.get(ADMISSION + listener)] if listener < MOST_LISTENERS else SERVED
