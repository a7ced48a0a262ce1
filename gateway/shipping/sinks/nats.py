"""The sink `nats`: records published to JetStream, each acknowledged by a stream once it is stored there.

A record's id is its `Nats-Msg-Id`, so that the stream itself drops what comes twice within its duplicate window.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from gateway.shipments import NatsSettings
from gateway.shipping.dispatch import Failed, NeverTaken, Outcome, Parcel, RecordBatch, Taken

_ID = "Nats-Msg-Id"


class NatsSink:
    """One connection to one of the servers; lost, it is made anew for the next batch."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._options: dict[str, Any] = {"user_credentials": settings.credentials}
        if settings.user is not None:
            self._options["user"] = settings.user
        if settings.password is not None:
            self._options["password"] = settings.password.read()
        if settings.token is not None:
            self._options["token"] = settings.token.read()
        self._client: Client | None = None
        logging.getLogger("nats").setLevel(logging.CRITICAL)  # it would say all twice, with URLs

    async def send(self, batch: RecordBatch) -> Outcome:
        try:
            async with asyncio.timeout(self._settings.timeout):
                stream = await self._stream()
        except (Error, OSError, ValueError, ssl.SSLError) as error:
            await self._give_up()
            return Failed(f"cannot connect: {_words(error)}")
        answers = await asyncio.gather(*(self._publish(stream, parcel) for parcel in batch.parcels))
        taken = [number for number, answer in enumerate(answers) if answer is None]
        problems = [answer for answer in answers if answer is not None]
        if not problems:
            return Taken()
        if all(isinstance(problem, MaxPayloadError) for problem in problems) and not taken:
            return NeverTaken("larger than the server's max_payload")
        if not isinstance(problems[0], APIError | MaxPayloadError):
            await self._give_up()
        return Failed(_words(problems[0]), taken)

    async def close(self) -> None:
        await self._give_up()

    async def _publish(self, stream: JetStreamContext, parcel: Parcel) -> Exception | None:
        """None once it is stored."""
        try:
            headers: Mapping[str, str] = {_ID: parcel.id}
            await stream.publish(parcel.topic, parcel.body, timeout=self._settings.timeout, headers=dict(headers))
        except (Error, OSError, ValueError) as error:
            return error
        return None

    async def _stream(self) -> JetStreamContext:
        if self._client is None or not self._client.is_connected:
            await self._give_up()
            if self._settings.ca_file is not None:
                self._options["tls"] = ssl.create_default_context(cafile=self._settings.ca_file)
            self._client = Client()  # closed by whoever hears that this fails
            await self._client.connect(
                list(self._settings.servers),
                allow_reconnect=False,
                connect_timeout=max(1, int(self._settings.timeout)),
                error_cb=_ignore,
                **self._options,
            )
        return self._client.jetstream()

    async def _give_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(1.0):
                    await client.close()
            except (Error, OSError):
                pass


async def _ignore(error: Exception) -> None:
    """It comes back to whoever publishes."""


def _words(error: Exception) -> str:
    if isinstance(error, NoStreamResponseError):
        return "no stream takes this subject"
    if isinstance(error, APIError):
        return f"JetStream: {error.description or error.code}"
    return getattr(error, "strerror", None) or type(error).__name__
