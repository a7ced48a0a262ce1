"""What a courier is: whoever can take a batch for destinations of one type.

The fleet's and the Maildirs' are beside this file; gateway/couriers/couriers.py chooses. A courier knows the batch and
the destination, and nothing of the client or the session that the message came from.
"""

from __future__ import annotations

from gateway.config import Destination
from gateway.handover import Batch
from gateway.later import Later


class Courier:
    """The base of all couriers. Times are on the event loop's clock, calls come from its thread."""

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """Take a batch on. The answer is its HandOver, never there before this has returned.

        What is not delivered by the deadline comes back TRANSIENT, or UNKNOWN if the next hop may have it.
        """
        raise NotImplementedError

    def room(self, destination: Destination) -> int:
        """How many batches more could be under way to it at once, as far as is known; 0 while others wait."""
        raise NotImplementedError

    def sweep(self, now: float) -> bool:
        """Notice whose time is up. True while there is something that wants to be swept again."""
        raise NotImplementedError

    def close(self, deadline: float) -> None:
        """Keep nothing for later batches. Those under way go on until the deadline, and then end as if it were theirs.

        Sweeps go on, and return False when all is over.
        """
        raise NotImplementedError
