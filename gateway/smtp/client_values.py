"""The words of gateway/smtp/client.py: what a session waits for, what it tells, and why it may fail.

Values only; what is done with them is there.
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum, auto

from gateway.config import EgressPath

BRIEF_TIMEOUT = 5.0  # seconds for RSET and QUIT, KumoMTA's default; no message depends on the answer


class ClientState(IntEnum):
    """What the session is waiting for."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()  # of TLS, by the caller
    AUTH = auto()
    INTRODUCTION = auto()  # of the next message's client
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
    AUTH = "auth"
    INTRODUCTION = "introduction"  # XCLIENT or XFORWARD
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
    AUTH = "auth"
    PROTOCOL = "protocol"
    TIMEOUT = "timeout"
    LOST = "lost"


# in every state but ENVELOPE
STAGES = {
    ClientState.GREETING: Stage.GREETING,
    ClientState.EHLO: Stage.EHLO,
    ClientState.HELO: Stage.EHLO,
    ClientState.STARTTLS: Stage.STARTTLS,
    ClientState.HANDSHAKE: Stage.STARTTLS,
    ClientState.AUTH: Stage.AUTH,
    ClientState.INTRODUCTION: Stage.INTRODUCTION,
    ClientState.READY: Stage.IDLE,
    ClientState.CONTENT: Stage.END_OF_DATA,
    ClientState.RESET: Stage.RSET,
    ClientState.QUIT: Stage.QUIT,
    ClientState.CLOSED: Stage.IDLE,
}


def timeouts(path: EgressPath) -> dict[Stage, float]:
    """Seconds that a server has for each answer."""
    return {
        Stage.GREETING: path.banner_timeout,
        Stage.EHLO: path.ehlo_timeout,
        Stage.STARTTLS: path.starttls_timeout,
        Stage.AUTH: path.auth_timeout,
        Stage.INTRODUCTION: path.ehlo_timeout,
        Stage.MAIL: path.mail_from_timeout,
        Stage.RCPT: path.rcpt_to_timeout,
        Stage.DATA: path.data_timeout,
        Stage.END_OF_DATA: path.data_dot_timeout,
        Stage.RSET: BRIEF_TIMEOUT,
        Stage.QUIT: BRIEF_TIMEOUT,
        Stage.IDLE: path.idle_timeout,
    }
