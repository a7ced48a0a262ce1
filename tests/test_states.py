"""The table of a session's states, word by word beside RFC 5321 §4.1.4, RFC 3207 §4 and RFC 4954 §4."""

from __future__ import annotations

import pytest

from gateway import _fastpath as fp
from gateway.smtp import replies, states
from gateway.smtp.states import NEXT, NOWHERE, REFUSALS, STEPS, TABLE, State

# In small letters the state that a command leads to, in capitals the reply that refuses it, "." where it cannot come.
EXPECTED = """
                CONNECTED       READY           MAIL         BARREN         RCPT         CONTENT AUTH   TLS       CLOSED
EHLO            ready           ready           ready        ready          ready        .       .      .         .
HELO            ready           ready           ready        ready          ready        .       .      .         .
RSET            connected       ready           ready        ready          ready        .       .      .         .
NOOP            connected       ready           mail         barren         rcpt         .       .      .         .
VRFY            connected       ready           mail         barren         rcpt         .       .      .         .
HELP            connected       ready           mail         barren         rcpt         .       .      .         .
QUIT            closed          closed          closed       closed         closed       .       .      .         .
MAIL            EHLO_FIRST      mail            NESTED_MAIL  NESTED_MAIL    NESTED_MAIL  .       .      .         .
RCPT            EHLO_FIRST      MAIL_FIRST      rcpt         rcpt           rcpt         .       .      .         .
RCPT_REFUSED    .               .               barren       barren         rcpt         .       .      .         .
DATA            EHLO_FIRST      MAIL_FIRST      RCPT_FIRST   NO_RECIPIENTS  content      .       .      .         .
STARTTLS        EHLO_FIRST      tls             BAD_SEQUENCE BAD_SEQUENCE   BAD_SEQUENCE .       .      .         .
AUTH            EHLO_FIRST      ready           BAD_SEQUENCE BAD_SEQUENCE   BAD_SEQUENCE .       .      .         .
AUTH_CONTINUED  .               auth            .            .              .            .       .      .         .
AUTH_RESPONSE   .               .               .            .              .            .       ready  .         .
END_OF_DATA     .               .               .            .              .            ready   .      .         .
SECURED         connected       .               .            .              .            .       .      connected .
END             closed          closed          closed       closed         closed       closed  closed closed    closed
EXPN            NOT_IMPLEMENTED NOT_IMPLEMENTED NOT_IMPLEMENTED NOT_IMPLEMENTED NOT_IMPLEMENTED . .   .         .
XCLIENT         connected       connected       BAD_SEQUENCE BAD_SEQUENCE   BAD_SEQUENCE .       .      .         .
BDAT            EHLO_FIRST      MAIL_FIRST      RCPT_FIRST   NO_RECIPIENTS  chunks       .       .      .         .
UNKNOWN         UNKNOWN_COMMAND UNKNOWN_COMMAND UNKNOWN_COMMAND UNKNOWN_COMMAND UNKNOWN_COMMAND . .   .         .
LINE_TOO_LONG   LINE_TOO_LONG   LINE_TOO_LONG   LINE_TOO_LONG LINE_TOO_LONG LINE_TOO_LONG . .         .         .
"""
# The same for CHUNKS, where a content has begun (RFC 3030 §2).
IN_CHUNKS = """
EHLO ready           HELO ready              RSET ready               NOOP chunks         VRFY chunks
HELP chunks          QUIT closed             MAIL NESTED_MAIL         RCPT BAD_SEQUENCE   RCPT_REFUSED .
DATA BAD_SEQUENCE    STARTTLS BAD_SEQUENCE   AUTH BAD_SEQUENCE        AUTH_CONTINUED .    AUTH_RESPONSE .
END_OF_DATA ready    SECURED .               END closed               EXPN NOT_IMPLEMENTED
BDAT chunks          UNKNOWN UNKNOWN_COMMAND XCLIENT BAD_SEQUENCE     LINE_TOO_LONG LINE_TOO_LONG
"""
COLUMNS, *ROWS = [line.split() for line in EXPECTED.strip().splitlines()]
_CHUNKS = iter(IN_CHUNKS.split())
CELLS = dict(zip(_CHUNKS, _CHUNKS, strict=True))
COLUMNS.append("CHUNKS")
ROWS = [[*row, CELLS[row[0]]] for row in ROWS]
CASES = [(row[0], State[column], cell) for row in ROWS for column, cell in zip(COLUMNS, row[1:], strict=True)]


def step(name: str) -> int:
    return int(getattr(states, name, None) or getattr(fp, name))


def test_every_state_and_every_step_is_in_the_table_once():
    assert [State[column] for column in COLUMNS] == list(State) == list(TABLE)
    assert sorted(step(row[0]) for row in ROWS) == list(range(STEPS))
    assert NOWHERE not in set(State)


@pytest.mark.parametrize(("name", "here", "cell"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_step_leads_where_it_should_or_is_refused(name, here, cell):
    found = TABLE[here].get(step(name))
    place = here * STEPS + step(name)
    if cell == ".":
        assert found is None
        assert (NEXT[place], REFUSALS[place]) == (NOWHERE, None)
    elif cell.isupper():
        assert found is getattr(replies, cell)
        assert (NEXT[place], REFUSALS[place]) == (NOWHERE, found)
    else:
        assert found is State[cell.upper()]
        assert (NEXT[place], REFUSALS[place]) == (found, None)
