"""Every reply the gateway gives, with its code, enhanced code (RFC 3463) and reason id, and nothing else.

Public code formats no reply of its own: it takes one from here. A reason id names *why* something was refused; it
is the same word in the log record, the metric's `reason` label and the documentation, so the list is closed.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

_MOST_IDS = 12  # of messages in a 250, whose line may have 512 octets (RFC 5321 §4.5.3.1.5)


class Reason(StrEnum):
    """Why a command, message or connection was refused. docs/reasons.md explains each."""

    TOO_MANY_CONNECTIONS = "too_many_connections"
    SHUTTING_DOWN = "shutting_down"
    IDLE_TIMEOUT = "idle_timeout"
    FIRST_COMMAND_TIMEOUT = "first_command_timeout"
    COMMAND_TIMEOUT = "command_timeout"
    DATA_TIMEOUT = "data_timeout"
    DATA_TOO_SLOW = "data_too_slow"
    TOO_MANY_ERRORS = "too_many_errors"
    TOO_MANY_IDLE_COMMANDS = "too_many_idle_commands"
    TOO_MANY_INVALID_RECIPIENTS = "too_many_invalid_recipients"
    TOO_MANY_AUTH_FAILURES = "too_many_auth_failures"
    PEER_CONNECTIONS = "peer_connections"
    CONNECTION_RATE = "connection_rate"
    MESSAGE_RATE = "message_rate"
    RECIPIENT_RATE = "recipient_rate"
    OCTET_RATE = "octet_rate"
    AUTH_RATE = "auth_rate"
    INTERNAL_ERROR = "internal_error"
    POLICY_ERROR = "policy_error"
    POLICY_REJECT = "policy_reject"
    EARLY_TALKER = "early_talker"
    OTHER_PROTOCOL = "other_protocol"
    XCLIENT_DENIED = "xclient_denied"
    UNKNOWN_COMMAND = "unknown_command"
    SYNTAX = "syntax"
    BAD_SEQUENCE = "bad_sequence"
    LINE_TOO_LONG = "line_too_long"
    PARAMETER_UNKNOWN = "parameter_unknown"
    PARAMETER_SYNTAX = "parameter_syntax"
    SENDER_SYNTAX = "sender_syntax"
    RECIPIENT_SYNTAX = "recipient_syntax"
    SMTPUTF8_REQUIRED = "smtputf8_required"
    TLS_UNAVAILABLE = "tls_unavailable"
    TLS_PIPELINED = "tls_pipelined"
    AUTH_MECHANISM = "auth_mechanism"
    AUTH_REQUIRES_TLS = "auth_requires_tls"
    AUTH_SYNTAX = "auth_syntax"
    AUTH_CANCELLED = "auth_cancelled"
    AUTH_FAILED = "auth_failed"
    RELAY_DENIED = "relay_denied"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    MESSAGE_LIMIT = "message_limit"
    MIXED_RECIPIENTS = "mixed_recipients"
    NO_RECIPIENTS = "no_recipients"
    MESSAGE_TOO_BIG = "message_too_big"
    LINE_ENDINGS = "line_endings"
    BODY_LINE_TOO_LONG = "body_line_too_long"
    MAIL_LOOP = "mail_loop"
    NOT_A_REPORT = "not_a_report"
    NO_DESTINATION = "no_destination"
    CONVERSION_REQUIRED = "conversion_required"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_DEFERRED = "upstream_deferred"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_LOST = "upstream_lost"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    OUTCOME_UNKNOWN = "outcome_unknown"
    STORAGE = "storage"
    NO_ROOM = "no_room"


class Reply:
    """One SMTP reply.

    code: three digits. enhanced: RFC 3463 code as text, "" for the replies that carry none (220, 221 banner, 250 to
    HELO/EHLO, 334, 354: RFC 2034 §4). text: what follows; "\\n" separates lines. reason: None for 2xx and 3xx.
    closes: the connection ends after this reply. wire: the bytes to send, made once.
    """

    def __init__(
        self, code: int, enhanced: str, text: str, reason: Reason | None = None, *, closes: bool = False
    ) -> None:
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self.reason = reason
        self.closes = closes or code == 421  # RFC 5321 §3.8: 421 announces the end of the connection
        self.wire = _wire(code, enhanced, text)

    def __repr__(self) -> str:
        return f"<Reply {self.code} {self.enhanced} {self.text!r}>"


def _wire(code: int, enhanced: str, text: str) -> bytes:
    if "\n" not in text:
        line = f"{code} {enhanced} {text}\r\n" if enhanced else f"{code} {text}\r\n"
        return line.encode() if line.isascii() else line.encode("utf-8", "replace")
    prefix = f"{enhanced} " if enhanced else ""
    lines = [prefix + line for line in text.split("\n")]
    parts = [f"{code}-{line}\r\n" for line in lines[:-1]] + [f"{code} {lines[-1]}\r\n"]
    return "".join(parts).encode("utf-8", "replace")


def make(code: int, text: str, reason: Reason, *, closes: bool = False) -> Reply:
    """A reply in an administrator's or an upstream's words: a leading enhanced code is split off, one that is missing
    is supplied, and nothing in the text can break out of the reply.

    code: 200–599; anything else becomes 451 so that the client never sees an invalid reply.
    """
    if not 200 <= code <= 599:
        code = 451
    lines = [_printable(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    enhanced, lines[0] = split_enhanced(code, lines[0])
    lines = [lines[0], *(split_enhanced(code, line)[1] for line in lines[1:])]
    if not enhanced:
        enhanced = f"{code // 100}.0.0" if code // 100 in (2, 4, 5) else ""
    return Reply(code, enhanced, "\n".join(lines) or "refused", reason, closes=closes)


def reworded(reply: Reply, code: int | None, text: str | None) -> Reply:
    """The reply with another code or text, None for what it has; the code only for another refusal.

    Raises ValueError for a code that would mean something else than the reply: a client acts upon it.
    """
    code = reply.code if code is None else code
    if code != reply.code and (reply.code < 400 or not 400 <= code <= 599):
        raise ValueError(f"a reply {reply.code} cannot become {code}")
    lines = [_printable(line) for line in (spoken(reply) if text is None else text).splitlines()]
    if not any(lines):
        lines = spoken(reply).split("\n")
    enhanced = ""
    if reply.enhanced or code != reply.code:
        parts = [split_enhanced(code, line) for line in lines]
        lines = [rest for _, rest in parts]
        own = reply.enhanced if reply.enhanced[:1] == str(code)[0] else f"{code // 100}.0.0"
        enhanced = next((found for found, _ in parts if found), own)
    return Reply(code, enhanced, "\n".join(lines), reply.reason, closes=reply.closes)


def spoken(reply: Reply) -> str:
    """A reply's text with its enhanced code on each line, as it is sent behind the codes."""
    return "\n".join(f"{reply.enhanced} {line}".strip() for line in reply.text.split("\n"))


