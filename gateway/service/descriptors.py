"""File descriptors: as many as the system allows, and how many of them clients may take.

A connection that cannot be accepted waits unseen, and a message that cannot be handed over because clients hold every
descriptor is worse than a client that is told to come later. So `max_connections` is lowered to what is there.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

OWN = 64  # for the process itself: its event loop, log segments, Maildir files, resolver
LEAST = 16  # for clients, in a worker that is worth starting
FLEET_SHARE = 8  # one in so many is for connections to the fleet
CONTENT_SHARE = 8  # and one in so many for the files of message contents


def raise_limit() -> int:
    """Raise this process's limit, which its children inherit, as far as it may go; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox that lets nobody change limits
        return soft
    return hard


def for_clients(limit: int) -> int:
    """How many of a worker's descriptors its clients may hold; 0 where there are too few to begin with."""
    return max(0, limit - OWN - limit // FLEET_SHARE - for_contents(limit))


def for_contents(limit: int) -> int:
    """How many message contents of a worker may have a file; at least one."""
    return max(1, limit // CONTENT_SHARE)


def shares(max_connections: Sequence[int], workers: int, available: int) -> list[int]:
    """How many connections one worker may have open at each listener, in their order.

    max_connections: of each listener, over all workers, which take equal parts because the kernel spreads connections
    over them. available: descriptors for clients in a worker. Where that is too little for all, each listener gets in
    proportion to what it asks for, and one at least.
    """
    wanted = [-(-most // workers) for most in max_connections]
    total = sum(wanted)
    if total <= available:
        return wanted
    return [max(1, most * available // total) for most in wanted]
