"""Loading policies from texts, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Later
from gateway.policy.background import Background
from gateway.policy.check import report
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Known
from gateway.policy.engine import Policy
from gateway.policy.problems import Problem, Severity
from gateway.policy.source import PolicySource

LISTENER = "192.0.2.1:25"


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def examine(source: PolicySource) -> tuple[list[Problem], list[Problem], str]:
    """What `check` says of a policy: (errors, warnings, one line about it all)."""
    found, summary = report(source)
    errors, warnings = ([one for one in found if one.severity is kind] for kind in (Severity.ERROR, Severity.WARNING))
    return errors, warnings, summary


class PassingTime(Background):
    """In the place of an event loop: time passes only when a test says so, on a Clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._timers: list[Any] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        timer = SimpleNamespace(due=self._clock.now + seconds, call=callback)
        timer.cancel = lambda: timer in self._timers and self._timers.remove(timer)
        self._timers.append(timer)
        return timer

    def sleep(self, seconds: float) -> Later:
        later = Sleeping()
        later.timer = self.call_later(seconds, lambda: later.settle(None))
        return later

    def pass_time(self, seconds: float) -> None:
        """Lets everything happen that is due by then."""
        until = self._clock.now + seconds
        while due := [timer for timer in self._timers if timer.due <= until]:
            timer = min(due, key=lambda timer: timer.due)
            self._timers.remove(timer)
            self._clock.now = max(self._clock.now, timer.due)
            timer.call()
        self._clock.now = until

    @property
    def waiting(self) -> int:
        """How many timers run."""
        return len(self._timers)


class Sleeping(Later):
    """An answer that comes with time."""

    timer: Any

    def cancel(self) -> None:
        super().cancel()
        self.timer.cancel()


def new_page() -> CounterPage:
    return CounterPage(bytearray(metrics.page_size()))


def source_of(text: str, **files: str) -> PolicySource:
    """A snapshot of policy.lua and further files, by name without ".lua"."""
    contents: dict[str, bytes | None] = {"policy.lua": text.encode()}
    contents |= {f"{name}.lua": content.encode() for name, content in files.items()}
    return PolicySource("policy.lua", contents)


def load(
    text: str,
    *,
    page: CounterPage | None = None,
    verify_every: int = 1_000_000,
    clock: Callable[[], float] | None = None,
    background: Background | None = None,
    **files: str,
) -> Policy:
    """A policy from its text."""
    source = source_of(text, **files)
    return Policy.load(
        source, page=page or new_page(), verify_every=verify_every, clock=clock or Clock(), background=background
    )


def said(code: str) -> Any:
    """What a policy's top level puts into `result`, as JSON; `kumo` and `result` are local names already."""
    text = f"""
        local kumo, result = require 'kumo', nil
        {code}
        kumo.on('init', function()
          local said = kumo.encode.hex_encode(kumo.json_encode {{ result }})
          kumo.start_esmtp_listener {{ listen = '127.0.0.1:0', banner = said }}
        end)
    """
    found = json.loads(bytes.fromhex(load(text).config.listeners[0].overrides["banner"]))
    return found[0] if found else None


def domain_policy(body: str, **options: object) -> Policy:
    """A policy whose get_listener_domain(domain, listener, conn_meta) has the given body."""
    text = f"kumo.on('get_listener_domain', function(domain, listener, conn_meta)\n{body}\nend)"
    return load(text, **options)  # type: ignore[arg-type]


def ask(policy: Policy, domain: str = "example.com", listener: str = LISTENER, **meta: object) -> object:
    """What get_listener_domain grants to a connection with this metadata."""
    return policy.listener_domain(domain, listener, ConnMeta(meta)).result()


def answered_from(policy: Policy, domain: str = "example.com", listener: str = LISTENER, **meta: object) -> str:
    """Asks likewise; returns where the answer comes from: "cache" or "lua"."""
    answer = policy.listener_domain(domain, listener, ConnMeta(meta))
    answer.result()
    return "cache" if isinstance(answer, Known) else "lua"
