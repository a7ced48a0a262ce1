"""What a metric family is: a name, closed labels, words in a CounterPage, and how those become samples.

Which families exist is gateway/metrics/__init__.py's business. No clocks, no sockets, and no text formatting: the
exposition is prometheus-client's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway._fastpath import PAGE_HEADER_WORDS, CounterPage, HistogramSlot

_WORD_SIZE = 8


class ProcessState(IntEnum):
    """What the process that owns a page is doing (CounterPage.state)."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class Layout:
    """The families of a page, one after the other. All processes share one layout, made at import."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.families: list[Family] = []
        self._words = 0
        self._reserved: list[int] = []

    def add(self, family: Family, words: int) -> int:
        """Append a family; returns its first slot."""
        self.families.append(family)
        return self._take(words)

    def reserve(self, words: int) -> int:
        """Words that are no metric and end with the process; returns the first one's slot."""
        first = self._take(words)
        self._reserved += range(first, first + words)
        return first

    def clear_reserved(self, page: CounterPage) -> None:
        """The process that owned the page is gone."""
        for slot in self._reserved:
            page.set(slot, 0)

    def _take(self, words: int) -> int:
        first, self._words = self._words, self._words + words
        return first

    @property
    def page_size(self) -> int:
        """Octets of a page, header included; whole cache lines, so that two pages never share one."""
        octets = (PAGE_HEADER_WORDS + self._words) * _WORD_SIZE
        return -(-octets // 128) * 128


Possible = Callable[..., bool]


class Family:
    """One metric family, with a fixed number of words for each combination of its label values that can occur.

    possible: whether a combination can occur, given its values in order of declaration; all can unless given.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        help_text: str,
        words_per_series: int,
        possible: Possible | None = None,
        /,
        **labels: Sequence[str],
    ) -> None:
        self.name = layout.prefix + name
        self.help = help_text
        self.labels = tuple(labels)
        combinations = [c for c in itertools.product(*labels.values()) if possible is None or possible(*c)]
        first = layout.add(self, len(combinations) * words_per_series)
        self.slots = {values: first + i * words_per_series for i, values in enumerate(combinations)}

    def _find(self, values: tuple[str, ...]) -> int:
        if values not in self.slots:
            raise KeyError(f"{self.name}{{{', '.join(self.labels)}}} has no series {values}")
        return self.slots[values]

    def collect(self, pages: Sequence[CounterPage]) -> Metric:
        """The family's samples over all pages."""
        raise NotImplementedError

    def forget(self, page: CounterPage) -> None:
        """Clear what ends with the process that owned the page; counts do not."""

    def totals(self, pages: Sequence[CounterPage]) -> dict[str, list[float]]:
        """What has been counted, by series, for a page with another layout; {} for what is no count."""
        return {}

    def restore(self, page: CounterPage, totals: Mapping[str, list[float]]) -> None:
        """Go on counting from what `totals` gave, where this family still has such series."""


class Summed(Family):
    """One word per series, summed over all pages."""

    sample_family: type[CounterMetricFamily] | type[GaugeMetricFamily]

    def __init__(
        self, layout: Layout, name: str, help_text: str, possible: Possible | None = None, /, **labels: Sequence[str]
    ) -> None:
        super().__init__(layout, name, help_text, 1, possible, **labels)

    def slot(self, *values: str) -> int:
        """The slot for CounterPage.add (and set, for gauges); one value per label, in order of declaration."""
        return self._find(values)

    def collect(self, pages: Sequence[CounterPage]) -> Metric:
        family = self.sample_family(self.name, self.help, labels=self.labels)
        for values, slot in self.slots.items():
            family.add_metric(values, sum(page.get(slot) for page in pages))
        return family


class Counter(Summed):
    """Only ever goes up; what ended processes counted stays."""

    sample_family = CounterMetricFamily

    def totals(self, pages: Sequence[CounterPage]) -> dict[str, list[float]]:
        return {"/".join(values): [sum(page.get(slot) for page in pages)] for values, slot in self.slots.items()}

    def restore(self, page: CounterPage, totals: Mapping[str, list[float]]) -> None:
        for values, slot in self.slots.items():
            if len(counts := totals.get("/".join(values), [])) == 1:
                page.set(slot, int(counts[0]))


class Gauge(Summed):
    """Goes up and down; a process that ended counts no more."""

    sample_family = GaugeMetricFamily

    def forget(self, page: CounterPage) -> None:
        for slot in self.slots.values():
            page.set(slot, 0)


class NamedSlots(Family):
    """A bounded number of words, one for each thing of a kind; who is asked for the samples knows the things' names.

    label: what the things are. slots: how many at most.
    """

    sample_family: type[CounterMetricFamily] | type[GaugeMetricFamily]

    def __init__(self, layout: Layout, name: str, help_text: str, label: str, slots: int) -> None:
        super().__init__(layout, name, help_text, 1, slot=[str(place) for place in range(slots)])
        self.labels = (label,)

    def at(self, place: int) -> int:
        """The slot of a thing by its place, for CounterPage.add and set."""
        return self.slots[str(place),]

    def collect(self, pages: Sequence[CounterPage]) -> Metric:
        return self.named(pages, ())

    def named(self, pages: Sequence[CounterPage], names: Sequence[str]) -> Metric:
        """The samples of the things that have a name, by place."""
        family = self.sample_family(self.name, self.help, labels=self.labels)
        for place, name in enumerate(names):
            slot = self.at(place)
            family.add_metric((name,), sum(page.get(slot) for page in pages))
        return family


class NamedCounter(NamedSlots):
    """Only ever goes up. Over to another layout it does not go: the names may not."""

    sample_family = CounterMetricFamily


class NamedGauge(NamedSlots):
    """Goes up and down; a process that ended counts no more."""

    sample_family = GaugeMetricFamily

    def forget(self, page: CounterPage) -> None:
        for slot in self.slots.values():
            page.set(slot, 0)


class WorkerGauge(Family):
    """A fractional gauge of each worker alive, labelled with its slot number."""

    def __init__(self, layout: Layout, name: str, help_text: str, /) -> None:
        super().__init__(layout, name, help_text, 1)
        self.labels = ("worker",)

    def slot(self) -> int:
        """The slot for CounterPage.set_float."""
        return self.slots[()]

    def collect(self, pages: Sequence[CounterPage]) -> Metric:
        return self.labelled({page.worker: page.get_float(self.slot()) for page in newest_workers(pages)})

    def labelled(self, values: Mapping[int, float]) -> Metric:
        """The family with a value per worker, for what is known without the worker's help."""
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for worker, value in values.items():
            family.add_metric((str(worker),), value)
        return family

    def forget(self, page: CounterPage) -> None:
        page.set(self.slot(), 0)


class Histogram(Family):
    """A distribution over ascending upper bounds, given in the family's base unit."""

    def __init__(
        self, layout: Layout, name: str, help_text: str, bounds: Sequence[float], /, **labels: Sequence[str]
    ) -> None:
        super().__init__(layout, name, help_text, len(bounds) + 2, **labels)  # see HistogramSlot
        self.bounds = tuple(bounds)

    def totals(self, pages: Sequence[CounterPage]) -> dict[str, list[float]]:
        last = len(self.bounds) + 1
        found = {}
        for values, first in self.slots.items():
            counts: list[float] = [sum(page.get(first + i) for page in pages) for i in range(last)]
            found["/".join(values)] = [*counts, sum(page.get_float(first + last) for page in pages)]
        return found

    def restore(self, page: CounterPage, totals: Mapping[str, list[float]]) -> None:
        for values, first in self.slots.items():
            words = totals.get("/".join(values), [])
            if len(words) == len(self.bounds) + 2:
                for i, count in enumerate(words[:-1]):
                    page.set(first + i, int(count))
                page.set_float(first + len(words) - 1, words[-1])

    def slot(self, *values: str) -> HistogramSlot:
        """The slot for CounterPage.observe."""
        return HistogramSlot(self._find(values), self.bounds)

    def collect(self, pages: Sequence[CounterPage]) -> Metric:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        for values, first in self.slots.items():
            counts = [sum(page.get(first + i) for page in pages) for i in range(len(names))]
            total = sum(page.get_float(first + len(names)) for page in pages)
            family.add_metric(values, list(zip(names, itertools.accumulate(counts), strict=True)), total)
        return family


def newest_workers(pages: Sequence[CounterPage]) -> list[CounterPage]:
    """The page of each worker slot's youngest living process, by slot: while an old generation drains, the new one
    speaks for the slot."""
    alive = sorted((page for page in pages if page.pid and page.worker >= 0), key=lambda page: page.generation)
    return sorted({page.worker: page for page in alive}.values(), key=lambda page: page.worker)
