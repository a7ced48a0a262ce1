"""The arguments of SMTP commands (RFC 5321 §4.1.1, §4.1.2): bytes in, values or a refusing reply out.

What real clients get wrong without being ambiguous is served: blanks after the colon, missing angle brackets.
No state and no order of commands here; that is session.py's.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

from gateway._fastpath import plain_from, plain_to, read_parameters
from gateway.smtp import replies
from gateway.smtp.address import NULL_SENDER, POSTMASTER, AddressError, EnvelopeAddress, normalise_domain, parse_mailbox
from gateway.smtp.capabilities import BINARY, DELIVER_BY, DSN, EIGHT_BIT, PRIORITY, REQUIRE_TLS, UNKNOWN, UTF8
from gateway.smtp.replies import Reply
from gateway.smtp.requests import (
    RecipientRequests,
    Requests,
    read_by,
    read_envid,
    read_notify,
    read_orcpt,
    read_priority,
    read_ret,
)

# The path and what follows it. Quoted strings may hold ">" and blanks (RFC 5321 §4.1.2, Quoted-string).
_BRACKETED = re.compile(rb'[ \t]*<((?:[^<>"\x00-\x1f]|"(?:[^"\\\x00-\x1f]|\\.)*")*)>(?:[ \t]+(.*))?\Z')
_BARE = re.compile(rb'[ \t]*((?:[^<>"\s]|"(?:[^"\\\x00-\x1f]|\\.)*")+)(?:[ \t]+(.*))?\Z')
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_EHLO_NAME = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff._\-]+\Z")
_EHLO_LITERAL = re.compile(r"\[[A-Za-z0-9.:\-]+\]\Z")


_AS_EVER = UNKNOWN.capabilities


class Refused(Exception):
    """The command is refused with this reply; carries nothing else."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class MailCommand:
    """MAIL: the reverse-path and its parameters.

    size: octets the client announces (RFC 1870), 0 if it does not. eight_bit: BODY=8BITMIME. binary: BODY=BINARYMIME.
    smtputf8: RFC 6531.
    requests: what else the client asks for, with this and with RCPT; None for nothing.
    """

    def __init__(self, sender: EnvelopeAddress) -> None:
        self.sender = sender
        self.size = 0
        self.eight_bit = False
        self.binary = False
        self.smtputf8 = False
        self.requests: Requests | None = None

    def asked(self) -> Requests:
        """What else the client asks for, to be added to."""
        if self.requests is None:
            self.requests = Requests()
        return self.requests


class RcptCommand:
    """RCPT: a forward-path, and what the client asks for with it."""

    def __init__(self, recipient: EnvelopeAddress, requests: RecipientRequests | None = None) -> None:
        self.recipient = recipient
        self.requests = requests


def parse_mail(argument: bytes, auth_offered: bool = False, offered: int = _AS_EVER) -> MailCommand:
    """Reads `FROM:<reverse-path> [parameters]`.

    auth_offered: whether AUTH= is a known parameter (RFC 4954 §5). offered: which extensions are, see capabilities.py.
    Raises Refused.
    """
    plain = plain_from(argument)
    if plain is not None:  # nearly every MAIL there is
        command = MailCommand(EnvelopeAddress(plain[0], plain[1]))
        if plain[2]:
            _read_mail_parameters(command, plain[2], auth_offered, offered)
        return command
    path, parameters = _split_path(argument, b"FROM:", replies.SENDER_SYNTAX)
    command = MailCommand(NULL_SENDER)
    if parameters:
        _read_mail_parameters(command, parameters, auth_offered, offered)
    if path:
        command.sender = _mailbox(path, command.smtputf8, replies.SENDER_SYNTAX)
        if command.sender is POSTMASTER:  # only a forward-path may lack its domain (RFC 5321 §4.1.1.2)
            raise Refused(replies.SENDER_SYNTAX)
    return command


def parse_rcpt(argument: bytes, smtputf8: bool, offered: int = _AS_EVER) -> RcptCommand:
    """Reads `TO:<forward-path> [parameters]`. offered: as for parse_mail(). Raises Refused."""
    plain = plain_to(argument)
    if plain is not None and not plain[2]:
        return RcptCommand(EnvelopeAddress(plain[0], plain[1]))
    path, parameters = _split_path(argument, b"TO:", replies.RECIPIENT_SYNTAX)
    requests = _read_rcpt_parameters(parameters, smtputf8, offered) if parameters else None
    if not path:
        raise Refused(replies.RECIPIENT_SYNTAX)
    return RcptCommand(_mailbox(path, smtputf8, replies.RECIPIENT_SYNTAX), requests)


def address_in(argument: bytes) -> EnvelopeAddress | None:
    """The address that a refused MAIL or RCPT was about, for its record; None where it cannot be read."""
    keyword = b"FROM:" if argument[:5].upper() == b"FROM:" else b"TO:"
    try:
        path, _ = _split_path(argument, keyword, replies.SYNTAX)
        return parse_mailbox(path.decode()) if path else NULL_SENDER
    except (Refused, AddressError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=1024)  # the same clients come again and again
def parse_ehlo(argument: bytes) -> str:
    """Reads the name in EHLO or HELO, normalised where it is a domain or literal.

    RFC 5321 §4.1.4 forbids to refuse a client over a name that does not verify; names that no grammar allows but that
    real hosts use (underscores, a trailing dot) are taken as they are. Raises Refused.
    """
    try:
        name = argument.decode()
    except UnicodeDecodeError:
        raise Refused(replies.EHLO_SYNTAX) from None
    if len(argument) > 255 or not (_EHLO_NAME.match(name) or _EHLO_LITERAL.match(name)):
        raise Refused(replies.EHLO_SYNTAX)
    try:
        return normalise_domain(name)
    except AddressError:
        if not name.isascii() or name.startswith("["):
            raise Refused(replies.EHLO_SYNTAX) from None
        return name


