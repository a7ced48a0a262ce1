"""MessageHandle: a message as Lua holds it, for as long as an event lasts."""

from __future__ import annotations

from gateway.mail.message import Message


class MessageHandle:
    """Lua's collector sees a few octets where a whole message hangs on, so it would keep messages for a long time.

    message: None when the event is over that it came with.
    """

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message: Message | None = message

    def __enter__(self) -> MessageHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.message = None
