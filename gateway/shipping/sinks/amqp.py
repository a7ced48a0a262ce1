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
from gateway.shipping.dispatch import Parcel
from gateway.shipping.sinks.publishing import PublishingSink, plain_words


class AmqpSink(PublishingSink[AbstractExchange]):
    """One connection with one channel."""

    errors = (AMQPError, OSError, ValueError, RuntimeError)

    def __init__(self, settings: AmqpSettings) -> None:
        super().__init__(settings.timeout)
        self._settings = settings
        self._url = URL(settings.url)
        if settings.password is not None:
            self._url = self._url.with_password(settings.password.read())
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        for name in ("aio_pika", "aiormq"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they would say all twice, with URLs

    async def opened(self) -> AbstractExchange:
        if self._connection is None or self._connection.is_closed or self._exchange is None:
            await self.close()
            context = ssl.create_default_context(cafile=self._settings.ca_file) if self._url.scheme == "amqps" else None
            self._connection = await aio_pika.connect(str(self._url), timeout=self.timeout, ssl_context=context)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            name = self._settings.exchange
            self._exchange = await channel.get_exchange(name) if name else channel.default_exchange
        return self._exchange

    async def publish(self, channel: AbstractExchange, parcel: Parcel) -> None:
        message = aio_pika.Message(
            parcel.body,
            message_id=parcel.id[:255],
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id="relay-gateway",
        )
        try:
            await channel.publish(message, parcel.topic, mandatory=True, timeout=self.timeout)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ConnectionResetError("the channel was closed") from None  # its futures are cancelled then

    async def disconnect(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            await connection.close()

    def is_answer(self, error: Exception) -> bool:
        return isinstance(error, DeliveryError)

    def words(self, error: Exception) -> str:
        if isinstance(error, DeliveryError):
            return "no queue takes this routing key, or the broker refused it"
        return plain_words(error)
