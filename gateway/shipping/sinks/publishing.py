"""What those sinks share whose server answers each record for itself: open, publish all, sort the answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from gateway.shipping.dispatch import Failed, NeverTaken, Outcome, Parcel, RecordBatch, Taken

PARTING = 1.0  # seconds that a connection gets to end


Channel = TypeVar("Channel")


class PublishingSink(ABC, Generic[Channel]):
    """Its connection, once lost, is made anew for the next batch. Channel: what is published to.

    errors: what the client's library raises for what a network or server does.
    """

    errors: tuple[type[Exception], ...]

    def __init__(self, timeout: float) -> None:
        """timeout: seconds to connect in, and for each answer."""
        self.timeout = timeout

    @abstractmethod
    async def opened(self) -> Channel:
        """Where to publish; connects where there is no connection. Raises errors."""

    @abstractmethod
    async def publish(self, channel: Channel, parcel: Parcel) -> None:
        """Returns once the server has it. Raises errors."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Ends the connection, if there is one. Raises errors."""

    @abstractmethod
    def words(self, error: Exception) -> str:
        """For the diagnostics; without secrets."""

    @abstractmethod
    def is_answer(self, error: Exception) -> bool:
        """Whether the server said so, and the connection is good."""

    def never(self, error: Exception) -> str:
        """Why the server will never take this record; empty where it may."""
        return ""

    async def send(self, batch: RecordBatch) -> Outcome:
        """As RecordSink has it."""
        try:
            async with asyncio.timeout(self.timeout):
                channel = await self.opened()
        except self.errors as error:
            await self.close()
            return Failed(f"cannot connect: {self.words(error)}")
        answers = await asyncio.gather(*(self._published(channel, parcel) for parcel in batch.parcels))
        taken = [number for number, answer in enumerate(answers) if answer is None]
        problems = [answer for answer in answers if answer is not None]
        if not problems:
            return Taken()
        if not taken and all(map(self.never, problems)):
            return NeverTaken(self.never(problems[0]))
        if not all(map(self.is_answer, problems)):
            await self.close()
        return Failed(self.words(problems[0]), taken)

    async def close(self) -> None:
        """As RecordSink has it."""
        try:
            async with asyncio.timeout(PARTING):
                await self.disconnect()
        except self.errors:
            pass

    async def _published(self, channel: Channel, parcel: Parcel) -> Exception | None:
        """None once the server has it."""
        try:
            await self.publish(channel, parcel)
        except self.errors as error:
            return error
        return None


def plain_words(error: Exception) -> str:
    """Of an error that says nothing of its own."""
    return getattr(error, "strerror", None) or type(error).__name__
