"""What an upstream server answers: an incremental reader of replies, and the values they become.

Liberal in what RFC 5321 §4.2 leaves to taste (bare LF, no text, no enhanced code), strict where a misreading could turn
a refusal into a delivery: every line starts with the same three digits, a reply is bounded, and nothing is skipped.
No state of the session is known here: that is gateway/smtp/client.py.
"""

from __future__ import annotations

import re

from gateway.smtp.replies import Reply, split_enhanced

MAX_REPLY = 16 * 1024  # octets; RFC 5321 §4.5.3.1.5 allows 512 a line, and an EHLO has a line per extension

# RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF, one code
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:-[^\n]*\n\1)*(?: [^\n]*)?\r?\n")
_UNFINISHED = re.compile(rb"([2-5][0-9][0-9])-[^\n]*\n(?:\1-[^\n]*\n)*\Z")

Answer = tuple[int, bytes]  # a reply's code, and all its octets

# What makes a 452 or 552 to RCPT one about their number, and not about storage.
_TOO_MANY = re.compile(rb"...[ -](?:[45]\.5\.3\b|(?![245]\.)[^\r\n]*too many)", re.IGNORECASE)

_OF_AN_ADDRESS, _POSITIVE = b"2.1.", b"2."  # RFC 3463 §3.2, §2


class Response:
    """A reply as log records show it.

    enhanced: "" where the reply has none. content: the text without the codes; "\\n" separates lines. command: what it
    answers, with its CRLF; None where nothing was asked.
    """

    def __init__(self, code: int, enhanced: str, content: str, command: str | None = None) -> None:
        self.code = code
        self.enhanced = enhanced
        self.content = content
        self.command = command

    def __repr__(self) -> str:
        return f"Response({self.code}, {self.enhanced!r}, {self.content!r}, {self.command!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @classmethod
    def from_reply(cls, reply: Reply) -> Response:
        """The gateway's own words, where no upstream has said anything."""
        return cls(reply.code, reply.enhanced, reply.text)


def response_to(command: str | None, answer: Answer) -> Response:
    """The readable form of what an upstream answered to `command`."""
    code, octets = answer
    end = len(octets)
    while end > 4 and octets[end - 1] in b"\r\n":
        end -= 1
    text = octets[4:end].decode("utf-8", "replace")
    if "\n" not in text:
        enhanced, text = split_enhanced(code, text)
    else:
        first, *others = [line.rstrip("\r") for line in text.split("\n")]
        enhanced, first = split_enhanced(code, first)
        text = "\n".join([first, *[split_enhanced(code, line[4:])[1] for line in others]])
    return Response(code, enhanced, text, command)


class ReplyReader:
    """Bytes in, whole replies out.

    pending: what arrived after the last whole reply. malformed: what is wrong with that; None while it may become a
    reply. A stream that was malformed once cannot be trusted any more.
    """

    def __init__(self) -> None:
        self.pending = b""
        self.malformed: str | None = None

    def read(self, data: bytes) -> list[Answer]:
        """The replies that are complete with this piece of what the server sent."""
        buffer = self.pending + data if self.pending else data
        answers: list[Answer] = []
        octets = buffer  # compiled: a C pointer, of which a slice costs a quarter
        start = 0
        while start < len(buffer):
            code = _code_of_last_line(buffer, start)
            end = _line_end(buffer, start)
            if code and end:  # nearly every reply: one line with a text
                answers.append((code, octets[start:end]))
            elif match := _REPLY.match(buffer, start):
                end = match.end()
                answers.append((int(match[1]), match[0]))
            else:
                break
            start = end
        self.pending = b""
        if start < len(buffer):
            self.pending = buffer[start:]
            self._examine_pending()
        return answers

    def _examine_pending(self) -> None:
        pending = self.pending
        lines = pending[: pending.rfind(b"\n") + 1]
        if len(pending) > MAX_REPLY:
            self.malformed = "a reply without an end"
        elif lines and not _UNFINISHED.match(lines):
            self.malformed = f"not a reply: {lines[:80]!r}"


def _code_of_last_line(buffer: bytes, start: int) -> int:
    """The code that stands there with a space behind it, as on a reply's last or only line; 0 for anything else."""
    octets = buffer  # compiled: a C pointer
    if len(buffer) < start + 4 or octets[start + 3] != 0x20:
        return 0
    first, second, third = octets[start] - 0x30, octets[start + 1] - 0x30, octets[start + 2] - 0x30
    return 100 * first + 10 * second + third if 2 <= first <= 5 and 0 <= second <= 9 and 0 <= third <= 9 else 0


def _line_end(buffer: bytes, start: int) -> int:
    """The place behind the line that starts there; 0 where its LF has not arrived."""
    octets = buffer
    for place in range(start, len(buffer)):
        if octets[place] == 0x0A:
            return place + 1
    return 0


def extensions_of(ehlo_answer: bytes) -> dict[str, str]:
    """RFC 5321 §4.1.1.1: one keyword and its parameters on every line but the first."""
    extensions = {}
    for line in ehlo_answer.decode("ascii", "replace").split("\n")[1:-1]:
        keyword, _, parameters = line[4:].strip().partition(" ")
        extensions[keyword.upper()] = parameters.strip()
    return extensions


def belongs(rcpt: Answer, verdict: Answer) -> bool:
    """Whether 2xx to RCPT and to BDAT are what they were taken for: an answer in front of them that nobody asked for
    would have moved the one to RCPT into the place of the one to BDAT, and another into its own.
    """
    code = verdict[1][4:8]
    return rcpt[1][4:8] == _OF_AN_ADDRESS and code != _OF_AN_ADDRESS and code.startswith(_POSITIVE)


def has_enough(answer: Answer) -> bool:
    """True where a RCPT is refused only because this transaction has too many: RFC 5321 §4.5.3.1.10, RFC 3463 x.5.3."""
    code, octets = answer
    return code in (452, 552) and _TOO_MANY.match(octets) is not None


def shown(answer: Answer) -> str:
    """An answer for the log."""
    return ascii(answer[1][:200].decode("ascii", "replace").rstrip())
