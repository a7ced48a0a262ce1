"""The methods of messages about envelope and metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.mail.message import Message
from gateway.policy.kumo.values import string
from gateway.policy.objects import address_of, storable
from gateway.smtp.address import EnvelopeAddress


def message_id(message: Message) -> str:
    """32 hex digits."""
    return message.id


def sender(message: Message) -> EnvelopeAddress:
    """The reverse-path."""
    return message.sender


def set_sender(message: Message, address: Any) -> None:
    """Another reverse-path."""
    message.sender = address_of(address)


def recipient(message: Message) -> Any:
    """The recipient; a list where there are several, nil where there is none."""
    if len(message.recipients) == 1:
        return message.recipients[0]
    return message.recipients or None


def recipient_list(message: Message) -> list[EnvelopeAddress]:
    """All recipients."""
    return message.recipients


def set_recipient(message: Message, recipients: Any) -> None:
    """Other recipients: one, or a list."""
    if isinstance(recipients, list):
        message.recipients = [address_of(one) for one in recipients]
    elif recipients == {}:
        raise ValueError("set_recipient: expected at least one address")
    else:
        message.recipients = [address_of(recipients)]


def get_meta(message: Message, name: Any) -> Any:
    """A value of the metadata, nil where there is none."""
    return message.meta.get(string(name, "get_meta"))


def set_meta(message: Message, name: Any, value: Any) -> None:
    """Anything that JSON can hold; nil is kept as null."""
    message.meta[string(name, "set_meta")] = storable(value, "set_meta")


def queue_name(message: Message) -> str:
    """meta `queue`, or `[campaign:][tenant]@domain[!routing_domain]`."""
    return message.queue_name()


def num_attempts(message: Message) -> int:
    """Deliveries tried so far: 0 here."""
    return int(message.attempts)


def increment_num_attempts(message: Message) -> None:
    """One more."""
    message.attempts += 1


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "id": message_id,
    "sender": sender,
    "set_sender": set_sender,
    "recipient": recipient,
    "recipient_list": recipient_list,
    "set_recipient": set_recipient,
    "get_meta": get_meta,
    "set_meta": set_meta,
    "queue_name": queue_name,
    "num_attempts": num_attempts,
    "increment_num_attempts": increment_num_attempts,
}
