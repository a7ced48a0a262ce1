"""All shipments of a process, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

from gateway.shipments import Shipment
from gateway.shipping.shipper import HOUSEKEEPING_SECONDS, Shipper, Tell, remove_shipped

GRACE_SECONDS = 10.0  # from being told to stop until what is still sent is given up

log = logging.getLogger("gateway.shipping")


async def ship(
    shipments: Sequence[Shipment],
    tell: Tell,
    *,
    once: bool = False,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    alive: Callable[[], None] = lambda: None,
    ending: Callable[[], None] = lambda: None,
) -> bool:
    """Ships until one of the signals; once: what there is. Returns whether nothing was left.

    alive: called every few seconds. ending: called when it is told to stop. Raises OSError and ValueError for what
    keeps a shipment from being begun, and whatever a bug raises.
    """
    shippers = [Shipper(shipment, tell) for shipment in shipments]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        ending()
        stop.set()

    for number in signals:
        loop.add_signal_handler(number, end)
    house = asyncio.create_task(_keep_house(shippers, alive))
    tasks = [asyncio.create_task(shipper.run(stop, once=once)) for shipper in shippers]
    try:
        await _until_done(tasks, stop)
    finally:
        house.cancel()
    remove_shipped(shippers)
    return all(not task.cancelled() and task.result() for task in tasks)


async def _until_done(tasks: Sequence[asyncio.Task[bool]], stop: asyncio.Event) -> None:
    """An error of one ends all."""
    for task in tasks:
        task.add_done_callback(lambda task: stop.set() if task.cancelled() or task.exception() else None)
    waiting = asyncio.create_task(_cancel_late(tasks, stop))
    try:
        await asyncio.wait(tasks)
    finally:
        waiting.cancel()


async def _cancel_late(tasks: Sequence[asyncio.Task[bool]], stop: asyncio.Event) -> None:
    await stop.wait()
    await asyncio.sleep(GRACE_SECONDS)
    for task in tasks:
        task.cancel()


async def _keep_house(shippers: Sequence[Shipper], alive: Callable[[], None]) -> None:
    while True:
        alive()
        if removed := remove_shipped(shippers):
            log.info("%d shipped segments removed", removed)
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
