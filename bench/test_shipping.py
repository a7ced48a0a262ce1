"""What shipping costs for each record, beside the sink: reading behind the writers, batches, ids, acknowledgements.

python -m pytest bench/test_shipping.py
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from gateway.logs.segments import Segment
from gateway.shipments import FilesSettings, Shipment
from gateway.shipping.dispatch import Outcome, RecordBatch, Taken
from gateway.shipping.shipper import Shipper

RECORDS = 20_000


class _Nowhere:
    """Takes everything."""

    async def send(self, batch: RecordBatch) -> Outcome:
        return Taken()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("where", [None, "response.code >= 250"], ids=["all", "filtered"])
def test_ship(benchmark, tmp_path, where):
    record = {"type": "Delivery", "id": "0" * 32, "timestamp": 1, "response": {"code": 250}, "padding": "x" * 800}
    segment = Segment(str(tmp_path), ".zst", level=0, header="", now_ns=time.time_ns())
    segment.add(RECORDS * (json.dumps(record, separators=(",", ":")).encode() + b"\n"))
    segment.finish()
    names = iter(range(1000))

    def run() -> None:
        shipment = Shipment(str(next(names)), FilesSettings(str(tmp_path / "out")), (str(tmp_path),), where=where)
        shipper = Shipper(shipment, lambda *_: None)
        shipper._sink = _Nowhere()
        assert asyncio.run(shipper.run(asyncio.Event(), once=True))

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info["microseconds per record"] = benchmark.stats.stats.min / RECORDS * 1e6
    print(f"\n{benchmark.stats.stats.min / RECORDS * 1e6:.2f} us per record ({where})")
