"""Every reply the gateway gives, with its code, enhanced code (RFC 3463) and reason id, and nothing else.

Public code formats no reply of its own: it takes one from here. A reason id names *why* something was refused; it
is the same word in the log record, the metric's `reason` label and the documentation, so the list is closed.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a command, message or connection was refused. docs/reasons.md explains each."""

    TOO_MANY_CONNECTIONS = "too_many_connections"
    SHUTTING_DOWN = "shutting_down"
    IDLE_TIMEOUT = "idle_timeout"
    INTERNAL_ERROR = "internal_error"
    POLICY_ERROR = "policy_error"
    POLICY_REJECT = "policy_reject"
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
    PROCESSING_TIMEOUT = "processing_timeout"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_DEFERRED = "upstream_deferred"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_LOST = "upstream_lost"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    OUTCOME_UNKNOWN = "outcome_unknown"
    STORAGE = "storage"


class Reply:
    """One SMTP reply.

    code: three digits. enhanced: RFC 3463 code as text, "" for the replies that carry none (220, 221 banner, 250 to
    HELO/EHLO, 334, 354: RFC 2034 §4). text: what follows; "\\n" separates lines. reason: None for 2xx and 3xx.
    closes: the connection ends after this reply. wire: the bytes to send, made once.
    """

    __slots__ = ("closes", "code", "enhanced", "reason", "text", "wire")

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

    @property
    def positive(self) -> bool:
        """True for 2xx and 3xx."""
        return self.code < 400


def _wire(code: int, enhanced: str, text: str) -> bytes:
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
    lines = [
        "".join(c if c >= " " and c != "\x7f" else " " for c in line).strip()[:480]
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ]
    enhanced, lines[0] = split_enhanced(code, lines[0])
    lines = [lines[0], *(split_enhanced(code, line)[1] for line in lines[1:])]
    if not enhanced:
        enhanced = f"{code // 100}.0.0" if code // 100 in (2, 4, 5) else ""
    return Reply(code, enhanced, "\n".join(lines) or "refused", reason, closes=closes)


def split_enhanced(code: int, line: str) -> tuple[str, str]:
    """("5.1.1", "rest") out of "5.1.1 rest"; ("", line) where there is no enhanced code of the reply's class."""
    first, _, rest = line.partition(" ")
    digits = first.split(".")
    if len(digits) == 3 and all(d.isascii() and d.isdigit() and len(d) <= 3 for d in digits):
        if int(digits[0]) == code // 100:
            return first, rest
        return "", rest  # a class that contradicts the code would mislead the client (RFC 2034 §4)
    return "", line
