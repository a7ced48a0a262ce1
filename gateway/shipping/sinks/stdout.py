"""The sink `stdout`: a line for each record, for whatever reads them from a pipe."""

from __future__ import annotations

import asyncio
import sys

from gateway.shipments import StdoutSettings
from gateway.shipping.dispatch import Failed, Outcome, RecordBatch, Taken


class StdoutSink:
    """Standard output."""

    def __init__(self, settings: StdoutSettings) -> None:
        pass

    async def send(self, batch: RecordBatch) -> Outcome:
        return await asyncio.to_thread(self._write, batch)

    def _write(self, batch: RecordBatch) -> Outcome:
        try:
            sys.stdout.buffer.write(b"".join(parcel.body + b"\n" for parcel in batch.parcels))
            sys.stdout.buffer.flush()
        except OSError as error:
            return Failed(str(error.strerror))
        return Taken()

    async def close(self) -> None:
        pass
