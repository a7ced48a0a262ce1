"""What a worker does about the memory and files of its contents once a second: tells the metrics, tells the log what
could not be kept, and gives back to the system what was freed.
"""

from __future__ import annotations

import logging
import os

from gateway import metrics
from gateway._fastpath import ContentStore, CounterPage, trim_memory

log = logging.getLogger(__name__)

# Octets of resident memory beyond the contents' by which a worker may have grown before it looks what of it is free.
# glibc keeps freed memory, for the most part: without this a worker stays as large as it ever was.
WORTH_TRIMMING = 16 << 20

_MEMORY = metrics.CONTENT_MEMORY.slot()
_LIMIT = metrics.CONTENT_MEMORY_LIMIT.slot()
_FILES = metrics.CONTENT_FILES.slot()
_FILE_BYTES = metrics.CONTENT_FILE_BYTES.slot()
_WRITTEN = metrics.CONTENT_WRITTEN.slot()
_FAILURES = metrics.CONTENT_FAILURES.slot()
_WAITING = metrics.CONTENT_WAITING.slot()


class ContentWatch:
    """Watches over one worker's contents. directory: where their files are, for the log."""

    def __init__(self, contents: ContentStore, page: CounterPage, directory: str) -> None:
        self._contents = contents
        self._page = page
        self._directory = directory
        self._written = self._failures = 0
        self._other_memory = _resident()  # octets that were resident besides the contents when it was last trimmed

    def beat(self, waiting: int) -> None:
        """To be called about once a second. waiting: clients that are not read from for want of room or a turn."""
        contents, page = self._contents, self._page
        page.set(_MEMORY, contents.memory)
        page.set(_LIMIT, contents.limit)
        page.set(_FILES, contents.files)
        page.set(_FILE_BYTES, contents.file_octets)
        page.set(_WAITING, waiting)
        page.add(_WRITTEN, contents.written - self._written)
        self._written = contents.written
        if (failed := contents.failures - self._failures) > 0:
            self._failures += failed
            page.add(_FAILURES, failed)
            problem = os.strerror(contents.error)
            log.error("%d messages were refused: no room for them in %s: %s", failed, self._directory, problem)
        self._trim()

    def _trim(self) -> None:
        other = _resident() - self._contents.memory
        if other > self._other_memory + WORTH_TRIMMING:
            trim_memory()
            self._other_memory = _resident() - self._contents.memory
        else:
            self._other_memory = min(other, self._other_memory)


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
