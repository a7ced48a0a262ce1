"""What records tell of the questions that clients once asked. Pure functions over records; docs/why.md says what they
do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple

from gateway.smtp.replies import Reason
from gateway.why.conversation import CLIENT
from gateway.why.messages import BOUNCE, COMPLAINT, LETTER

# Refusals that a policy may be behind. Others are about the command or the moment, whatever the policy says.
DECIDED_BY_POLICY = frozenset(
    {
        Reason.RELAY_DENIED, Reason.POLICY_REJECT, Reason.POLICY_ERROR, Reason.NOT_A_REPORT, Reason.NO_DESTINATION,
        Reason.AUTH_FAILED,
    }
)  # fmt: skip
_CONTENTS = {"Reception": LETTER, "Rejection": LETTER, "OOB": BOUNCE, "Feedback": COMPLAINT}


class RecordedQuestion(NamedTuple):
    """One recipient of one client, as far as a record tells. recipient: None where none was named. received_via: our
    end of the connection, None where the logger's `meta` does not show it. refused: the recorded reason, None for a
    message that was accepted.
    """

    sender: str
    recipient: str | None
    peer: str
    received_via: str | None
    auth: str | None
    tls: bool
    ehlo: str
    content: str
    refused: str | None


class Unusable(Exception):
    """A record from which no question can be read. str() is why, in words of a closed list."""


def asked_in(record: Any, report_ids: frozenset[str] | set[str]) -> Iterator[RecordedQuestion]:
    """The questions that led to a record. report_ids: of messages that were reports, whose Reception is not read.
    Raises Unusable.
    """
    kind = record.get("type") if isinstance(record, dict) else None
    content = _CONTENTS.get(str(kind))
    if content is None:
        of_the_fleet = kind in ("Delivery", "Bounce", "TransientFailure")
        raise Unusable("a hand-over does not name the client" if of_the_fleet else "not a record of this gateway")
    if not _is_whole(record):
        raise Unusable("it has not what a record of this gateway has")
    if kind == "Reception" and record["id"] in report_ids:
        raise Unusable("the Reception of a report, which has its own record")
    reason = record.get("reason") if kind == "Rejection" else None
    if kind == "Rejection" and reason not in DECIDED_BY_POLICY:
        raise Unusable("a refusal that no policy decides")
    peer = record.get("peer_address") or {}
    if not peer.get("addr"):
        raise Unusable("no peer is recorded")
    sender, recipients = record["sender"], record["recipient"]
    if kind == "OOB":  # it came to the sender that it names, from the null reverse-path
        sender, recipients = "", record["sender"]
    meta = record.get("meta") or {}
    for recipient in recipients if isinstance(recipients, list) else [recipients]:
        yield RecordedQuestion(
            sender=sender,
            recipient=recipient or None,
            peer=peer["addr"],
            received_via=meta.get("received_via"),
            auth=meta.get("authz_id") or meta.get("authn_id"),
            tls="tls_cipher" in record,
            ehlo=peer.get("name") or CLIENT,
            content=content,
            refused=reason,
        )


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether what is read of it is there, and of its type: a record may have been cut, or written by somebody else."""
    peer, recipients, meta = record.get("peer_address"), record.get("recipient"), record.get("meta")
    texts = [record.get("id", ""), record.get("sender"), record.get("reason")]
    texts += recipients if isinstance(recipients, list) else [recipients]
    if peer is not None:
        if not isinstance(peer, dict):
            return False
        texts += [peer.get("addr"), peer.get("name")]
    if meta is not None:
        if not isinstance(meta, dict):
            return False
        texts += [meta.get(key) for key in ("received_via", "authz_id", "authn_id")]
    needed = {"id", "sender", "recipient"} if record["type"] != "Rejection" else {"sender", "recipient"}
    return needed <= record.keys() and all(text is None or isinstance(text, str) for text in texts) and _is_at(peer)


def _is_at(peer: dict[str, Any] | None) -> bool:
    """Whether the client's address is one, where there is any."""
    try:
        return not (peer and peer.get("addr")) or bool(ip_address(peer["addr"]))
    except ValueError:
        return False
