"""Decisions: get_listener_domain, asked once for everything it looks at. What is cached, verified, counted.

How a tree of cached decisions works is decision_cache.py's business.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import ListenerDomain
from gateway.later import Later
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import MISSING, DecisionCache, Evaluation, Known
from gateway.policy.runs import Run, log

NODES = 65_536  # in the cache

_HIT = metrics.DECISION_CACHE_HITS.slot()
_MISS = metrics.DECISION_CACHE_MISSES.slot()
_EVICTIONS = metrics.DECISION_CACHE_EVICTIONS.slot()
_MISMATCH = metrics.DECISION_CACHE_MISMATCHES.slot()
_ENTRIES = metrics.DECISION_CACHE_ENTRIES.slot()


class Decisions:
    """The decisions of one policy.

    evaluate: asks the handler; its answer is a ListenerDomain or None. verify_every: how many cached answers go by
    until one is made again and compared.
    """

    def __init__(
        self,
        evaluate: Callable[[Evaluation, str, str, ConnMeta], Run],
        page: CounterPage,
        verify_every: int,
    ) -> None:
        self._evaluate = evaluate
        self._page = page
        self._cache: DecisionCache | None = DecisionCache(NODES)
        self._verify_every = self._until_verification = verify_every
        self._evictions = 0

    def listener_domain(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        """What is granted for a domain: a ListenerDomain, None grants nothing; a Known if it comes from the cache.

        domain: normalised. listener: the local address, "IP:PORT".
        """
        cache = self._cache
        if cache is not None:
            found = cache.lookup((domain, listener), conn.values)
            if found is not MISSING:
                self._page.add(_HIT)
                self._until_verification -= 1
                if self._until_verification <= 0:
                    return self._verified(found, domain, listener, conn)
                return found  # type: ignore[no-any-return]
        return self._asked(domain, listener, conn)

    def _asked(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        self._page.add(_MISS)
        evaluation = Evaluation(conn)
        run = self._evaluate(evaluation, domain, listener, conn)
        self._remember(run, evaluation, domain, listener)
        return run

    def _remember(self, run: Run, evaluation: Evaluation, domain: str, listener: str) -> None:
        cache = self._cache
        if cache is None or run.failed or not evaluation.stable:
            return
        granted: ListenerDomain | None = run.result()
        if not cache.store((domain, listener), evaluation.reads.items(), granted):
            self._stop_caching(domain)
        self._count_entries(cache)

    def _verified(self, found: Known, domain: str, listener: str, conn: ConnMeta) -> Later:
        """Makes a cached decision again. An error of the handler is the answer then."""
        self._until_verification = self._verify_every
        run = self._evaluate(Evaluation(conn), domain, listener, conn)
        if run.failed or run.result() != found.result():
            self._stop_caching(domain)
        return run if run.failed else found

    def _stop_caching(self, domain: str) -> None:
        self._cache = None
        self._page.add(_MISMATCH)
        self._page.set(_ENTRIES, 0)
        log.error(
            "get_listener_domain decided differently for '%s' under the same circumstances: "
            "its results are not cached any more",
            domain,
        )

    def _count_entries(self, cache: DecisionCache) -> None:
        self._page.set(_ENTRIES, len(cache))
        if cache.evictions != self._evictions:
            self._page.add(_EVICTIONS, cache.evictions - self._evictions)
            self._evictions = cache.evictions
