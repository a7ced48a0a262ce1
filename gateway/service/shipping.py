"""The process of a service that ships log records, where its policy says `gateway.ship`: one for all shipments."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence

from gateway._fastpath import CounterPage
from gateway.metrics import shipments as families
from gateway.metrics.families import ProcessState
from gateway.metrics.shipments import Told
from gateway.service.context import EX_TEMPFAIL
from gateway.shipments import Shipment
from gateway.shipping.running import ship

log = logging.getLogger(__name__)


def run(
    shipments: Sequence[Shipment], places: Sequence[int], page: CounterPage, enter: Callable[[ProcessState], None]
) -> int:
    """Ships until SIGTERM; returns the exit code. States and SIGTERM as for a worker.

    places: of the shipments in the families by shipment. It is ready at once: no mail depends on it.
    """
    place_of = {shipment.name: place for shipment, place in zip(shipments, places, strict=True)}

    def tell(shipment: Shipment, told: Told) -> None:
        families.tell(page, place_of[shipment.name], told)

    def beat() -> None:
        page.heartbeat = time.monotonic()

    beat()
    enter(ProcessState.READY)
    try:
        asyncio.run(
            ship(
                shipments,
                tell,
                signals=(signal.SIGTERM,),
                alive=beat,
                ending=lambda: enter(ProcessState.DRAINING),
            )
        )
    except (OSError, ValueError, ImportError) as error:
        name = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        log.error("records are not shipped: %s%s", name, getattr(error, "strerror", None) or error)
        return EX_TEMPFAIL
    return 0
