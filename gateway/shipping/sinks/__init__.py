"""The kinds of sink, one module each: how a batch gets there, and what the answers mean.

A sink's module has a class with the methods of RecordSink; KINDS says which class serves which settings, and what has
to be installed for it. Sinks know nothing of segments, retries or checkpoints, and never raise for what a network does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple, Protocol, cast

from gateway.shipments import (
    AmqpSettings,
    FilesSettings,
    KafkaSettings,
    NatsSettings,
    SinkSettings,
    StdoutSettings,
    WebhookSettings,
)
from gateway.shipping.dispatch import Outcome, RecordBatch


class RecordSink(Protocol):
    """Where batches go."""

    async def send(self, batch: RecordBatch) -> Outcome:
        """Brings a batch there, and says what became of it once that is certain."""
        ...

    async def close(self) -> None:
        """Ends connections; what is under way may be lost."""
        ...


class SinkKind(NamedTuple):
    """name: in a declaration. place: module and class. topic, key: the settings that are templates over a record.

    needs: the module to be imported that may not be installed, and the extra that brings it.
    """

    name: str
    place: tuple[str, str]
    topic: str = ""
    key: str = ""
    needs: tuple[str, str] | None = None


KINDS: Mapping[type[SinkSettings], SinkKind] = {
    WebhookSettings: SinkKind("webhook", ("webhook", "WebhookSink")),
    FilesSettings: SinkKind("files", ("files", "FilesSink")),
    StdoutSettings: SinkKind("stdout", ("stdout", "StdoutSink")),
    KafkaSettings: SinkKind("kafka", ("kafka", "KafkaSink"), "topic", "key", ("confluent_kafka", "kafka")),
    NatsSettings: SinkKind("nats", ("nats", "NatsSink"), "subject", "", ("nats", "nats")),
    AmqpSettings: SinkKind("amqp", ("amqp", "AmqpSink"), "routing_key", "", ("aio_pika", "amqp")),
}


def missing(settings: SinkSettings) -> str | None:
    """What has to be installed before such a sink can be used; None for nothing."""
    needs = KINDS[type(settings)].needs
    return f"relay-gateway[{needs[1]}]" if needs and find_spec(needs[0]) is None else None


def texts(settings: SinkSettings) -> tuple[str, str]:
    """The topic and the key of records, as templates."""
    kind = KINDS[type(settings)]
    topic, key = (getattr(settings, name) if name else "" for name in (kind.topic, kind.key))
    return topic, key


def make(settings: SinkSettings) -> RecordSink:
    """The sink, not yet connected. Raises ImportError, OSError and ValueError (UnicodeDecodeError) for secrets that
    cannot be read.
    """
    module, name = KINDS[type(settings)].place
    found = getattr(importlib.import_module(f"gateway.shipping.sinks.{module}"), name)
    return cast(RecordSink, found(settings))
