"""Chunks: a content that comes with BDAT (RFC 3030), as the session has it. No order of commands, nothing is sent."""

from __future__ import annotations

import re

from gateway._fastpath import Content, Framer
from gateway.smtp import replies
from gateway.smtp.commands import Refused
from gateway.smtp.replies import CHUNK_OK, Reply
from gateway.smtp.terms import Terms

_ARGUMENT = re.compile(rb"(\d{1,18})(?:[ \t]+(LAST))?\Z", re.IGNORECASE)


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """Reads `chunk-size [LAST]`: octets, and whether the content ends with them. Raises Refused."""
    match = _ARGUMENT.match(argument)
    if match is None:
        raise Refused(replies.BDAT_SYNTAX)
    return int(match[1]), match[2] is not None


class Chunk:
    """One that is being received. Its octets are taken off the connection whether it is wanted or not: they are no
    commands (RFC 3030 §2).
    """

    def __init__(
        self, framer: Framer, terms: Terms, argument: bytes, refusal: Reply | None, *, is_first: bool, binary: bool
    ) -> None:
        """argument: of BDAT. refusal: what it is answered, None where it is wanted. binary: the content's octets are no
        lines. Raises Refused.
        """
        octets, self._is_last = parse_bdat(argument)
        self._framer, self._terms, self._refusal = framer, terms, refusal
        self.is_empty = not octets and not self._is_last
        if is_first and refusal is None:
            framer.start_content(terms.max_size, terms.max_line, terms.rejects_lone_cr_lf, True, binary)
        framer.start_chunk(octets)

    def read(self) -> Reply | Content | None:
        """Takes in what is there: the content, if it has ended or will not be taken; else the reply to this chunk.
        None: more octets are needed.
        """
        if not self._framer.next_chunk():
            return None
        if self._refusal is not None:
            return self._refusal
        if self._is_last:
            return self._framer.end_chunks()
        so_far = self._framer.so_far()
        return CHUNK_OK if self._terms.refusal_of(so_far) is None else so_far
