"""Loading policies from texts, for tests."""

from __future__ import annotations

from collections.abc import Callable

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Known
from gateway.policy.engine import Policy
from gateway.policy.source import PolicySource

LISTENER = "192.0.2.1:25"


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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
    **files: str,
) -> Policy:
    """A policy from its text."""
    source = source_of(text, **files)
    return Policy.load(source, page=page or new_page(), verify_every=verify_every, clock=clock or Clock())


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
