"""The records of messages that somebody follows on the status page, read behind their writers. Blocks: for a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from gateway.logs.merging import LogEntry, parsed
from gateway.logs.reader import DirectoryReader
from gateway.logs.terse import line_of

MOST_LINES = 512  # records that are remembered
MOST_UNREAD = 4 << 20  # octets of a segment; with more, what is written there is left to `relay-gateway logs`


class RecentRecords:
    """The last records of directories, from the segments that are written now."""

    def __init__(self, directories: Sequence[str], oldest: float) -> None:
        """oldest: leave out segments that nothing was added to after this time, in seconds since 1970."""
        self._readers = [DirectoryReader(directory, oldest=oldest) for directory in directories]
        self._lines: deque[bytes] = deque(maxlen=MOST_LINES)

    def look(self) -> None:
        """Reads what came since the last call. Raises OSError."""
        for reader in self._readers:
            for segment in reader.segments():
                if segment.unread > MOST_UNREAD:
                    reader.give_up(segment.path)
                else:
                    self._lines.extend(segment.lines())

    def told(self, names: Iterable[str]) -> list[str]:
        """A line for each record that has one of these ids, of a message or session, in it."""
        wanted = [name.encode() for name in names]
        found = [line for line in list(self._lines) if any(name in line for name in wanted)]
        return [line_of(LogEntry(0.0, line, parsed(line))) for line in found]

    def close(self) -> None:
        """Closes the segments."""
        for reader in self._readers:
            reader.close()