def _printable(line: str) -> str:
    """At most 480 octets, so that code and enhanced code fit before them (RFC 5321 §4.5.3.1.5)."""
    shown = "".join(c if c >= " " and c != "\x7f" else " " for c in line).strip()
    return shown.encode("utf-8", "replace")[:480].decode("utf-8", "ignore")


def split_enhanced(code: int, line: str) -> tuple[str, str]:
    """("5.1.1", "rest") out of "5.1.1 rest"; ("", line) where there is no enhanced code of the reply's class."""
    end = _enhanced_code_end(line)
    if end == 0:
        return "", line
    rest = line[end + 1 :]
    if line[1] == "." and ord(line[0]) - 0x30 == code // 100:
        return line[:end], rest
    return "", rest  # a class that contradicts the code would mislead the client (RFC 2034 §4)


def _enhanced_code_end(line: str) -> int:
    """The length of the word at a line's start where it is an enhanced code (RFC 3463 §2): three numbers of up to three
    digits, with dots between them. 0 where it is none.
    """
    numbers, digits = 1, 0
    for place, letter in enumerate(line):
        if "0" <= letter <= "9" and digits < 3:
            digits += 1
        elif digits == 0:
            return 0
        elif letter == "." and numbers < 3:
            numbers, digits = numbers + 1, 0
        else:
            return place if letter == " " and numbers == 3 else 0
    return len(line) if numbers == 3 and digits else 0


