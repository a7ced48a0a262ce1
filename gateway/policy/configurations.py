"""Configurations: get_queue_config and get_egress_path_config, asked for once per refresh interval.

What their tables mean is queue_schemas.py's and path_schemas.py's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.config import Destination, EgressPath, QueueConfig, SmtpFleet, site_name
from gateway.later import Later, Waits, answered, begun
from gateway.mail.message import parse_queue_name
from gateway.policy.decision_cache import MISSING, RecentlyUsed

CAPACITY = 8_192  # of queues, and again of egress paths and of destinations

Names = tuple[str | None, ...]
T = TypeVar("T", QueueConfig, EgressPath)

_NO_PATH = EgressPath()
_REFRESH = QueueConfig().refresh_interval  # of an answer that has none of its own


class Configurations:
    """The configurations of one policy.

    ask_queue: asks the handlers for a QueueConfig or None; arguments: domain, tenant, campaign, routing domain.
    ask_path: asks for an EgressPath; arguments: routing domain, source, site. clock: seconds. fleet: where
    everything goes, whatever the policy would say.
    """

    def __init__(
        self,
        ask_queue: Callable[[Names], Later],
        ask_path: Callable[[Names], Later],
        clock: Callable[[], float],
        fleet: Destination | None = None,
    ) -> None:
        self._fleet = None if fleet is None else answered(fleet)
        self._ask_queue = ask_queue
        self._ask_path = ask_path
        self._clock = clock
        self._destinations = RecentlyUsed(CAPACITY)
        self._queues = RecentlyUsed(CAPACITY)
        self._paths = RecentlyUsed(CAPACITY)

    def destination(self, queue_name: str) -> Later:
        """Where mail of a queue goes: a Destination; None where the policy does not say."""
        if self._fleet is not None:
            return self._fleet
        found = self._destinations.get(queue_name)
        if found is not MISSING and self._clock() < found[0]:
            return found[1]  # type: ignore[no-any-return]
        return begun(self._find(queue_name))

    def _find(self, queue_name: str) -> Waits:
        campaign, tenant, domain, routing_domain = parse_queue_name(queue_name)
        names = domain, tenant, campaign, routing_domain
        until, queue = yield self._refreshed(self._queues, names, self._ask_queue)
        destination = None
        if queue is not None and queue.protocol is not None:
            path = _NO_PATH
            if isinstance(queue.protocol, SmtpFleet):
                site = (routing_domain or domain, "unspecified", site_name(queue.protocol))
                path_until, path = yield self._refreshed(self._paths, site, self._ask_path)
                until = min(until, path_until)
            destination = Destination(queue, path)
        self._destinations.put(queue_name, (until, answered(destination)))
        return destination

    def _refreshed(self, cache: RecentlyUsed, names: Names, ask: Callable[[Names], Later]) -> Later:
        """(when it has to be asked for again, a configuration), cached until then."""
        found = cache.get(names)
        if found is not MISSING and self._clock() < found[0]:
            return answered(found)
        return begun(self._refresh(cache, names, ask))

    def _refresh(self, cache: RecentlyUsed, names: Names, ask: Callable[[Names], Later]) -> Waits:
        now = self._clock()
        config = yield ask(names)
        until = now + (_REFRESH if config is None else config.refresh_interval)
        cache.put(names, (until, config))
        return until, config
