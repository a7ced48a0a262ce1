"""The loop of one shipment: reads, sends, notes what is acknowledged, and keeps house. It has the clocks.

An error of a log directory or of the state's is said once and tried again; nothing is shipped meanwhile that could not
be noted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.logs.identity import node_id
from gateway.logs.segments import is_complete, list_segments
from gateway.metrics.shipments import Told
from gateway.shipments import Shipment
from gateway.shipping import sinks
from gateway.shipping.dispatch import BatchLimits, Dispatch, Failed, Mark, NeverTaken, Parcel, RecordBatch
from gateway.shipping.forms import Forms
from gateway.shipping.progress import ShippingProgress
from gateway.shipping.source import RecordSource, id_prefix
from gateway.shipping.state import DIRECTORY, ShippingState
from gateway.shipping.told import Tally

log = logging.getLogger("gateway.shipping")

POLL_SECONDS = 0.25  # from one look for new records to the next
HOUSEKEEPING_SECONDS = 5.0
RETRY_SECONDS = 1.0  # after an error of the disk
LAST_CHANCE_SECONDS = 5.0  # that what was read gets when the process is to end

Tell = Callable[[Shipment, Told], None]


class Shipper:
    """One shipment on its way. `progress` is for whoever removes segments, and has to know all shipments."""

    def __init__(self, shipment: Shipment, tell: Tell) -> None:
        """tell: takes what was counted, now and then. Raises what `sinks.make` raises."""
        self.shipment = shipment
        self.directories = [os.path.abspath(directory) for directory in shipment.log_dirs]
        self._tell = tell
        self._forms = Forms(shipment, *sinks.texts(shipment.sink))
        self._sink = sinks.make(shipment.sink)
        self._state = ShippingState(shipment.state_dir or os.path.join(self.directories[0], DIRECTORY), shipment.name)
        self._dispatch = Dispatch(
            BatchLimits(
                shipment.max_batch_records,
                shipment.max_batch_size,
                shipment.max_batch_delay,
                longest_retry=shipment.max_retry_interval,
            )
        )
        self._prefixes = {directory: id_prefix(node_id(), directory) for directory in self.directories}
        self._source: RecordSource | None = None
        self._tally = Tally()
        self._next_look = 0.0  # when to keep house
        self._troubled = False
        self._last_failure = ""
        self._unnoted: list[Mark] = []  # acknowledged, and not yet in the state

    @property
    def progress(self) -> ShippingProgress | None:
        """How far it is; None while another process has the shipment."""
        return self._state.progress if self._source is not None else None

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> bool:
        """Ships until it is to stop; once: until all that there is now is shipped, or an attempt fails. Returns whether
        nothing was left. Raises ValueError where the state cannot be understood, OSError where it cannot be used.
        """
        try:
            if not await self._claimed(stop, once):
                return False
            while not stop.is_set():
                ended = await self._step(stop, once)
                if ended is not None:
                    return ended
            return await self._last_chance()
        finally:
            with suppress(OSError):
                self._keep_house()
            await self._sink.close()
            if self._source is not None:
                self._source.close()
            self._state.release()

    async def _claimed(self, stop: asyncio.Event, once: bool) -> bool:
        waiting = False
        while not self._state.claim():
            if stop.is_set():
                return False
            if once:
                log.error("shipment '%s': another process ships it", self.shipment.name)
                return False
            if not waiting:
                log.info("shipment '%s': waiting for another process that ships it", self.shipment.name)
                waiting = True
            await _pause(stop, POLL_SECONDS)
        self._state.load(self.directories)
        self._source = RecordSource(self.directories, self._state.progress)
        return True

    async def _step(self, stop: asyncio.Event, once: bool) -> bool | None:
        """One turn; the result of `run` where that is to end."""
        try:
            self._read()
            self._note()
            if time.monotonic() >= self._next_look:
                self._keep_house()
            self._recovered()
        except OSError as error:
            self._trouble(error)
            if once:
                return False
            await _pause(stop, RETRY_SECONDS)
            return None
        batch = self._dispatch.due(time.monotonic(), flush=once and self._source_is_exhausted)
        self._note()
        if batch is not None:
            sent = await self._send(batch)
            return False if once and not sent else None
        if once and self._source_is_exhausted and not self._dispatch.unacknowledged:
            return True
        await _pause(stop, max(0.0, min(self._dispatch.next_at() - time.monotonic(), POLL_SECONDS)))
        return None

    async def _last_chance(self) -> bool:
        """Sends what was read, as long as the sink takes it."""
        end = time.monotonic() + LAST_CHANCE_SECONDS
        try:
            self._read()
            while (batch := self._dispatch.due(time.monotonic(), flush=True)) is not None:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                    if not await self._send(batch):
                        break
                self._read()
            self._note()
        except OSError as error:  # a time-out is one
            log.warning("shipment '%s': ended before all was shipped: %s", self.shipment.name, error or "no answer")
        return not self._dispatch.unacknowledged

    @property
    def _source_is_exhausted(self) -> bool:
        return self._source is not None and self._source.is_exhausted

    def _read(self) -> None:
        assert self._source is not None
        now = time.monotonic()
        for mark, line, opened in self._source.read(lambda: self._dispatch.has_room):
            parcel = None
            if line is not None:
                id = f"{self._prefixes[mark.directory]}-{mark.segment}-{mark.position}"
                parcel = self._forms.parcel(id, line, opened)
                self._tally.counts["unwanted"] += parcel is None
            if parcel is None:
                self._dispatch.skip(mark, now)
            else:
                self._dispatch.offer(parcel, mark, now)

    async def _send(self, batch: RecordBatch) -> bool:
        counts, count = self._tally.counts, len(batch.parcels)
        counts["sent"] += count
        counts["retried"] += count if batch.attempt > 1 else 0
        before = self._dispatch.unacknowledged
        outcome = await self._sink.send(batch)
        aside = self._dispatch.settle(outcome, time.monotonic(), random.random())
        match outcome:
            case Failed(why):
                counts["failures"] += 1
                self._say_failure(why)
            case NeverTaken(why) if aside is not None:
                await self._set_aside(aside, why)
                counts["refused"] += 1
                counts["acknowledged"] -= 1
            case NeverTaken(why):
                log.info("shipment '%s': %d records were refused, trying fewer: %s", self.shipment.name, count, why)
        counts["acknowledged"] += before - self._dispatch.unacknowledged
        if not isinstance(outcome, Failed) and self._last_failure:
            log.warning("shipment '%s': its sink takes records again", self.shipment.name)
            self._last_failure = ""
        self._note_if_possible()
        self._tell(self.shipment, self._tally.told())
        return not isinstance(outcome, Failed)

    async def _set_aside(self, parcel: Parcel, why: str) -> None:
        """Until it is kept nothing else is done: it counts as acknowledged already, though that is not noted yet."""
        log.error("shipment '%s': record %s is refused and set aside: %s", self.shipment.name, parcel.id, why)
        while True:
            try:
                return self._state.set_aside(parcel, why)
            except OSError as error:
                self._trouble(error)
                await asyncio.sleep(RETRY_SECONDS)

    def _note(self) -> None:
        self._unnoted += self._dispatch.acknowledged()
        self._state.save(self._unnoted)
        self._unnoted = []

    def _note_if_possible(self) -> None:
        try:
            self._note()
        except OSError as error:
            self._trouble(error)

    def _trouble(self, error: OSError) -> None:
        if not self._troubled:
            log.error("shipment '%s': %s: %s", self.shipment.name, error.filename, error.strerror)
        self._troubled = True

    def _recovered(self) -> None:
        if self._troubled:
            log.warning("shipment '%s': files can be used again", self.shipment.name)
        self._troubled = False

    def _say_failure(self, why: str) -> None:
        """Each reason once, until something succeeds."""
        if why != self._last_failure:
            log.warning("shipment '%s': not taken, trying again: %s", self.shipment.name, why)
        self._last_failure = why

    def _keep_house(self) -> None:
        """Raises OSError; what was counted is told all the same."""
        self._next_look = time.monotonic() + HOUSEKEEPING_SECONDS
        try:
            if self._source is not None:
                if self.shipment.max_held is not None:
                    self._keep_bound(self._source, self.shipment.max_held)
                self._tally.gauges = self._gauges(self._source)
        finally:
            self._tell(self.shipment, self._tally.told())

    def _gauges(self, source: RecordSource) -> dict[str, int]:
        held = source.held()
        oldest = self._dispatch.oldest
        return {
            "held_segments": held.segments,
            "held_octets": held.octets,
            "lag_octets": held.unread + self._dispatch.octets,
            "lag_records": self._dispatch.unacknowledged,
            "lag_seconds": max(0, int(time.time() - oldest.when)) if oldest is not None else 0,
            "held_limit": self.shipment.max_held or 0,
        }

    def _keep_bound(self, source: RecordSource, most: int) -> None:
        for mark, octets in source.give_up(most):
            self._dispatch.skip(mark, time.monotonic())
            self._tally.counts["dropped_segments"] += 1
            self._tally.counts["dropped_octets"] += octets
            log.error(
                "shipment '%s': more than max_held is waiting, so %s is given up", self.shipment.name, mark.segment
            )


def remove_shipped(shippers: Sequence[Shipper]) -> int:
    """Removes the complete segments that all shipments of their directory are done with, where all of them have
    `remove_shipped`; returns how many.
    """
    removed = 0
    for directory in {directory for shipper in shippers for directory in shipper.directories}:
        readers = [shipper for shipper in shippers if directory in shipper.directories]
        places = [shipper.progress for shipper in readers if shipper.shipment.remove_shipped]
        if len(places) < len(readers):
            continue
        known = [progress for progress in places if progress is not None]
        if len(known) == len(readers):
            removed += _removed(directory, known)
    return removed


def _removed(directory: str, places: Sequence[ShippingProgress]) -> int:
    removed = 0
    try:
        for path in list_segments(directory):
            name = os.path.basename(path)
            if all(place.is_shipped(directory, name) for place in places) and is_complete(os.stat(path)):
                os.unlink(path)
                removed += 1
    except FileNotFoundError:  # somebody else was quicker
        pass
    except OSError as error:
        log.error("cannot remove shipped segments of %s: %s", directory, error.strerror)
    return removed


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
