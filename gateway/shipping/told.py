"""What is counted in a process that ships, for those who look on: in a page of counters, or in a file."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.metrics import shipments as families
from gateway.metrics.shipments import Told
from gateway.shipments import Shipment

log = logging.getLogger("gateway.shipping")


class Tally:
    """What one shipment counts from one telling to the next, by the names of gateway/metrics/shipments.py."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, int] = {}

    def told(self) -> Told:
        """All of it, once."""
        told = Told(self.counts, self.gauges)
        self.counts, self.gauges = Counter(), {}
        return told


class MetricsFile:
    """Prometheus' text format in a file, for node_exporter's textfile collector."""

    def __init__(self, path: str | None, shipments: Sequence[Shipment]) -> None:
        """path: None for no file."""
        self._path = path
        self._names = [shipment.name for shipment in shipments]
        self._page = CounterPage(bytearray(metrics.page_size()))
        self._registry = CollectorRegistry()
        self._registry.register(_Shipping(self._page, self._names))
        self._failed = False

    def tell(self, shipment: Shipment, told: Told) -> None:
        """Writes the file anew, where there are gauges."""
        place = min(self._names.index(shipment.name), families.MOST - 1)
        families.tell(self._page, place, told)
        if self._path is None or not told.gauges:
            return
        try:
            with open(self._path + ".new", "wb") as file:
                file.write(generate_latest(self._registry))
            os.replace(self._path + ".new", self._path)
        except OSError as error:
            if not self._failed:
                log.error("%s: %s", self._path, error.strerror)
            self._failed = True


class _Shipping(Collector):
    def __init__(self, page: CounterPage, names: Sequence[str]) -> None:
        self._page, self._names = page, names

    def collect(self) -> list[Metric]:
        wanted = [*families.COUNTERS.values(), *families.GAUGES.values()]
        return [family.named([self._page], families.names(self._names)) for family in wanted]