def greeting(hostname: str, banner: str) -> Reply:
    """The 220 that opens a session. RFC 5321 §4.2: the host name comes first, and no enhanced code."""
    return Reply(220, "", f"{hostname} {banner}".rstrip())


@lru_cache(maxsize=1024)  # the same clients come again and again
def ehlo(hostname: str, client: str, extensions: tuple[str, ...] | None) -> Reply:
    """The reply to EHLO (RFC 5321 §4.1.1.1), one extension a line; None: to HELO."""
    return Reply(250, "", "\n".join([f"{hostname} Hello {client}", *(extensions or ())]))


def parameter_unknown(keyword: str) -> Reply:
    """RFC 5321 §4.1.1.11: a MAIL or RCPT parameter that was not offered."""
    return Reply(555, "5.5.4", f"Parameter {keyword[:32]} is not supported", Reason.PARAMETER_UNKNOWN)


def relay_denied(peer: str) -> Reply:
    """peer: "IP:PORT" as the policy's `received_from` shows it."""
    return Reply(550, "5.7.1", f"relaying not permitted for {peer}", Reason.RELAY_DENIED)


def accepted(ids: list[str], refused: int = 0, total: int = 0) -> Reply:
    """The 250 after the final dot. refused: how many of `total` recipients the fleet refused for good."""
    text = f"OK ids={' '.join(ids)}"
    if len(ids) > _MOST_IDS:
        text = f"OK ids={' '.join(ids[:_MOST_IDS])} and {len(ids) - _MOST_IDS} more"
    if refused:
        text += f" ({refused} of {total} recipients refused)"
    return Reply(250, "2.0.0", text)


def closing(hostname: str, what: str, reason: Reason, enhanced: str = "4.3.2") -> Reply:
    """A 421, which ends the connection. RFC 5321 §3.8: the host name comes first."""
    return Reply(421, enhanced, f"{hostname} {what}", reason)


def too_many_messages(hostname: str) -> Reply:
    """The 421 for a client that goes on after max_messages_per_connection."""
    return closing(hostname, "too many messages on this connection", Reason.MESSAGE_LIMIT, enhanced="4.5.3")


def technical_difficulties(hostname: str, reason: Reason) -> Reply:
    """The 421 for a fault of ours after which nobody knows where the session stands."""
    return closing(hostname, "technical difficulties", reason, enhanced="4.3.0")


