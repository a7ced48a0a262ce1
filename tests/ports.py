"""Ports that stay somebody's own while nobody listens on them: for what stops and comes back, and for what has to be
told its port beforehand.

A port that the system chose is anybody's again once it is closed, and the tests that run beside this one take it: what
was to be unreachable answers then. These are below the range that the system chooses from, and each of the processes
that run tests has its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

LOWEST, HIGHEST = 10_000, 32_000  # Linux chooses from 32768 on: net.ipv4.ip_local_port_range
PROCESSES = 16  # that run tests, at most

_own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
_candidates = itertools.cycle(range(LOWEST + _own, HIGHEST, PROCESSES))
for _ in range(random.SystemRandom().randrange((HIGHEST - LOWEST) // PROCESSES)):  # so that two runs rarely meet
    next(_candidates)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nobody listens on, and that nobody else is given for a long while."""
    for port in _candidates:
        try:
            with socket.create_server((host, port)):
                return port
        except OSError:
            continue
    raise AssertionError("no end of candidates")
