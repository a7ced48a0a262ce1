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
    """Bytes in, whole replies out.

    pending: what arrived after the last whole reply. malformed: what is wrong with that; None while it may become a
    reply. A stream that was malformed once cannot be trusted any more.
    """

    __slots__ = ("malformed", "pending")

    def __init__(self) -> None:
        self.pending = b""
        self.malformed: str | None = None

    def read(self, data: bytes) -> list[Answer]:
        """The replies that are complete with this piece of what the server sent."""
        buffer = self.pending + data if self.pending else data
        answers: list[Answer] = []
        start = 0
        while start < len(buffer):
            code = _CODES.get(buffer[start : start + 4])
            if code is not None and (end := buffer.find(b"\n", start) + 1):  # nearly every reply: one line with a text
                answers.append((code, buffer[start:end]))
            elif match := _REPLY.match(buffer, start):
                end = match.end()
                answers.append((int(match[1]), match[0]))
            else:
                break
            start = end
        self.pending = buffer[start:]
        if self.pending:
            self._examine_pending()
        return answers

    def _examine_pending(self) -> None:
        pending = self.pending
        lines = pending[: pending.rfind(b"\n") + 1]
        if len(pending) > MAX_REPLY:
            self.malformed = "a reply without an end"
        elif lines and not _UNFINISHED.match(lines):
            self.malformed = f"not a reply: {lines[:80]!r}"
