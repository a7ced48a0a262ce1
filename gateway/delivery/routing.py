"""From a transaction's recipients to deliveries: who makes one message, which queue is whose, who travels together.

Pure functions over values. The policy is asked where a queue leads to by the transaction, between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config import BatchHandling, Destination
from gateway.handover import HandOver
from gateway.mail.message import NULL_QUEUE, Message
from gateway.mail.notification import Notice
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.requests import Requests

_TOGETHER, _BY_DOMAIN = BatchHandling.TOGETHER, BatchHandling.BY_DOMAIN


class Delivery:
    """One hand-over: the recipients of one message that share a destination.

    given: the message's recipients before the policy looked at it, as the client named them. requests: what the client
    asks for with these recipients, None for nothing. result: None until it is over. notice: how the sender was told of
    those who were refused; None where nobody was.
    """

    def __init__(
        self,
        message: Message,
        given: list[EnvelopeAddress],
        queue_name: str,
        recipients: list[EnvelopeAddress],
        destination: Destination,
    ) -> None:
        self.message = message
        self.given = given
        self.queue_name = queue_name
        self.recipients = recipients
        self.destination = destination
        self.requests: Requests | None = None
        self.result: HandOver | None = None
        self.notice: Notice | None = None


def split(recipients: list[EnvelopeAddress], handling: BatchHandling) -> list[list[EnvelopeAddress]]:
    """Which recipients make one message, in the order in which they were given."""
    if handling is _TOGETHER or len(recipients) == 1:
        return [recipients]
    if handling is _BY_DOMAIN:
        by_domain: dict[str, list[EnvelopeAddress]] = {}
        for recipient in recipients:
            by_domain.setdefault(recipient.domain, []).append(recipient)
        return list(by_domain.values())
    return [[recipient] for recipient in recipients]


def is_discarded(message: Message) -> bool:
    """Whether the policy put the message into the queue for discarding. A recipient at a domain of that name does not:
    nobody's mail is dropped because of what a client writes.
    """
    return message.meta.get("queue") == NULL_QUEUE


def queue_names(message: Message, recipients: list[EnvelopeAddress], first: str) -> list[str]:
    """The queue of each recipient. Raises ValueError where metadata that make a queue's name are no strings.

    recipients: of the message's those that get it. first: the queue of its first recipient.
    """
    if len(recipients) == 1:
        recipient = recipients[0]
        return [first if recipient is message.recipients[0] else message.queue_name(recipient)]
    by_domain: dict[str, str] = {}
    names = []
    for recipient in recipients:
        name = by_domain.get(recipient.domain)
        if name is None:
            name = by_domain[recipient.domain] = message.queue_name(recipient)
        names.append(name)
    return names


def deliveries(
    message: Message,
    given: list[EnvelopeAddress],
    recipients: list[EnvelopeAddress],
    names: list[str],
    destinations: Mapping[str, Destination],
) -> list[Delivery]:
    """One delivery for each way of handling, so that recipients with different handling never mix.

    given: see Delivery. names: the queue of each recipient. destinations: where each of these queues leads to.
    """
    if len(destinations) == 1:
        return [Delivery(message, given, names[0], recipients, destinations[names[0]])]
    found: dict[object, Delivery] = {}
    by_name: dict[str, Delivery] = {}
    for recipient, name in zip(recipients, names, strict=True):
        delivery = by_name.get(name)
        if delivery is None:
            destination = destinations[name]
            queue = destination.queue
            handling = queue.protocol, destination.path, queue.egress_pool, queue.on_partial_refusal
            delivery = by_name[name] = found.setdefault(handling, Delivery(message, given, name, [], destination))
        delivery.recipients.append(recipient)
    return list(found.values())