MAIL_OK = Reply(250, "2.1.0", "Sender OK")
ORDINARY_PRIORITY = Reply(250, "2.3.6", "0 is the priority of this message")  # RFC 6710 §4.1
RCPT_OK = Reply(250, "2.1.5", "Recipient OK")
START_BODY = Reply(354, "", "Send the message; end with CRLF.CRLF")
CHUNK_OK = Reply(250, "2.0.0", "Chunk OK")
RESET_OK = Reply(250, "2.0.0", "Reset")
NOOP_OK = Reply(250, "2.0.0", "OK")
CANNOT_VERIFY = Reply(252, "2.1.5", "Cannot verify; send the message and see")  # RFC 5321 §3.5.3
HELP = Reply(214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT STARTTLS AUTH")
BYE = Reply(221, "2.0.0", "Bye")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
AUTH_CONTINUE = Reply(334, "", "")
AUTH_USER = Reply(334, "", "VXNlcm5hbWU6")  # "Username:" and "Password:", which old clients compare
AUTH_PASSWORD = Reply(334, "", "UGFzc3dvcmQ6")
AUTH_OK = Reply(235, "2.7.0", "Authenticated")

UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognised", Reason.UNKNOWN_COMMAND)
EARLY_TALKER = Reply(554, "5.5.0", "You talked before the greeting", Reason.EARLY_TALKER, closes=True)
OTHER_PROTOCOL = Reply(554, "5.5.1", "This is an SMTP server", Reason.OTHER_PROTOCOL, closes=True)
XCLIENT_DENIED = Reply(550, "5.7.0", "XCLIENT is not permitted", Reason.XCLIENT_DENIED)
XCLIENT_SYNTAX = Reply(501, "5.5.4", "Bad XCLIENT attribute", Reason.SYNTAX)
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented", Reason.UNKNOWN_COMMAND)
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long", Reason.LINE_TOO_LONG)
SYNTAX = Reply(501, "5.5.4", "Syntax error in command or arguments", Reason.SYNTAX)
EHLO_SYNTAX = Reply(501, "5.5.4", "A domain name or address literal is needed", Reason.SYNTAX)
BDAT_SYNTAX = Reply(  # where its chunk ends and commands begin, nobody knows
    501, "5.5.4", "BDAT needs a number of octets, and LAST or nothing", Reason.SYNTAX, closes=True
)
NO_ARGUMENT = Reply(501, "5.5.4", "This command takes no argument", Reason.SYNTAX)
SENDER_SYNTAX = Reply(501, "5.1.7", "Bad sender's mailbox address syntax", Reason.SENDER_SYNTAX)
RECIPIENT_SYNTAX = Reply(501, "5.1.3", "Invalid recipient address syntax", Reason.RECIPIENT_SYNTAX)
TOO_LITTLE_TIME = Reply(  # RFC 2852 §3
    555, "5.5.4", "BY= leaves less time than DELIVERBY asks for", Reason.PARAMETER_SYNTAX
)
PARAMETER_SYNTAX = Reply(501, "5.5.4", "Malformed parameter", Reason.PARAMETER_SYNTAX)
SMTPUTF8_REQUIRED = Reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8", Reason.SMTPUTF8_REQUIRED)
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands", Reason.BAD_SEQUENCE)
EHLO_FIRST = Reply(503, "5.5.1", "Send EHLO or HELO first", Reason.BAD_SEQUENCE)
NESTED_MAIL = Reply(503, "5.5.1", "MAIL was already given; send RSET first", Reason.BAD_SEQUENCE)
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first", Reason.BAD_SEQUENCE)
RCPT_FIRST = Reply(503, "5.5.1", "Send RCPT first", Reason.BAD_SEQUENCE)
BINARY_BY_BDAT = Reply(503, "5.5.1", "A binary content comes by BDAT", Reason.BAD_SEQUENCE)
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients", Reason.NO_RECIPIENTS)
TLS_ACTIVE = Reply(503, "5.5.1", "TLS is already active", Reason.BAD_SEQUENCE)
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS is not available due to a local problem", Reason.TLS_UNAVAILABLE)
TLS_PIPELINED = Reply(
    503, "5.5.1", "STARTTLS must be the last command sent in clear", Reason.TLS_PIPELINED, closes=True
)
AUTH_AGAIN = Reply(503, "5.5.1", "Already authenticated", Reason.BAD_SEQUENCE)
AUTH_MECHANISM = Reply(504, "5.5.4", "This mechanism is not supported", Reason.AUTH_MECHANISM)
AUTH_REQUIRES_TLS = Reply(538, "5.7.11", "AUTH requires an encrypted channel", Reason.AUTH_REQUIRES_TLS)
AUTH_CANCELLED = Reply(501, "5.7.0", "AUTH cancelled", Reason.AUTH_CANCELLED)
AUTH_SYNTAX = Reply(501, "5.5.2", "Malformed AUTH response", Reason.AUTH_SYNTAX)
AUTH_TOO_LONG = Reply(500, "5.5.6", "AUTH line too long", Reason.LINE_TOO_LONG)
AUTH_FAILED = Reply(535, "5.7.8", "Authentication credentials invalid", Reason.AUTH_FAILED)
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients", Reason.TOO_MANY_RECIPIENTS)
MESSAGE_RATE = Reply(451, "4.7.0", "too many messages for now; try again later", Reason.MESSAGE_RATE)
RECIPIENT_RATE = Reply(452, "4.7.0", "too many recipients for now; try again later", Reason.RECIPIENT_RATE)
OCTET_RATE = Reply(451, "4.7.0", "too much mail for now; try again later", Reason.OCTET_RATE)
INVALID_RECIPIENTS = Reply(
    452, "4.7.0", "too many invalid recipients before this one", Reason.TOO_MANY_INVALID_RECIPIENTS
)
MIXED_RECIPIENTS = Reply(
    452, "4.5.3", "This recipient is handled differently; send it in its own transaction", Reason.MIXED_RECIPIENTS
)
MESSAGE_TOO_BIG = Reply(552, "5.3.4", "message too big", Reason.MESSAGE_TOO_BIG)
LINE_ENDINGS = Reply(552, "5.6.0", "message data must use CRLF for line endings", Reason.LINE_ENDINGS)
BODY_LINE_TOO_LONG = Reply(500, "5.2.3", "message has a line that is too long", Reason.BODY_LINE_TOO_LONG)
MAIL_LOOP = Reply(554, "5.4.6", "Too many hops: this message is in a loop", Reason.MAIL_LOOP)
NOT_A_REPORT = Reply(
    550, "5.7.1", "relaying not permitted: this is no report that is accepted here", Reason.NOT_A_REPORT
)
NO_DESTINATION = Reply(451, "4.3.5", "No destination is configured for this message", Reason.NO_DESTINATION)
POLICY_FAILED = Reply(451, "4.3.0", "Local problem; try again later", Reason.POLICY_ERROR)
INTERNAL = Reply(451, "4.3.0", "Local problem; try again later", Reason.INTERNAL_ERROR)
NO_ROOM = Reply(452, "4.3.1", "no room for this message now; try again later", Reason.NO_ROOM)
STORAGE = Reply(451, "4.3.0", "Local problem; try again later", Reason.STORAGE)
SPOOL_FULL = Reply(452, "4.3.1", "No room to keep this message; try again later", Reason.STORAGE)

# What the relay says where no next hop has said anything that could be passed on. RFC 3463 §3.5.
UPSTREAM_UNREACHABLE = Reply(451, "4.4.1", "The next hop cannot be reached", Reason.UPSTREAM_UNREACHABLE)
UPSTREAM_TIMEOUT = Reply(451, "4.4.2", "The next hop did not answer in time", Reason.UPSTREAM_TIMEOUT)
UPSTREAM_BUSY = Reply(451, "4.4.5", "All connections to the next hop are busy", Reason.UPSTREAM_TIMEOUT)
UPSTREAM_LOST = Reply(451, "4.4.2", "The next hop closed the connection", Reason.UPSTREAM_LOST)
UPSTREAM_PROTOCOL = Reply(451, "4.4.0", "The next hop gave no sensible answer", Reason.UPSTREAM_PROTOCOL)
UPSTREAM_NOT_SENT = Reply(
    451, "4.4.0", "Not sent: another recipient of the message was deferred", Reason.UPSTREAM_DEFERRED
)
UPSTREAM_TOO_BIG = Reply(552, "5.3.4", "message too big for the next hop", Reason.UPSTREAM_REFUSED)
UPSTREAM_WITHOUT_8BITMIME = Reply(554, "5.6.3", "The next hop does not take 8-bit content", Reason.CONVERSION_REQUIRED)
UPSTREAM_WITHOUT_BINARYMIME = Reply(
    554, "5.6.3", "The next hop does not take binary content", Reason.CONVERSION_REQUIRED
)
UPSTREAM_WITHOUT_SMTPUTF8 = Reply(553, "5.6.7", "The next hop does not offer SMTPUTF8", Reason.UPSTREAM_REFUSED)
UPSTREAM_WITHOUT_DELIVERBY = Reply(554, "5.3.3", "The next hop does not offer DELIVERBY", Reason.UPSTREAM_REFUSED)
# RFC 8689 §4.2.1 has the status of both
UPSTREAM_WITHOUT_REQUIRETLS = Reply(550, "5.7.30", "The next hop does not offer REQUIRETLS", Reason.UPSTREAM_REFUSED)
UPSTREAM_WITHOUT_TLS = Reply(
    550, "5.7.10", "REQUIRETLS needs TLS with a verified certificate to the next hop", Reason.UPSTREAM_REFUSED
)
TIME_IS_OVER = Reply(554, "5.4.7", "The time that BY= leaves for the delivery is over", Reason.UPSTREAM_REFUSED)
OUTCOME_UNKNOWN = Reply(  # RFC 1047
    451, "4.4.2", "The next hop vanished before it confirmed the message", Reason.OUTCOME_UNKNOWN
)
