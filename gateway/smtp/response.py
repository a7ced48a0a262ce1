"""What an upstream server answers: an incremental reader of replies, and the values they become.

Liberal in what RFC 5321 §4.2 leaves to taste (bare LF, no text, no enhanced code), strict where a misreading could turn
a refusal into a delivery: every line starts with the same three digits, a reply is bounded, and nothing is skipped.
No state of the session is known here: that is gateway/smtp/client.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.smtp.replies import Reply, split_enhanced

MAX_REPLY = 16 * 1024  # octets; RFC 5321 §4.5.3.1.5 allows 512 a line, and an EHLO has a line per extension

# RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF, one code
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:-[^\n]*\n\1)*(?: [^\n]*)?\r?\n")
_CODES = {b"%d " % code: code for code in range(200, 600)}
_UNFINISHED = re.compile(rb"([2-5][0-9][0-9])-[^\n]*\n(?:\1-[^\n]*\n)*\Z")

Answer = tuple[int, bytes]  # a reply's code, and all its octets


class MalformedReply(Exception):
    """What arrived is no SMTP reply, or has no end in sight."""


@dataclass(slots=True)
class Response:
    """A reply as log records show it. `command` is what it answers, with its CRLF; None where nothing was asked."""

    code: int
    enhanced: str  # "" where the reply has none
    content: str  # the text without the codes; "\\n" separates lines
    command: str | None = None

    @classmethod
    def of(cls, answer: Answer, command: str | None) -> Response:
        """The readable form of what an upstream answered to `command`."""
        code, octets = answer
        first, *others = octets[4:].decode("utf-8", "replace").rstrip("\r\n").split("\n")
        enhanced, text = split_enhanced(code, first.rstrip("\r"))
        if others:
            text = "\n".join([text, *(split_enhanced(code, line[4:].rstrip("\r"))[1] for line in others)])
        return cls(code, enhanced, text, command)

    @classmethod
    def from_reply(cls, reply: Reply) -> Response:
        """The gateway's own words, where no upstream has said anything."""
        return cls(reply.code, reply.enhanced, reply.text)


class ReplyReader:
    """Bytes in, whole replies out."""

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0

    @property
    def empty(self) -> bool:
        """True when every octet received belonged to a reply that was taken."""
        return self._start == len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More of what the server sent."""
        self._buffer = data if self.empty else self._buffer[self._start :] + data
        self._start = 0

    def next_answer(self) -> Answer | None:
        """The next complete reply; None while there is none.

        Raises MalformedReply, after which the stream cannot be trusted any more.
        """
        start = self._start
        buffer = self._buffer
        if start == len(buffer):
            return None
        code = _CODES.get(buffer[start : start + 4])
        if code is not None and (end := buffer.find(b"\n", start) + 1):  # nearly every reply: one line with a text
            self._start = end
            return code, buffer[start:end]
        match = _REPLY.match(buffer, start)
        if match is None:
            self._check_unfinished()
            return None
        self._start = match.end()
        return int(match[1]), match[0]

    def _check_unfinished(self) -> None:
        pending = self._buffer[self._start :]
        if len(pending) > MAX_REPLY:
            raise MalformedReply("a reply without an end")
        lines = pending[: pending.rfind(b"\n") + 1]
        if lines and not _UNFINISHED.match(lines):
            raise MalformedReply(f"not a reply: {lines[:80]!r}")
