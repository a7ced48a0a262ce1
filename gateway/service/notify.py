"""What systemd is told: sd_notify(3)'s datagrams, in the few lines that they take."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

_NOBODY = 0.0


class Notifier:
    """Tells systemd, if it started this process and wants to know; else does nothing."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """environment: with NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID; they stay there for the program after this."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        period = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_every = period / 2 if mine else _NOBODY
        self._watchdog_due = 0.0

    def ready(self, status: str) -> None:
        """The service, or the reload that was told of, is ready. status: a line for `systemctl status`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, now: float) -> None:
        """A reload begins. now: CLOCK_MONOTONIC seconds."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={now * 1e6:.0f}", "STATUS=Reloading")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1", "STATUS=Draining")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self, now: float) -> None:
        """To be called every second or so: feeds the watchdog when it is due."""
        if self._watchdog_every and now >= self._watchdog_due:
            self._watchdog_due = now + self._watchdog_every
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)  # a manager that does not listen must not hold up the service
            sending.sendto("\n".join(lines).encode(), address)
