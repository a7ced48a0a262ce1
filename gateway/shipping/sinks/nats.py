"""The sink `nats`: records published to JetStream, each acknowledged by a stream once it is stored there.

A record's id is its `Nats-Msg-Id`, so that the stream itself drops what comes twice within its duplicate window.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from gateway.shipments import NatsSettings
from gateway.shipping.dispatch import Parcel
from gateway.shipping.sinks.publishing import PublishingSink, plain_words

_ID = "Nats-Msg-Id"


class NatsSink(PublishingSink[JetStreamContext]):
    """One connection to one of the servers."""

    errors = (Error, OSError, ValueError)

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__(settings.timeout)
        self._servers = list(settings.servers)
        self._ca_file = settings.ca_file
        self._options: dict[str, Any] = {"user_credentials": settings.credentials}
        if settings.user is not None:
            self._options["user"] = settings.user
        if settings.password is not None:
            self._options["password"] = settings.password.read()
        if settings.token is not None:
            self._options["token"] = settings.token.read()
        self._client: Client | None = None
        logging.getLogger("nats").setLevel(logging.CRITICAL)  # it would say all twice, with URLs

    async def opened(self) -> JetStreamContext:
        if self._client is None or not self._client.is_connected:
            await self.close()
            if self._ca_file is not None:
                self._options["tls"] = ssl.create_default_context(cafile=self._ca_file)
            self._client = Client()  # closed by whoever hears that this fails
            await self._client.connect(
                self._servers,
                allow_reconnect=False,
                connect_timeout=max(1, int(self.timeout)),
                error_cb=_ignore,
                **self._options,
            )
        return self._client.jetstream()

    async def publish(self, channel: JetStreamContext, parcel: Parcel) -> None:
        await channel.publish(parcel.topic, parcel.body, timeout=self.timeout, headers={_ID: parcel.id})

    async def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def is_answer(self, error: Exception) -> bool:
        return isinstance(error, APIError | MaxPayloadError)

    def never(self, error: Exception) -> str:
        return "larger than the server's max_payload" if isinstance(error, MaxPayloadError) else ""

    def words(self, error: Exception) -> str:
        if isinstance(error, NoStreamResponseError):
            return "no stream takes this subject"
        if isinstance(error, APIError):
            return f"JetStream: {error.description or error.code}"
        return plain_words(error)


async def _ignore(error: Exception) -> None:
    """It comes back to whoever publishes."""
