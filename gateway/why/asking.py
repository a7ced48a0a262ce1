"""A policy that is asked questions in a process that serves nobody by it: loaded, asked, and asked again.

`relay-gateway explain` does that by itself; with --live the admin process does, with the policy that is in force.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Waits, begun
from gateway.policy.background import Background
from gateway.policy.problems import PolicyProblems
from gateway.policy.source import PolicySource
from gateway.quotas import Glance
from gateway.why.conversation import Desk
from gateway.why.explain import Explanation, explain
from gateway.why.prose import in_words
from gateway.why.question import STRANGER, Inquiry, Misuse, question_of
from gateway.why.watched import NotingApi, WatchedPolicy

NOBODY_YET = "postmaster@example.com"  # the recipient where a client was refused before it named one
_LOGGERS = ("gateway.policy", "gateway.policy.lua")


def desk_for(source: PolicySource, background: Background) -> Desk:
    """A policy, ready to be asked. Raises PolicyProblems."""
    page = CounterPage(bytearray(metrics.page_size()))
    policy = WatchedPolicy.load(source, page=page, background=background, api=NotingApi, verify_every=1 << 60)
    quotas = background.quotas
    return Desk(policy, page, time.time_ns, time.monotonic, quotas if isinstance(quotas, Glance) else None)


def settled(desk: Desk, steps: Waits) -> Any:
    """What steps lead to, in a process that does nothing else."""
    return desk.policy.finish(begun(steps))


class Silence:
    """Within it policies log nothing: explanations say what went wrong."""

    def __enter__(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_nothing)

    def __exit__(self, *error: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def explained(source: PolicySource, inquiry: Inquiry, quotas: Glance | None = None) -> Explanation:
    """What a policy, loaded for this question alone, makes of it. quotas: of the gateway that is asked about its
    present. Raises PolicyProblems, Misuse.
    """
    background = Background.alone(quotas)
    try:
        with Silence():
            desk = desk_for(source, background)
            explanation: Explanation = settled(desk, explain(desk, question_of(inquiry, desk.policy.config.listeners)))
    finally:
        background.end()
    return explanation


class Answering:
    """The policy in force, for those who ask the running gateway."""

    def __init__(
        self,
        source: PolicySource,
        listeners: Mapping[str, str] = MappingProxyType({}),
        epoch: int = 0,
        quotas: Glance | None = None,
    ) -> None:
        """listeners: by the address where each is bound, what the policy calls it. epoch: the policy's number."""
        self._source, self._listeners = source, listeners
        self._epoch, self._quotas = epoch, quotas

    def answer(self, inquiry: bytes) -> bytes:
        """The explanation of an Inquiry, both JSON. Raises Misuse."""
        return orjson.dumps(self._explained(Inquiry.from_json(inquiry), self._quotas))

    def _explained(self, asked: Inquiry, quotas: Glance | None) -> Explanation:
        try:
            explanation = explained(self._source, asked, quotas)
        except PolicyProblems as bad:  # it depends on something that is gone
            raise Misuse(f"the policy in force cannot be loaded once more: {bad}") from None
        explanation["answered_by"] = f"the admin process of the running gateway, {os.getpid()}"
        explanation["epoch"] = self._epoch
        return explanation

    def of_refusal(self, event: Mapping[str, Any]) -> str:
        """What it makes of what was refused, in words. event: as /trace/recent has it. Raises Misuse."""
        known, listener = event.get("known") or {}, event.get("listener")
        asked = Inquiry(
            sender=event.get("sender") or "",
            recipients=[str(each) for each in event.get("recipients") or ()] or [NOBODY_YET],
            peer=event.get("peer_address") or STRANGER,
            listener=self._listeners.get(listener, listener) if listener else None,
            tls="tls_cipher" in known,
            ehlo=event.get("ehlo") or Inquiry._field_defaults["ehlo"],
        )
        return in_words(orjson.loads(orjson.dumps(self._explained(asked, None))))  # of limits its present says nothing
