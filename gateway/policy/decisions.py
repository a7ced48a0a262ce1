"""Decisions: get_listener_domain, asked once for everything it looks at. What is cached, verified, counted.

How a tree of cached decisions works is decision_cache.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import ListenerDomain
from gateway.later import Later
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import MISSING, NEVER, DecisionCache, Evaluation, Known
from gateway.policy.domain_table import DomainTable
from gateway.policy.runs import Run, log

NODES = 65_536  # in the cache

_HIT = metrics.DECISION_CACHE_HITS.slot()
_MISS = metrics.DECISION_CACHE_MISSES.slot()
_EVICTIONS = metrics.DECISION_CACHE_EVICTIONS.slot()
_MISMATCH = metrics.DECISION_CACHE_MISMATCHES.slot()
_ENTRIES = metrics.DECISION_CACHE_ENTRIES.slot()


class _Asked(Later):
    """A decision that somebody waits for: in a flight, or, where that did not fit, in an answer of its own."""

    def __init__(self, domain: str, listener: str, conn: ConnMeta) -> None:
        super().__init__()
        self.domain = domain
        self.listener = listener
        self.conn = conn
        self.flight: _Flight | None = None
        self.answer: Later | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.flight is not None:
            self.flight.leave(self)
        elif self.answer is not None:
            self.answer.cancel()

    def pass_on(self) -> None:
        """The answer is there."""
        assert self.answer is not None
        try:
            value = self.answer.result()
        except Exception as error:
            self.fail(error)
        else:
            self.settle(value)


class _Flight:
    """A handler that waits, and those who wait for its result, the one who asked first."""

    def __init__(self, run: Run, evaluation: Evaluation) -> None:
        self.run = run
        self.evaluation = evaluation
        self.asked: list[_Asked] = []

    def join(self, asked: _Asked) -> Later:
        """Waits here."""
        asked.flight = self
        self.asked.append(asked)
        return asked

    def leave(self, asked: _Asked) -> None:
        """Waits no more; when nobody does, the handler ends."""
        self.asked.remove(asked)
        asked.flight = None
        if not self.asked:
            self.run.cancel()


class Decisions:
    """The decisions of one policy.

    evaluate: asks the handler; its answer is a ListenerDomain or None. verify_every: how many cached answers go by
    until one is made again and compared. clock: seconds. table: what the handler asks, if it does nothing else; then
    that is asked, and the handler is not.
    """

    def __init__(
        self,
        evaluate: Callable[[Evaluation, str, str, ConnMeta], Run],
        page: CounterPage,
        verify_every: int,
        clock: Callable[[], float],
        table: DomainTable | None = None,
    ) -> None:
        self._table = table
        self._evaluate = evaluate
        self._page = page
        self._clock = clock
        self._cache: DecisionCache | None = DecisionCache(NODES, clock)
        self._flights: dict[Hashable, _Flight] = {}  # by what is known about those who wait
        self._shares = True  # the last result was good for others, too
        self._verify_every = self._until_verification = verify_every
        self._evictions = 0

    def listener_domain(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        """What is granted for a domain: a ListenerDomain, None grants nothing; a Known if it comes from the cache.

        domain: normalised. listener: the local address, "IP:PORT".
        """
        if self._table is not None:
            self._page.add(_HIT)
            return self._table.answer(domain, listener, conn)
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

    def forget(self) -> None:
        """Nothing that is known holds any more."""
        if self._cache is not None:
            self._cache = DecisionCache(NODES, self._clock)

    def _asked(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        """Runs the handler, unless it waits already for somebody of whom the same is known: a herd asks once."""
        known = (domain, listener) if self._cache is None else self._cache.missed
        flight = self._flights.get(known) if self._shares else None
        if flight is None:
            self._page.add(_MISS)
            evaluation = Evaluation(conn)
            run = self._evaluate(evaluation, domain, listener, conn)
            if run.done:
                self._remember(run, evaluation, domain, listener)
                return run
            flight = _Flight(run, evaluation)
            self._flights[known] = flight
            run.then(partial(self._landed, known, flight))
        return flight.join(_Asked(domain, listener, conn))

    def _landed(self, known: Hashable, flight: _Flight) -> None:
        if self._flights.get(known) is flight:
            del self._flights[known]
        run, evaluation = flight.run, flight.evaluation
        waiting, flight.asked = flight.asked, []
        if waiting:
            self._remember(run, evaluation, waiting[0].domain, waiting[0].listener)
        for place, asked in enumerate(waiting):
            asked.flight = None
            if place == 0 or evaluation.fits(asked.conn.values):
                asked.answer = run
                asked.pass_on()
                continue
            asked.answer = self.listener_domain(asked.domain, asked.listener, asked.conn)
            if asked.answer.done:
                asked.pass_on()
            else:
                asked.answer.then(asked.pass_on)

    def _remember(self, run: Run, evaluation: Evaluation, domain: str, listener: str) -> None:
        cache = self._cache
        self._shares = evaluation.stable
        if cache is None or run.failed or not evaluation.stable:
            return
        if evaluation.expires <= self._clock():
            return
        granted: ListenerDomain | None = run.result()
        if not cache.store((domain, listener), evaluation.reads.items(), granted, evaluation.expires):
            self._stop_caching(domain)
        self._count_entries(cache)

    def _verified(self, found: Known, domain: str, listener: str, conn: ConnMeta) -> Later:
        """Makes a cached decision again. An error of the handler is the answer then; nobody waits for it to wait."""
        self._until_verification = self._verify_every
        run = self._evaluate(Evaluation(conn), domain, listener, conn)
        if not run.done:
            run.then(partial(self._compare, run, found, domain))
            return found
        self._compare(run, found, domain)
        return run if run.failed else found

    def _compare(self, run: Run, found: Known, domain: str) -> None:
        if found.expires != NEVER and self._clock() >= found.expires:
            return
        if run.failed or run.result() != found.result():
            self._stop_caching(domain)

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
