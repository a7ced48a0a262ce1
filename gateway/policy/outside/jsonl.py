"""`kumo.jsonl`: records of a policy's own, written as the gateway's are: lines of JSON in segments of zstd.

Written in threads; while the policy is loaded, where they are called. Reading segments is not here: the commands
`relay-gateway logs` and `ship` do that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.logs.segments import Segment, seal_abandoned
from gateway.policy.kumo import times
from gateway.policy.kumo.serde import json_encode
from gateway.policy.kumo.values import Objects, binary, string
from gateway.policy.options import Option, Schema, accepted, duration
from gateway.policy.options import integer as whole
from gateway.policy.options import string as text
from gateway.policy.outside.outside import Outside, read_known_options

NEW_WRITER = Schema(
    {
        "log_dir": Option(text, required=True),
        "max_file_size": Option(whole(1), default=134217728),
        "compression_level": Option(whole(0, 22), default=3),
        "max_segment_duration": Option(duration),
        "suffix": Option(text, default=""),
        "tz": accepted(text),
    }
)


class JsonlWriter:
    """Writes lines into one segment after the other. Used by one thread at a time."""

    def __init__(self, outside: Outside, options: dict[str, Any]) -> None:
        self.outside = outside
        self.lock = asyncio.Lock()
        self._options = options
        self._segment: Segment | None = None
        self._ends = 0.0  # when the segment is old enough, by the policy's clock

    def write(self, line: bytes) -> None:
        """One line. Raises OSError; what was written before stays."""
        now = self.outside.clock()
        segment = self._segment
        if segment is not None and (segment.size >= self._options["max_file_size"] or now >= self._ends):
            self.finish()
        if self._segment is None:
            self._segment = self._begun(now)
        try:
            self._segment.add(line)
            self._segment.flush()
        except OSError:
            self._segment.abandon()
            self._segment = None
            raise

    def finish(self) -> None:
        """Completes the segment, if there is one; the next line begins another. Raises OSError."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.finish()

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self.finish()

    def _begun(self, now: float) -> Segment:
        options = self._options
        directory, lasts = options["log_dir"], options.get("max_segment_duration")
        os.makedirs(directory, exist_ok=True)
        seal_abandoned(directory)
        self._ends = now + lasts if lasts else float("inf")
        return Segment(
            directory, options["suffix"], level=options["compression_level"], header="", now_ns=times.now().nanoseconds
        )


def new_writer(outside: Outside, options: Any = None) -> JsonlWriter:
    """writes records of the policy's own into segments like those of `kumo.configure_local_logs`; see
    [Records of one's own](#records-of-ones-own)
    """
    return JsonlWriter(outside, read_known_options("kumo.jsonl.new_writer", NEW_WRITER, options))


def _write_line(writer: JsonlWriter, line: Any) -> Any:
    octets = binary(string(line, "write_line"))
    whole_line = octets if octets.endswith(b"\n") else octets + b"\n"
    return _done(writer, "write_line", lambda: writer.write(whole_line))


def _write_record(writer: JsonlWriter, value: Any) -> Any:
    octets = binary(json_encode(value)) + b"\n"
    return _done(writer, "write_record", lambda: writer.write(octets))


def _close(writer: JsonlWriter) -> Any:
    return _done(writer, "close", writer.finish)


def _done(writer: JsonlWriter, function: str, work: Callable[[], None]) -> Any:
    def checked() -> None:
        try:
            work()
        except OSError as error:
            raise ValueError(f"{function}: {error.strerror or error}") from None

    return checked() if writer.outside.loading() else _alone(writer, checked)


async def _alone(writer: JsonlWriter, work: Callable[[], None]) -> None:
    if writer.outside.background.is_rehearsal:
        return
    async with writer.lock:
        await writer.outside.in_thread(work)


FUNCTIONS: dict[str, Callable[..., Any]] = {"new_writer": new_writer}
OBJECTS: Objects = {
    JsonlWriter: ({"write_line": _write_line, "write_record": _write_record, "close": _close}, {}),
}
WAITING = frozenset(f"JsonlWriter:{name}" for name in ("write_line", "write_record", "close"))
