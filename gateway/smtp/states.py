"""The states of a server's session: what each command gets in each of them, and where it leads (RFC 5321 §4.1.4).

One table, and the same as flat rows for session.py, which is the only one to change a state, and only by it. Nothing
about arguments, and nothing that a command does besides.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from gateway import _fastpath as fp
from gateway.smtp import replies
from gateway.smtp.replies import Reply


class State(enum.IntEnum):
    """Where the session stands; the rows of TABLE."""

    CONNECTED = 0  # before EHLO or HELO
    READY = 1  # between two transactions
    MAIL = 2  # reverse-path known, no recipient named yet
    BARREN = 3  # the same, and every recipient so far was refused
    RCPT = 4  # at least one recipient
    CONTENT = 5  # after 354
    AUTH = 6  # after 334
    TLS = 7  # after the 220 to STARTTLS, until the handshake is done
    CLOSED = 8
    CHUNKS = 9  # after a BDAT that was not the last one


# What leads from state to state: a verb that was carried out, by its index in VERB_NAMES, and these.
END_OF_DATA = len(fp.VERB_NAMES)  # the final dot, whatever is answered: the transaction is over (RFC 5321 §3.3)
RCPT_REFUSED = END_OF_DATA + 1
AUTH_CONTINUED = END_OF_DATA + 2  # 334
AUTH_RESPONSE = END_OF_DATA + 3  # the line behind it
SECURED = END_OF_DATA + 4  # the handshake is done; in a fresh connection without STARTTLS, too (RFC 8314 §3)
END = END_OF_DATA + 5  # time-outs, shutdown, a reply that says that it is the last
STEPS = END_OF_DATA + 6

_CONNECTED, _READY, _MAIL, _BARREN, _RCPT, _CONTENT, _AUTH, _TLS, _CLOSED, _CHUNKS = State

_NEVER: dict[int, State | Reply] = {  # whatever the state
    fp.EXPN: replies.NOT_IMPLEMENTED,
    fp.UNKNOWN: replies.UNKNOWN_COMMAND,
    fp.LINE_TOO_LONG: replies.LINE_TOO_LONG,
}


def _anywhere(here: State, greeted: State = _READY) -> dict[int, State | Reply]:
    """What is allowed wherever commands are read. greeted: where RSET leads."""
    return _NEVER | {
        fp.EHLO: _READY,
        fp.HELO: _READY,
        fp.RSET: greeted,
        fp.NOOP: here,
        fp.VRFY: here,
        fp.HELP: here,
        fp.QUIT: _CLOSED,
        END: _CLOSED,
    }


# A state: the command is allowed there, and leads to it once it is carried out. A reply: what refuses it. What is
# missing cannot happen: in CONTENT, AUTH, TLS and CLOSED no commands are read.
TABLE: Mapping[State, Mapping[int, State | Reply]] = {
    _CONNECTED: _anywhere(_CONNECTED, greeted=_CONNECTED)
    | {
        fp.MAIL: replies.EHLO_FIRST,
        fp.RCPT: replies.EHLO_FIRST,
        fp.DATA: replies.EHLO_FIRST,
        fp.BDAT: replies.EHLO_FIRST,
        fp.STARTTLS: replies.EHLO_FIRST,
        fp.AUTH: replies.EHLO_FIRST,
        fp.XCLIENT: _CONNECTED,
        SECURED: _CONNECTED,
    },
    _READY: _anywhere(_READY)
    | {
        fp.MAIL: _MAIL,
        fp.RCPT: replies.MAIL_FIRST,
        fp.DATA: replies.MAIL_FIRST,
        fp.BDAT: replies.MAIL_FIRST,
        fp.STARTTLS: _TLS,
        fp.AUTH: _READY,
        fp.XCLIENT: _CONNECTED,
        AUTH_CONTINUED: _AUTH,
    },
    _MAIL: _anywhere(_MAIL)
    | {
        fp.MAIL: replies.NESTED_MAIL,
        fp.RCPT: _RCPT,
        RCPT_REFUSED: _BARREN,
        fp.DATA: replies.RCPT_FIRST,
        fp.BDAT: replies.RCPT_FIRST,
        fp.STARTTLS: replies.BAD_SEQUENCE,
        fp.AUTH: replies.BAD_SEQUENCE,  # RFC 4954 §4
        fp.XCLIENT: replies.BAD_SEQUENCE,
    },
    _BARREN: _anywhere(_BARREN)
    | {
        fp.MAIL: replies.NESTED_MAIL,
        fp.RCPT: _RCPT,
        RCPT_REFUSED: _BARREN,
        fp.DATA: replies.NO_RECIPIENTS,  # RFC 5321 §4.1.1.4
        fp.BDAT: replies.NO_RECIPIENTS,
        fp.STARTTLS: replies.BAD_SEQUENCE,
        fp.AUTH: replies.BAD_SEQUENCE,
        fp.XCLIENT: replies.BAD_SEQUENCE,
    },
    _RCPT: _anywhere(_RCPT)
    | {
        fp.MAIL: replies.NESTED_MAIL,
        fp.RCPT: _RCPT,
        RCPT_REFUSED: _RCPT,
        fp.DATA: _CONTENT,
        fp.BDAT: _CHUNKS,
        fp.STARTTLS: replies.BAD_SEQUENCE,
        fp.AUTH: replies.BAD_SEQUENCE,
        fp.XCLIENT: replies.BAD_SEQUENCE,
    },
    _CONTENT: {END_OF_DATA: _READY, END: _CLOSED},
    _AUTH: {AUTH_RESPONSE: _READY, END: _CLOSED},
    _TLS: {SECURED: _CONNECTED, END: _CLOSED},
    _CLOSED: {END: _CLOSED},
    _CHUNKS: _anywhere(_CHUNKS)  # RFC 3030 §2: until the last one, nothing of a transaction but further chunks
    | {
        fp.MAIL: replies.NESTED_MAIL,
        fp.RCPT: replies.BAD_SEQUENCE,
        fp.DATA: replies.BAD_SEQUENCE,
        fp.BDAT: _CHUNKS,
        fp.STARTTLS: replies.BAD_SEQUENCE,
        fp.AUTH: replies.BAD_SEQUENCE,
        fp.XCLIENT: replies.BAD_SEQUENCE,
        END_OF_DATA: _READY,
    },
}

# The same for every command that is read: at state * STEPS + step, where it leads, and what refuses it.
NOWHERE = len(State)
NEXT = bytes(
    [
        found if isinstance(found := row.get(step), State) else NOWHERE
        for row in (TABLE[state] for state in State)
        for step in range(STEPS)
    ]
)
REFUSALS = [
    found if isinstance(found := row.get(step), Reply) else None
    for row in (TABLE[state] for state in State)
    for step in range(STEPS)
]
