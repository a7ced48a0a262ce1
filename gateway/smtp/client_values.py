"""The words of gateway/smtp/client.py: what a session waits for, what it tells, and why it may fail.

Values only; what is done with them is there.
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum, auto


class ClientState(IntEnum):
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
    CONCLUDED = auto()  # the exchange has all its answers; `state` says whether the session goes on
    FAILED = auto()  # see `failure`; an exchange under way has not got its last answer
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
