"""Other protocols at an SMTP port: what is no SMTP at all is known by its first octets, or by a line of HTTP anywhere.

A browser can be made to send a form to any port, and what is in the form must not be taken for commands.
"""

from __future__ import annotations

import re

from gateway import _fastpath as fp

KINDS = ("http", "tls", "proxy", "ssh", "rdp")

_METHODS = frozenset(b"CONNECT DELETE GET HEAD OPTIONS PATCH POST PRI PUT TRACE".split())  # RFC 9110 §9, RFC 9113 §3.4
# RFC 9112 §3. A script chooses its method, which may be a command here: then the next line, Host, tells (§3.2).
_REQUEST_LINE = re.compile(rb"\S+ \S+ HTTP/\d(?:\.\d)?", re.IGNORECASE)
_FIRST_OCTETS = {0x16: "tls", 0x03: "rdp"}  # RFC 8446 §5.1, handshake; [MS-RDPBCGR] 1.3.1, a TPKT header


# Commands of other servers and protocols that come now and then; whoever reads a log wants to know them.
_ELSEWHERE = frozenset(
    b"ATRN BURL CONNECT ETRN GET HEAD LHLO OPTIONS POST PROXY PUT SAML SEND SOML TURN XFORWARD".split()
)

_OF_SMTP = frozenset(b"ATRN BURL ETRN SAML SEND SOML TURN".split())  # its older commands, and those of extensions


def is_of_smtp(line: bytes) -> bool:
    """Whether a line is a command that is known, but not here: RFC 5321 §4.2.4."""
    return line.split(b" ", 1)[0].upper() in _OF_SMTP


def loggable(verb: int, argument: bytes) -> bytes:
    """What an observer may see of a command that is refused before its argument is read."""
    if verb == fp.AUTH:
        return b"***"
    if verb != fp.UNKNOWN:
        return argument
    # a line that is no command may be a password that a confused client sent, in base64 or not
    word = argument.split(b" ", 1)[0].upper()
    return word if word in _ELSEWHERE else b"(%d octets)" % len(argument)


def kind_of_octet(first: int) -> str | None:
    """Which of KINDS a connection speaks that begins with this octet; None where that does not tell."""
    return _FIRST_OCTETS.get(first)


def kind_of_line(line: bytes, first: bool) -> str | None:
    """Which of KINDS a line belongs to that is no command; None where it may be anything. first: before EHLO."""
    word, blank, _ = line.partition(b" ")
    if (blank and word in _METHODS) or line[:5].lower() == b"host:" or _REQUEST_LINE.fullmatch(line):
        return "http"
    if not first:
        return None
    if line.startswith(b"SSH-"):  # RFC 4253 §4.2
        return "ssh"
    # version 1, and what the signature of version 2 is as lines
    return "proxy" if line.startswith(b"PROXY ") or line == b"\0" else None
