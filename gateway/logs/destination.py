"""Where records of one logger go: one open segment, the records that wait for it, and what happens on errors.

The event loop appends to `lines`; everything else belongs to the writer's thread.
"""

from __future__ import annotations

import errno
import logging
import os

from gateway.config import LocalLogs, RecordSettings
from gateway.logs.encoding import Template
from gateway.logs.segments import Segment

log = logging.getLogger("gateway.logs")

MOST_RECORDS = 4096  # that are compressed in one go
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class RecordDestination:
    """Records of one logger that share a directory, a suffix and a form."""

    def __init__(self, config: LocalLogs, settings: RecordSettings) -> None:
        self.directory = settings.log_dir or config.log_dir
        self.lines: list[bytes] = []  # always this list
        self.written = 0  # records so far
        self.expires = float("inf")  # when the open segment has to be completed; monotonic seconds
        self.retry_at: float | None = None  # when to try again after an error; monotonic seconds
        self._config = config
        self._settings = settings
        self._template = Template(settings.template) if settings.template is not None else None
        self._segment: Segment | None = None
        self._batch = b""
        self._batch_records = 0
        self._added = False  # the batch is in the segment's stream, though not yet all in the file

    @property
    def backlog(self) -> int:
        """Records not yet written."""
        return len(self.lines) + self._batch_records

    @property
    def due(self) -> float:
        """When to look at it again although no record comes; monotonic seconds. After an error nothing is done before
        the next attempt, not even for a segment that has expired.
        """
        return self.expires if self.retry_at is None else self.retry_at

    def write(self, now: float, now_ns: int) -> None:
        """Writes what waits.

        now: monotonic seconds; now_ns: nanoseconds since 1970. Raises OSError; nothing unwritten is lost then.
        """
        if self._segment is not None and not self._added and (now >= self.expires or self._segment.unlinked):
            self.finish()
        everything = self.written + self.backlog  # what comes meanwhile is the next round's: few records compress badly
        while self.written < everything and self._take_batch():
            segment = self._opened(now, now_ns)
            if not self._added:
                segment.add(self._batch)
                self._added = True
            try:
                segment.flush()
            except OSError as error:
                if error.errno not in _NO_SPACE:  # with space again it can go on; after EIO, ESTALE… it cannot
                    self._give_up()
                raise
            self.written += self._batch_records
            self._batch, self._batch_records, self._added = b"", 0, False
            if segment.size >= self._config.max_file_size:
                self.finish()

    def sync(self) -> None:
        """Makes everything written durable.

        Raises OSError; the segment is given up then, because the kernel reports a failed write-back only once.
        """
        if self._segment is not None:
            try:
                self._segment.sync()
            except OSError:
                self._give_up()
                raise

    def finish(self) -> None:
        """Completes the open segment, if there is one. Raises OSError."""
        segment, self._segment, self.expires = self._segment, None, float("inf")
        self._added = False
        if segment is not None:
            segment.finish()

    def _take_batch(self) -> bool:
        if not self._batch and self.lines:
            lines = self.lines[:MOST_RECORDS]
            self._batch = b"".join(lines if self._template is None else map(self._rendered, lines))
            self._batch_records = len(lines)
            del self.lines[: len(lines)]
        return bool(self._batch)

    def _rendered(self, line: bytes) -> bytes:
        assert self._template is not None
        try:
            return self._template.render(line)
        except Exception:  # whatever a policy's template does, its record is kept
            log.exception("a template failed; the record is written as JSON")
            return line

    def _opened(self, now: float, now_ns: int) -> Segment:
        if self._segment is None:
            os.makedirs(self.directory, exist_ok=True)
            self._segment = Segment(
                self.directory,
                self._settings.suffix,
                level=self._config.compression_level,
                header=self._settings.segment_header,
                now_ns=now_ns,
            )
            if self._config.max_segment_duration is not None:
                self.expires = now + self._config.max_segment_duration
        return self._segment

    def _give_up(self) -> None:
        segment, self._segment, self.expires = self._segment, None, float("inf")
        self._added = False
        if segment is not None:
            segment.abandon()