def no_argument(argument: bytes) -> None:
    """Of a command that takes none. Raises Refused."""
    if argument:
        raise Refused(replies.NO_ARGUMENT)


def parse_text(argument: bytes) -> bytes:
    """Reads the argument of a command that takes any text (NOOP, HELP, VRFY). Raises Refused for control octets."""
    if _CONTROL.search(argument):  # RFC 5321 §4.1.2: String = Atom / Quoted-string
        raise Refused(replies.SYNTAX)
    return argument


def decode_plain(response: bytes) -> tuple[str, str, str]:
    """(authorization identity, authentication identity, password) out of a PLAIN response (RFC 4616 §2).

    response: base64 as sent; "=" is the empty response (RFC 4954 §4). The authorization identity defaults to the
    authentication identity. Raises Refused; nothing of the response is in the exception.
    """
    try:
        decoded = b"" if response == b"=" else base64.b64decode(response, validate=True)
        authorization, authentication, password = decoded.decode().split("\0")
    except (binascii.Error, ValueError):
        raise Refused(replies.AUTH_SYNTAX) from None
    if not authentication or not password:
        raise Refused(replies.AUTH_SYNTAX)
    return authorization or authentication, authentication, password


def _split_path(argument: bytes, keyword: bytes, syntax: Reply) -> tuple[bytes, bytes]:
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(replies.SYNTAX)
    rest = argument[len(keyword) :]
    match = _BRACKETED.match(rest) or _BARE.match(rest)
    if match is None:
        raise Refused(syntax)
    path, parameters = match.groups()
    return path.strip(b" \t"), parameters or b""


def _mailbox(path: bytes, smtputf8: bool, syntax: Reply) -> EnvelopeAddress:
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise Refused(syntax) from None
    if not smtputf8 and not text.isascii():
        raise Refused(replies.SMTPUTF8_REQUIRED)  # RFC 6531 §3.5
    try:
        return parse_mailbox(text)
    except AddressError:
        raise Refused(syntax) from None


def _parameters(text: bytes) -> list[tuple[str, bytes | None]]:
    found = read_parameters(text)
    if found is None:
        raise Refused(replies.PARAMETER_SYNTAX)
    if len(found) > 1 and len({keyword for keyword, _ in found}) < len(found):
        raise Refused(replies.PARAMETER_SYNTAX)  # RFC 5321 §4.1.1.11: no keyword twice
    return found


def _read_rcpt_parameters(text: bytes, smtputf8: bool, offered: int) -> RecipientRequests | None:
    found: dict[str, str] = {}
    for keyword, value in _parameters(text):
        if keyword not in ("NOTIFY", "ORCPT") or not offered & DSN:
            raise Refused(replies.parameter_unknown(keyword))
        try:
            found[keyword.lower()] = read_notify(value) if keyword == "NOTIFY" else read_orcpt(value, smtputf8)
        except ValueError:
            raise Refused(replies.PARAMETER_SYNTAX) from None
    return RecipientRequests(**found) if found else None


def _read_request(command: MailCommand, keyword: str, value: bytes | None, offered: int) -> None:
    """A parameter of MAIL that concerns more than one hop."""
    try:
        if keyword == "ENVID" and offered & DSN:
            command.asked().envid = read_envid(value)
        elif keyword == "RET" and offered & DSN:
            command.asked().ret = read_ret(value)
        elif keyword == "REQUIRETLS" and offered & REQUIRE_TLS:
            if value is not None:
                raise ValueError
            command.asked().require_tls = True
        elif keyword == "MT-PRIORITY" and offered & PRIORITY:
            command.asked().priority = read_priority(value)
        elif keyword == "BY" and offered & DELIVER_BY:
            asked = command.asked()
            asked.by = read_by(value)
            asked.late = asked.by.seconds <= 0  # RFC 2852 §4: who had it then, has told
        else:
            raise Refused(replies.parameter_unknown(keyword))
    except ValueError:
        raise Refused(replies.PARAMETER_SYNTAX) from None


def _read_mail_parameters(command: MailCommand, text: bytes, auth_offered: bool, offered: int) -> None:
    parameters = _parameters(text)
    for keyword, value in parameters:
        if keyword == "SIZE":
            if value is None or len(value) > 20 or not value.isdigit():  # RFC 1870 §3
                raise Refused(replies.PARAMETER_SYNTAX)
            command.size = int(value)
        elif keyword == "BODY" and offered & EIGHT_BIT:
            body = b"" if value is None else value.upper()
            if body == b"BINARYMIME" and offered & BINARY:  # RFC 3030 §3
                command.binary = command.asked().binary = True
            elif body == b"BINARYMIME":
                raise Refused(replies.parameter_unknown("BODY=BINARYMIME"))
            elif body not in (b"7BIT", b"8BITMIME"):  # RFC 6152 §2
                raise Refused(replies.PARAMETER_SYNTAX)
            command.eight_bit = body == b"8BITMIME"
        elif keyword == "SMTPUTF8" and offered & UTF8:
            if value is not None:  # RFC 6531 §3.4
                raise Refused(replies.PARAMETER_SYNTAX)
            command.smtputf8 = True
        elif not (keyword == "AUTH" and auth_offered and value is not None):  # RFC 4954 §5: read, and not trusted
            _read_request(command, keyword, value, offered)
