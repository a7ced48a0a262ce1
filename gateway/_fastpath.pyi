# The typed, documented face of gateway/_fastpath.pyx. One section per fragment, in the same order.

from collections.abc import Sequence
from mmap import mmap

# --- cidr.pxi ---------------------------------------------------------------------------------------------

# --- framing.pxi ------------------------------------------------------------------------------------------

# --- report.pxi -------------------------------------------------------------------------------------------

# --- counters.pxi -----------------------------------------------------------------------------------------
PAGE_HEADER_WORDS: int

class HistogramSlot:
    """Where a histogram's words are in a page, and its upper bounds (at most 32, ascending)."""

    first: int
    def __init__(self, first: int, bounds: Sequence[float]) -> None: ...

class CounterPage:
    """A process's page of 64-bit words in memory shared with others.

    Only the owner writes, and no call enters the kernel; anyone who maps the memory may read. Slots come from
    gateway/metrics.py; one outside the page raises IndexError. A page of zero bytes is a valid, unused page.
    """

    pid: int  # the owner's, 0 while nobody owns the page
    worker: int  # the owner's worker slot, -1 for the supervisor
    generation: int
    state: int  # a gateway.metrics.State
    heartbeat: float  # CLOCK_MONOTONIC seconds, written by the owner's event loop
    def __init__(self, buffer: bytearray | memoryview | mmap) -> None:
        """buffer: writable, aligned to 8 bytes, held for as long as the page lives (an mmap cannot be closed)."""
    def __len__(self) -> int: ...
    def add(self, slot: int, n: int = 1) -> None: ...
    def set(self, slot: int, value: int) -> None: ...
    def set_float(self, slot: int, value: float) -> None:
        """For the gauges declared as fractional."""
    def get(self, slot: int) -> int: ...
    def get_float(self, slot: int) -> float: ...
    def observe(self, histogram: HistogramSlot, value: float) -> None:
        """Count `value` (in the histogram's base unit: seconds) under the first bound that is not below it."""
