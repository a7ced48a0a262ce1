"""The words of gateway/smtp/client.py: what a session waits for, what it tells, and the transaction it carries.

Values only; what is done with them is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum, StrEnum, auto

from gateway._fastpath import Content
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.response import Answer

# Octets of content that are sent before it is known whether the recipient will be refused. What is sent in vain then
# takes the network about as long as the round trip that it saves otherwise: 64 KiB are half a millisecond at 1 Gbit/s.
MOST_UNASKED = 65_536


class State(IntEnum):
    """What the session is waiting for."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()  # of TLS, by the caller
    READY = auto()  # for `begin`
    ENVELOPE = auto()  # answers to MAIL, RCPT and DATA; also to BDAT where the envelope was refused
    CONTENT = auto()  # the answer to the final dot or BDAT
    RESET = auto()
    QUIT = auto()
    CLOSED = auto()  # nothing more to say; the connection has to be dropped, unsent bytes included


class Stage(StrEnum):
    """What the answer that is due is an answer to."""

    GREETING = "greeting"
    EHLO = "ehlo"  # or HELO
    STARTTLS = "starttls"  # and the handshake
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end_of_data"  # or BDAT
    RSET = "rset"
    QUIT = "quit"
    IDLE = "idle"  # none is due


class Event(Enum):
    """What `receive_data` has to tell."""

    READY = auto()  # a transaction may begin
    START_TLS = auto()  # the caller does the handshake now, then calls `tls_started`
    CONCLUDED = auto()  # the transaction has all its answers; `state` says whether the session goes on
    FAILED = auto()  # see `failure`; a transaction under way has not got its last answer
    BYE = auto()  # QUIT was answered


class Failure(StrEnum):
    """Why a connection failed."""

    RESOLVE = "resolve"
    PROHIBITED = "prohibited"
    CONNECT = "connect"
    GREETING = "greeting"
    TLS = "tls"
    PROTOCOL = "protocol"
    TIMEOUT = "timeout"
    LOST = "lost"


class Transaction:
    """One mail transaction: what goes out, and the answers that came back, in order.

    recipients: at least one. answers: to MAIL, each RCPT, DATA and the final dot, as far as they were asked.
    accepted: recipients answered with 2xx. deferred: some were answered with 4xx. chunked: the content goes with the
    envelope, in one BDAT, whose answer stands for those to DATA and the final dot. content_sent: the end of the content
    may be on its way, to a server that may take it.
    """

    def __init__(
        self,
        sender: EnvelopeAddress,
        recipients: Sequence[EnvelopeAddress],
        content: Content,
        smtputf8: bool = False,
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.content = content
        self.smtputf8 = smtputf8
        self.answers: list[Answer] = []
        self.accepted = 0
        self.deferred = False
        self.chunked = False
        self.content_sent = False

    def content_may_follow(self) -> bool:
        """True when the answers to MAIL and RCPT do not speak against sending the content."""
        return self.accepted > 0 and not self.deferred and self.answers[0][0] // 100 == 2

    def fits_one_chunk(self) -> bool:
        """True when the content may go out as one BDAT together with MAIL and RCPT: RFC 3030, RFC 2920.

        Only to a single recipient: with more, the answer to one has to be able to hold the content back from all.
        BDAT knows no dot-stuffing (RFC 3030 §2), so only where there is none.
        """
        return len(self.recipients) == 1 and not self.content.stuffed and self.content.size <= MOST_UNASKED
