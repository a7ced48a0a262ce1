"""How what is told of a session is put: values as JSON, and why a decision came out as it did. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any

import orjson

from gateway._fastpath import VERB_NAMES, XCLIENT, CidrSet
from gateway.config import Destination, ListenerDomain, SmtpFleet
from gateway.decision import Decision, Ground
from gateway.handover import HandOver, RecipientOutcome
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reply
from gateway.smtp.xclient import without_login

MOST_NAMED = 20  # recipients, prefixes or hosts of one event
LONGEST = 1000  # characters of a text
HIDDEN = "***"  # in the place of a secret

_NOTHING_GRANTED = ListenerDomain()


def line_of(event: Mapping[str, Any]) -> bytes:
    """An event as its line. What is no JSON is told as text."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # lone surrogates, for octets of a policy's that are no UTF-8
        return orjson.dumps(_sound(event), default=str, option=orjson.OPT_APPEND_NEWLINE)


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sound(str(key)): _sound(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_sound(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else _sound(str(value))


def time_of(now_ns: int) -> str:
    """RFC 3339 with microseconds. now_ns: nanoseconds since 1970."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def short(text: str, longest: int = LONGEST) -> str:
    """A text that anybody may have made as long as they liked."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def some(values: Iterable[str]) -> list[str]:
    """The first ones, and how many more there are."""
    listed = list(values)
    rest = len(listed) - MOST_NAMED
    return listed if rest <= 0 else [*listed[:MOST_NAMED], f"and {rest} more"]


def addresses(listed: Iterable[EnvelopeAddress]) -> list[str]:
    """The first ones, and how many more there are."""
    return some(each.email for each in listed)


def destination_of(destination: Destination) -> dict[str, Any]:
    """Where a queue leads to."""
    protocol = destination.queue.protocol
    if isinstance(protocol, SmtpFleet):
        return {"fleet": some(host.name for host in protocol.mx_list)}
    return {"maildir": getattr(protocol, "path", str(protocol))}


# --- a function for each kind of event --------------------------------------------------------------------------------


def connected(listener: str) -> dict[str, Any]:
    return {"listener": listener}


def joined(
    listener: str, known: Mapping[str, Any], sender: EnvelopeAddress | None, to: list[EnvelopeAddress]
) -> dict[str, Any]:
    """known: of conn_meta. sender, to: of the transaction under way."""
    told = {"listener": listener, "known": dict(known)}
    return told if sender is None else told | {"sender": sender.email, "recipients": addresses(to)}


def command(verb: int, argument: bytes) -> dict[str, Any]:
    """verb, argument: as an observer of the session gets them."""
    said = f"{VERB_NAMES[verb]} {argument.decode('utf-8', 'replace')}".rstrip()
    return {"command": short(without_login(said) if verb == XCLIENT else said)}


def continuation() -> dict[str, Any]:
    """The second line of an AUTH exchange, none of which is shown."""
    return {"command": HIDDEN}


def content(octets: int | None) -> dict[str, Any]:
    """octets: None where the content was refused before it was looked at."""
    return {"octets": octets}


def tls(version: str, cipher: str) -> dict[str, Any]:
    return {"version": version, "cipher": cipher}


def tls_failed(cause: str, text: str) -> dict[str, Any]:
    return {"cause": cause, "text": short(text)}


def policy(
    about: Mapping[str, Any], result: object, error: Exception | None, took: float, secret: frozenset[str]
) -> dict[str, Any]:
    """See Witness.policy."""
    told = dict(about)
    if "read" in told:
        told["read"] = {key: HIDDEN if key in secret else value_of(each) for key, each in told["read"].items()}
    if error is None:
        told["result"] = value_of(result)
    else:
        told["error"] = short(str(error))
        if getattr(error, "place", ""):
            told["rule"] = error.place  # type: ignore[attr-defined]  # of a refusal of the policy's
    return told | {"took": round(took, 6)}


def decision(
    decided: Decision | None,
    ground: Ground,
    recipient: EnvelopeAddress,
    to_recipient: ListenerDomain | None,
    sender: EnvelopeAddress | None,
    to_sender: ListenerDomain | None,
    cached: bool,
    handler: str | None,
) -> dict[str, Any]:
    """See Witness.decided."""
    told: dict[str, Any] = {
        "recipient": recipient.email,
        "decision": "denied" if decided is None else "relay" if decided.relay else "reports only",
        "because": because(ground, recipient, to_recipient, sender, to_sender),
        "to_recipient_domain": granted(to_recipient),
    }
    if to_sender is not None:
        told["to_sender_domain"] = granted(to_sender)
    if handler is not None:
        told["handler"] = handler
    return told | {"cached": cached}


def message(
    message_id: str, to: list[EnvelopeAddress], queue: str, report: str | None, goes_on: bool
) -> dict[str, Any]:
    """See Witness.message."""
    told = {"id": message_id, "recipients": addresses(to), "queue": queue, "goes_on": goes_on}
    return told if report is None else told | {"report": report}


def reply_of(reply: Reply) -> dict[str, Any]:
    """A reply of the gateway's."""
    told: dict[str, Any] = {"code": reply.code, "enhanced": reply.enhanced, "text": short(reply.text)}
    if reply.reason is not None:
        told["reason"] = reply.reason
    return told


def value_of(value: Any) -> Any:
    """What a handler returned, as it was understood."""
    if isinstance(value, ListenerDomain):
        return granted(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple | list):
        told = [None if each is None else short(str(each)) for each in value]
        return told if len(told) <= MOST_NAMED else some(map(str, told))
    return value if value is None or isinstance(value, bool | int | float) else short(str(value))


def granted(domain: ListenerDomain | None) -> dict[str, Any] | None:
    """What is granted for a domain, as far as it is anything; None for nothing."""
    if domain is None:
        return None
    told = {}
    for each in fields(ListenerDomain):
        value = getattr(domain, each.name)
        if each.compare and value != getattr(_NOTHING_GRANTED, each.name):
            told[each.name] = _plain(value)
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, CidrSet):
        return some(value)
    return value.value if isinstance(value, Enum) else value


def because(
    ground: Ground,
    recipient: EnvelopeAddress,
    to_recipient: ListenerDomain | None,
    sender: EnvelopeAddress | None,
    to_sender: ListenerDomain | None,
) -> str:
    """Why a recipient was accepted or not. to_recipient, to_sender: what is granted for their domains."""
    domain = recipient.domain or "<Postmaster>"
    if ground is Ground.RELAY_HOSTS:
        return "the peer is in relay_hosts"
    if ground is Ground.RELAY_TO:
        return f"relay_to is granted for {domain}"
    if ground is Ground.RELAY_FROM:
        return f"relay_from of {_domain_of(sender)} has the peer"
    lacking = f"{_no_relay_to(domain, to_recipient)}; {_no_relay_from(sender, to_sender)}"
    reports = f"reports are logged for {domain}; " if ground is Ground.REPORTS else ""
    return f"{reports}the peer is not in relay_hosts; {lacking}"


def _no_relay_to(domain: str, to_recipient: ListenerDomain | None) -> str:
    return f"nothing is granted for {domain}" if to_recipient is None else f"no relay_to for {domain}"


def _no_relay_from(sender: EnvelopeAddress | None, to_sender: ListenerDomain | None) -> str:
    name = _domain_of(sender)
    return f"nothing is granted for {name}" if to_sender is None else f"relay_from of {name} has not the peer"


def _domain_of(sender: EnvelopeAddress | None) -> str:
    return f"{sender.domain}, the sender's domain" if sender is not None and sender.domain else "the null sender"


def handing_over(message_id: str, to: list[EnvelopeAddress], queue: str, destination: Destination) -> dict[str, Any]:
    """Where a message is about to go."""
    return {"id": message_id, "queue": queue, "recipients": addresses(to), **destination_of(destination)}


def handed_over(message_id: str, result: HandOver) -> dict[str, Any]:
    """How a hand-over went."""
    told: dict[str, Any] = {
        "id": message_id,
        "protocol": result.protocol,
        "member": result.peer_name,
        "address": result.peer_address,
        "took": round(result.seconds, 6),
        "upstream_session": result.session_id,
        "tls": result.tls_protocol_version,
        "recipients": [_outcome_of(outcome) for outcome in result.outcomes[:MOST_NAMED]],
    }
    told = {key: value for key, value in told.items() if value not in (None, "")}
    if len(result.outcomes) > MOST_NAMED:
        told["more_recipients"] = len(result.outcomes) - MOST_NAMED
    return told


def _outcome_of(outcome: RecipientOutcome) -> dict[str, Any]:
    response = outcome.response
    told: dict[str, Any] = {
        "recipient": outcome.recipient.email,
        "status": outcome.status.value,
        "code": response.code,
        "enhanced": response.enhanced,
        "text": short(response.content),
    }
    if outcome.reason is not None:
        told["reason"] = outcome.reason
    return told
