"""Limits: what a listener holds a client to, with names; of a running gateway also how much of it is left.

Numbers are told as they are; putting them into words is prose.py's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.config import Limits
from gateway.inbound.allowance import COUNTED, network_of, scope_of_identities
from gateway.quotas import Glance
from gateway.rates import Rate
from gateway.why.conversation import Account, Desk

Limit = dict[str, Any]

_OF_A_SESSION = ("errors", "invalid_recipients", "idle_commands")


def limits_of(desk: Desk, session: Account) -> list[Limit]:
    """What the client of a session is held to: docs/why.md has the keys."""
    terms, is_relay_host = desk.standing(session.question)
    shared = terms.params.limits
    found: list[Limit] = []
    if shared.trusted or not is_relay_host:
        found += _of_session(session.params.limits)
        found += _shared(desk.quotas, "network", network_of(session.endpoints, shared), shared, terms.scope)
    identity, limits = session.question.auth, terms.params.limits_per_identity
    if identity is not None and limits is not None:
        found += _shared(desk.quotas, "identity", identity, limits, scope_of_identities(terms.scope))
    return found


def _of_session(limits: Limits) -> Iterator[Limit]:
    for name in _OF_A_SESSION:
        if getattr(limits, name):
            yield _limit(name, "session", "", getattr(limits, name))


def _shared(quotas: Glance | None, by: str, who: str, limits: Limits, scope: str) -> Iterator[Limit]:
    for name, counted in COUNTED.items():
        if (by, name) == ("identity", "auth_failures"):  # nobody is known by then
            continue
        most: int | Rate | None = getattr(limits, name)
        if isinstance(most, Rate):
            every = {"every": most.interval}
            if quotas is None:
                yield _limit(name, by, who, most.burst, **every)
            else:
                turn = quotas.look(counted, who, most, scope)
                left = 0 if turn.retry_after is not None else turn.remaining + 1
                yield _limit(name, by, who, most.burst, **every, left=left, retry_after=turn.retry_after)
        elif most:
            room = None if quotas is None else max(0, most - quotas.held(quotas.cell(counted, who, scope)))
            yield _limit(name, by, who, most, left=room)


def _limit(limit: str, by: str, who: str, most: int, **more: object) -> Limit:
    usual = {"every": None, "left": None, "retry_after": None}
    return {"limit": limit, "by": by, "who": who, "most": most, **usual, **more}
