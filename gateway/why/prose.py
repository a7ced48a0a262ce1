"""An explanation in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from gateway.policy.events import LISTENER_DOMAIN
from gateway.why.explain import Explanation

_OUTCOMES = {
    "relayed": "accepted and relayed",
    "report_logged": "accepted as a report, logged, and goes no further",
    "discarded": "accepted and discarded: the policy wants that",
    "refused": "refused",
}


def in_words(explanation: Explanation) -> str:
    """Several lines, the answer first."""
    return "\n".join(_lines(explanation)) + "\n"


def _lines(told: Explanation) -> Iterator[str]:
    question = told["question"]
    yield _reply(told["reply"])
    yield f"  {_whole(told)}" + ("" if told["reason"] is None else f": {told['reason']}, at {told['stage']}")
    if told["rule"] is not None:
        yield from (f"  {line}" for line in rule_in_words(told["rule"]))
    if told["answered_by"] != "relay-gateway explain":
        yield f"answered by {told['answered_by']}, with the policy in force, epoch {told['epoch']}"
    yield f"asked at {question['listener']} by {question['peer']}, {_standing(question)}"
    yield f"  from <{question['from']}>: {question['message']}"
    for recipient in told["recipients"]:
        yield f"  to <{recipient['to']}>: {_reply(recipient['reply'])}"
        if len(told["recipients"]) > 1 and recipient["rule"] is not None:
            yield from (f"      {line}" for line in rule_in_words(recipient["rule"]))
    for destination in told["destinations"]:
        yield f"  would go to {_where(destination)}: {', '.join(destination['to'])}"
    for record in told["records"]:
        where = ", ".join(record["log_dirs"])
        yield f"  would be logged: {record['type']} in {where}" if where else f"  no log takes: {record['type']}"
    yield from _limits(told)
    yield from _events(told)
    yield from _differ(told)


def _whole(told: Explanation) -> str:
    if told["accepted"] or told["outcome"] == "refused":
        return _OUTCOMES[told["outcome"]]
    return f"refused for some; for the others {_OUTCOMES[told['outcome']]}"


def _reply(reply: dict[str, Any]) -> str:
    return " ".join(filter(None, (str(reply["code"]), reply["enhanced"], reply["text"].replace("\n", " / "))))


def _standing(question: dict[str, Any]) -> str:
    """What the client has done to be trusted."""
    tls = "under TLS" if question["tls"] else "in clear"
    return tls if question["auth"] is None else f"{tls}, authenticated as '{question['auth']}'"


def rule_in_words(rule: dict[str, Any]) -> Iterator[str]:
    """A rule in a line or several."""
    place = f"{rule['file']}:{rule['line']}" if rule["line"] else rule["file"]
    if rule["what"] == "nothing":
        yield f"{place}: nothing grants it"
        yield from (f"  {part}" for part in rule["text"].split("; "))
        return
    words = rule["what"].replace("verdict", "kumo.reject or kumo.disconnect")
    if rule.get("value") not in (None, True):
        words += f" = {rule['value']}"
    if "domain" in rule:
        words += f" for the domain '{rule['domain']}'"
    if "entry" in rule:
        words += f" ('{rule['entry']}')"
    if "listener" in rule:
        words += f" of the listener {rule['listener']}"
    if "event" in rule and rule["event"] != rule["what"]:
        words += f" in {rule['event']}"
    yield f"{place}: {words}" + (f": {rule['text']}" if "text" in rule else "")


def _without_ids(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply whose message nobody will look for."""
    return reply if reply["code"] >= 400 else {**reply, "text": ""}


def _where(destination: dict[str, Any]) -> str:
    if "maildir" in destination:
        return f"the Maildir {destination['maildir']}"
    return f"the fleet {', '.join(destination['fleet'])}"


def _limits(told: Explanation) -> Iterator[str]:
    for (by, who), limits in groupby(told["limits"], lambda limit: (limit["by"], limit["who"])):
        holder = "the session" if by == "session" else f"the {by} {who}"
        yield f"  limits of {holder}: {', '.join(map(_limit, limits))}"


def _limit(limit: dict[str, Any]) -> str:
    words = f"{limit['limit']} {limit['most']}"
    if limit["every"] is not None:
        words += f" and one every {limit['every']:g} s"
    if limit["retry_after"] is not None:
        return f"{words} (none left for {limit['retry_after']:.3g} s)"
    return words if limit["left"] is None else f"{words} ({limit['left']} left)"


def _events(told: Explanation) -> Iterator[str]:
    if told["events"]:
        yield "the policy was asked"
    for event in told["events"]:
        arguments = ", ".join(_value(argument) for argument in event["arguments"] if argument != "conn_meta")
        cached = "; from the cache" if event["cached"] else "; not cached" if _is_costly(event) else ""
        yield f"  {event['event']}({arguments})  {event['file']}:{event['line']}{cached}"
        for key, value in event["read"].items():
            yield f"      read {key} = {_value(value)}"
        if "error" in event:
            yield f"      {event['error']}"
        else:
            made = event.get("made_at")
            yield f"      returned {_value(event['result'])}" + (f"  {made['file']}:{made['line']}" if made else "")


def _is_costly(event: dict[str, Any]) -> bool:
    """A decision that is made again for everybody."""
    return event["event"] == LISTENER_DOMAIN and not event["cacheable"]


def _differ(told: Explanation) -> Iterator[str]:
    if not told["differ"]:
        yield f"nothing of what was tried makes it {'refused' if told['accepted'] else 'accepted'}"
    if not told["complete"]:
        yield "there was no time to try everything"
    if not told["differ"]:
        return
    yield f"it would be {'refused' if told['accepted'] else 'accepted'} with"
    for proposal in told["differ"]:
        changes = [proposal, *proposal.get("and", ())]
        words = (f"{each['what']} {_value(each['to'])} instead of {_value(each['from'])}" for each in changes)
        yield f"  {', and '.join(words)}: {_reply(_without_ids(proposal['reply']))}"


def _value(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "{ " + ", ".join(map(_value, value)) + " }" if value else "{}"
    return f"'{value}'".replace("\n", "\\n") if isinstance(value, str) else str(value)
