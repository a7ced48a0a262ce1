"""Conduct: what a client did amiss in its session since its last message was taken, and what that leads to.

RFC 5321 §7.8: a server may limit what a client can do to it. Replies are held back for longer and longer, and in the
end the session is closed. No clock, no session: counts and replies. What all sessions of a peer share is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway._fastpath import AUTH, BDAT, DATA, RCPT
from gateway.config import ListenerParams
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply

MOST_AUTH_FAILURES = 5  # in a session; what all of a peer's may be is `limits.auth_failures`
LONGEST_DELAY = 10  # seconds
STRAYS = 20  # so many times as many commands as `idle_commands` may come in vain: they are pipelined by the hundred
UNLIMITED = 1 << 60

# Amiss is what no client sends that speaks SMTP; what the policy or the fleet refuses is not.
_ERRORS = frozenset(
    {
        Reason.UNKNOWN_COMMAND,
        Reason.SYNTAX,
        Reason.BAD_SEQUENCE,
        Reason.LINE_TOO_LONG,
        Reason.PARAMETER_UNKNOWN,
        Reason.PARAMETER_SYNTAX,
        Reason.SENDER_SYNTAX,
        Reason.AUTH_MECHANISM,
        Reason.AUTH_REQUIRES_TLS,
        Reason.AUTH_SYNTAX,
        Reason.AUTH_CANCELLED,
    }
)
# RCPT, DATA and BDAT without a transaction may follow, pipelined, a MAIL that was refused: nothing amiss, as such.
_PIPELINED = frozenset({Reason.BAD_SEQUENCE, Reason.NO_RECIPIENTS})


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a client may do in one session. Counts since its last message; seconds; octets a second. UNLIMITED and 0.0:
    anything.
    """

    errors: int = UNLIMITED
    invalid_recipients: int = UNLIMITED
    idle_commands: int = UNLIMITED
    auth_failures: int = UNLIMITED
    first_command_timeout: float = 0.0
    command_timeout: float = 0.0
    data_timeout: float = 0.0
    minimum_data_rate: float = 0.0


# Of clients that nothing is known of, where the listener says nothing.
COMMAND_TIMEOUT = 60.0  # seconds from a line's first octet to its end
DATA_TIMEOUT = 3600.0
MINIMUM_DATA_RATE = 100.0


def session_limits(params: ListenerParams, *, trusted: bool) -> SessionLimits | None:
    """What a listener allows. trusted: to its relay hosts, which only what it says itself is asked of. None: all."""
    timing: dict[str, Any] = {
        "first_command_timeout": params.first_command_timeout or 0.0,
        "command_timeout": params.command_timeout or 0.0,
        "data_timeout": params.data_timeout or 0.0,
        "minimum_data_rate": 1 / params.minimum_data_rate.interval if params.minimum_data_rate else 0.0,
    }
    limits = params.limits
    if trusted and not limits.trusted:
        return replace(SessionLimits(), **timing) if any(timing.values()) else None
    usual: dict[str, Any] = {
        "first_command_timeout": params.client_timeout,
        "command_timeout": COMMAND_TIMEOUT,
        "data_timeout": DATA_TIMEOUT,
        "minimum_data_rate": MINIMUM_DATA_RATE,
    }
    counts = SessionLimits(
        errors=limits.errors or UNLIMITED,
        invalid_recipients=limits.invalid_recipients or UNLIMITED,
        idle_commands=limits.idle_commands or UNLIMITED,
        auth_failures=MOST_AUTH_FAILURES,
    )
    return replace(counts, **{name: timing[name] or default for name, default in usual.items()})


class Conduct:
    """Of one session. hostname: for the last reply."""

    def __init__(self, limits: SessionLimits, hostname: str) -> None:
        self._limits = limits
        self._hostname = hostname
        self._errors = self._invalid = self._surplus = self._strays = 0
        self._auth_failures = 0

    def weigh(self, verb: int, reply: Reply) -> tuple[Reply, float]:
        """What a refusal becomes, and for how many seconds to hold it back. verb: as an Observer gets it."""
        if verb == AUTH and reply.code >= 500 and reply.reason not in _ERRORS:
            return self._after_auth_failure(reply)
        if verb == RCPT and reply.code >= 500 and reply.reason not in _PIPELINED:
            self._invalid += 1
            return reply, self._delay(self._invalid, self._limits.invalid_recipients)
        if verb == RCPT or (verb in (DATA, BDAT) and reply.reason in _PIPELINED):
            self._strays += 1
            return (self.too_idle() if self._strays > STRAYS * self._limits.idle_commands else reply), 0.0
        if reply.reason not in _ERRORS:
            return reply, 0.0
        self._errors += 1
        delay = self._delay(self._errors, self._limits.errors)
        if self._errors > self._limits.errors:
            reply = self._closing("too many errors", Reason.TOO_MANY_ERRORS)
        return reply, delay

    def _after_auth_failure(self, reply: Reply) -> tuple[Reply, float]:
        self._auth_failures += 1
        most = self._limits.auth_failures
        if most == UNLIMITED:
            return reply, 0.0
        if self._auth_failures > most:
            reply = self._closing("too many failures to authenticate", Reason.TOO_MANY_AUTH_FAILURES)
        return reply, float(min(self._auth_failures, LONGEST_DELAY))

    @staticmethod
    def _delay(count: int, most: int) -> float:
        """From half of what is allowed on, a second more for each."""
        return 0.0 if most == UNLIMITED else float(min(max(0, count - (most + 1) // 2), LONGEST_DELAY))

    def refusal_of_sender(self) -> Reply | None:
        """What a MAIL gets; None where it may be taken."""
        if self._invalid >= self._limits.invalid_recipients:
            return self._closing("too many invalid recipients", Reason.TOO_MANY_INVALID_RECIPIENTS)
        return None

    def refusal_of_recipient(self, taken: int) -> Reply | None:
        """What a RCPT gets before it is looked at. taken: how many the transaction has, which are not to be lost."""
        if self._invalid < self._limits.invalid_recipients:
            return None
        self._surplus += 1
        if taken and self._surplus <= self._limits.invalid_recipients:
            return replies.INVALID_RECIPIENTS
        return self.refusal_of_sender()

    def too_idle(self) -> Reply:
        """What a command gets that is one too many without a message."""
        return self._closing("too many commands without a message", Reason.TOO_MANY_IDLE_COMMANDS)

    def forgive(self) -> None:
        """A message was taken. What failed to authenticate stays known."""
        self._errors = self._invalid = self._surplus = self._strays = 0

    def _closing(self, what: str, reason: Reason) -> Reply:
        return replies.closing(self._hostname, what, reason, enhanced="4.7.0")
