"""The sink `kafka`: messages that all in-sync replicas have, produced by librdkafka's idempotent producer.

A record's id is the header `id`. librdkafka repeats by itself what is lost on the way, without duplicates, for the time
that a batch has; what is not delivered by then is the dispatch's to repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from gateway.shipments import KafkaSettings
from gateway.shipping.dispatch import Failed, NeverTaken, Outcome, RecordBatch, Taken

_POLL_SECONDS = 0.1
_SLACK_SECONDS = 1.0  # for librdkafka's own time-out to be heard
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD}
_SILENT = logging.getLogger("gateway.shipping.kafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # its lines may have settings; what matters is said by the shipper


class KafkaSink:
    """One producer, made anew after an error that it cannot live with."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._config = {
            "bootstrap.servers": ",".join(settings.bootstrap_servers),
            "client.id": "relay-gateway",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            **settings.config,
            "delivery.timeout.ms": max(1000, int(settings.timeout * 1000)),
        }
        if settings.password is not None:
            self._config["sasl.password"] = settings.password.read()
        self._producer: Producer | None = None

    async def send(self, batch: RecordBatch) -> Outcome:
        return await asyncio.to_thread(self._send, batch)

    def _send(self, batch: RecordBatch) -> Outcome:
        answers: dict[int, KafkaError | None] = {}
        try:
            producer = self._made()
            for number in range(len(batch.parcels)):
                self._produce(producer, number, batch, answers)
        except (KafkaException, ValueError, TypeError) as error:
            self._producer = None
            return Failed(_words(error.args[0] if error.args else error))
        end = time.monotonic() + self._settings.timeout + _SLACK_SECONDS
        while len(answers) < len(batch.parcels) and time.monotonic() < end:
            producer.poll(_POLL_SECONDS)
        return self._outcome(batch, answers)

    def _produce(
        self, producer: Producer, number: int, batch: RecordBatch, answers: dict[int, KafkaError | None]
    ) -> None:
        parcel = batch.parcels[number]

        def answered(error: KafkaError | None, _: Message) -> None:
            answers[number] = error

        while True:
            try:
                producer.produce(
                    parcel.topic,
                    parcel.body,
                    key=parcel.key or None,
                    headers=[("id", parcel.id.encode())],
                    on_delivery=answered,
                )
            except BufferError:  # its queue is full
                producer.poll(_POLL_SECONDS)
                continue
            except KafkaException as error:
                answers[number] = error.args[0]
            return

    def _outcome(self, batch: RecordBatch, answers: dict[int, KafkaError | None]) -> Outcome:
        taken = [number for number, error in answers.items() if error is None]
        errors = [error for error in answers.values() if error is not None]
        if len(taken) == len(batch.parcels):
            return Taken()
        if not errors:
            self._forget()
            return Failed("no answer", taken)
        if any(error.fatal() for error in errors):
            self._forget()
        if not taken and all(error.code() in _TOO_LARGE for error in errors):
            return NeverTaken(_words(errors[0]))
        others = [error for error in errors if error.code() not in _TOO_LARGE]
        return Failed(_words(others[0] if others else errors[0]), taken)

    def _made(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._config, logger=_SILENT)
        return self._producer

    def _forget(self) -> None:
        """What it still has is the next batch's."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    async def close(self) -> None:
        self._forget()


def _words(error: object) -> str:
    return error.name() if isinstance(error, KafkaError) else type(error).__name__
