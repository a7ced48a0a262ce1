"""At which stage of a session what can be refused: the closed label values of rejections_total. Values only."""

from __future__ import annotations

from gateway.smtp.replies import Reason

CONNECTION_REASONS = (
    Reason.TOO_MANY_CONNECTIONS,
    Reason.STORAGE,
    Reason.EARLY_TALKER,
    Reason.POLICY_REJECT,
    Reason.POLICY_ERROR,
    Reason.INTERNAL_ERROR,
    Reason.PEER_CONNECTIONS,
    Reason.CONNECTION_RATE,
)

# What can be refused at which stage; no other series exists.
_WHEREVER_LUA_RUNS = (Reason.POLICY_REJECT, Reason.POLICY_ERROR, Reason.INTERNAL_ERROR)
_OF_RECIPIENTS = (Reason.SYNTAX, Reason.LINE_TOO_LONG)
_OF_ARGUMENTS = (*_OF_RECIPIENTS, Reason.TOO_MANY_ERRORS)
_OF_TIME = (Reason.FIRST_COMMAND_TIMEOUT, Reason.COMMAND_TIMEOUT, Reason.DATA_TIMEOUT, Reason.DATA_TOO_SLOW)
_OF_PATHS = (Reason.BAD_SEQUENCE, Reason.PARAMETER_UNKNOWN, Reason.SMTPUTF8_REQUIRED)
REFUSED_AT = {
    "connect": (*CONNECTION_REASONS, Reason.IDLE_TIMEOUT, *_OF_TIME, Reason.SHUTTING_DOWN),
    "command": (
        *_WHEREVER_LUA_RUNS,
        *_OF_ARGUMENTS,
        Reason.BAD_SEQUENCE,
        Reason.UNKNOWN_COMMAND,
        Reason.OTHER_PROTOCOL,
        Reason.XCLIENT_DENIED,
        Reason.PEER_CONNECTIONS,
        Reason.CONNECTION_RATE,
        Reason.TOO_MANY_IDLE_COMMANDS,
    ),
    "tls": (*_OF_ARGUMENTS, Reason.BAD_SEQUENCE, Reason.TLS_PIPELINED, Reason.TOO_MANY_IDLE_COMMANDS),
    "auth": (
        *_WHEREVER_LUA_RUNS,
        *_OF_ARGUMENTS,
        Reason.BAD_SEQUENCE,
        Reason.UNKNOWN_COMMAND,
        Reason.AUTH_MECHANISM,
        Reason.AUTH_REQUIRES_TLS,
        Reason.AUTH_SYNTAX,
        Reason.AUTH_CANCELLED,
        Reason.AUTH_FAILED,
        Reason.TOO_MANY_AUTH_FAILURES,
        Reason.AUTH_RATE,
        Reason.PEER_CONNECTIONS,
        Reason.CONNECTION_RATE,
        Reason.TOO_MANY_IDLE_COMMANDS,
    ),
    "mail": (
        *_WHEREVER_LUA_RUNS,
        *_OF_ARGUMENTS,
        *_OF_PATHS,
        Reason.SENDER_SYNTAX,
        Reason.PARAMETER_SYNTAX,
        Reason.MESSAGE_TOO_BIG,
        Reason.MESSAGE_LIMIT,
        Reason.MESSAGE_RATE,
        Reason.OCTET_RATE,
        Reason.TOO_MANY_IDLE_COMMANDS,
        Reason.TOO_MANY_INVALID_RECIPIENTS,
    ),
    "rcpt": (
        *_WHEREVER_LUA_RUNS,
        *_OF_RECIPIENTS,
        *_OF_PATHS,
        Reason.RECIPIENT_SYNTAX,
        Reason.TOO_MANY_RECIPIENTS,
        Reason.TOO_MANY_INVALID_RECIPIENTS,
        Reason.TOO_MANY_IDLE_COMMANDS,
        Reason.RECIPIENT_RATE,
        Reason.RELAY_DENIED,
        Reason.MIXED_RECIPIENTS,
    ),
    "data": (
        *_WHEREVER_LUA_RUNS,
        *_OF_ARGUMENTS,
        Reason.UNKNOWN_COMMAND,
        Reason.TOO_MANY_IDLE_COMMANDS,
        Reason.BAD_SEQUENCE,
        Reason.NO_RECIPIENTS,
        Reason.MESSAGE_TOO_BIG,
        Reason.NO_ROOM,
        Reason.LINE_ENDINGS,
        Reason.BODY_LINE_TOO_LONG,
        Reason.MAIL_LOOP,
        Reason.NOT_A_REPORT,
        Reason.NO_DESTINATION,
        Reason.UPSTREAM_REFUSED,
        Reason.UPSTREAM_DEFERRED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_LOST,
        Reason.UPSTREAM_PROTOCOL,
        Reason.OUTCOME_UNKNOWN,
        Reason.STORAGE,
    ),
}
