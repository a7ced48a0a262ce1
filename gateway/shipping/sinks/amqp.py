"""The sink `amqp`: messages published with confirms (RabbitMQ), persistent, with the record's id as `message_id`.

They are mandatory: one that no queue would get is a failure, and not lost.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError, DeliveryError
from yarl import URL

from gateway.shipments import AmqpSettings
from gateway.shipping.dispatch import Failed, Outcome, Parcel, RecordBatch, Taken


class AmqpSink:
    """One connection with one channel; lost, they are made anew for the next batch."""

    def __init__(self, settings: AmqpSettings) -> None:
        self._settings = settings
        self._url = URL(settings.url)
        if settings.password is not None:
            self._url = self._url.with_password(settings.password.read())
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        for name in ("aio_pika", "aiormq"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they would say all twice, with URLs

    async def send(self, batch: RecordBatch) -> Outcome:
        try:
            async with asyncio.timeout(self._settings.timeout):
                exchange = await self._opened()
        except (AMQPError, OSError, ValueError, RuntimeError) as error:
            await self._give_up()
            return Failed(f"cannot connect: {_words(error)}")
        answers = await asyncio.gather(*(self._publish(exchange, parcel) for parcel in batch.parcels))
        taken = [number for number, answer in enumerate(answers) if answer is None]
        problems = [answer for answer in answers if answer is not None]
        if not problems:
            return Taken()
        if not all(isinstance(problem, DeliveryError) for problem in problems):
            await self._give_up()
        return Failed(_words(problems[0]), taken)

    async def close(self) -> None:
        await self._give_up()

    async def _publish(self, exchange: AbstractExchange, parcel: Parcel) -> Exception | None:
        """None once it is confirmed."""
        message = aio_pika.Message(
            parcel.body,
            message_id=parcel.id[:255],
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id="relay-gateway",
        )
        try:
            await exchange.publish(message, parcel.topic, mandatory=True, timeout=self._settings.timeout)
        except (AMQPError, OSError, ValueError, RuntimeError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                return ConnectionResetError("the channel was closed")  # its futures are cancelled then
            return error
        return None

    async def _opened(self) -> AbstractExchange:
        if self._connection is None or self._connection.is_closed or self._exchange is None:
            await self._give_up()
            context = ssl.create_default_context(cafile=self._settings.ca_file) if self._url.scheme == "amqps" else None
            self._connection = await aio_pika.connect(
                str(self._url), timeout=self._settings.timeout, ssl_context=context
            )
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            name = self._settings.exchange
            self._exchange = await channel.get_exchange(name) if name else channel.default_exchange
        return self._exchange

    async def _give_up(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except (AMQPError, OSError, RuntimeError):
                pass


def _words(error: Exception) -> str:
    if isinstance(error, DeliveryError):
        return "no queue takes this routing key, or the broker refused it"
    return getattr(error, "strerror", None) or type(error).__name__
