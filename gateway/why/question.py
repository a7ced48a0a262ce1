"""What an operator asks, as options say it, and the question that it is to a policy. Values only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from gateway.config import Listener
from gateway.why.conversation import CLIENT, Question
from gateway.why.differ import local_end
from gateway.why.messages import LETTER, MESSAGES, as_sent

STRANGER = "192.0.2.1"  # RFC 5737: nobody's
CLIENT_PORT = 40_000


class Misuse(ValueError):
    """What is asked does not fit the policy. str() says how."""


class Inquiry(NamedTuple):
    """What is asked, each part as its option has it. message: the content as Latin-1, None for a small letter.
    message_name: what it is called.
    """

    sender: str
    recipients: Sequence[str]
    peer: str = STRANGER
    listener: str | None = None
    auth: str | None = None
    tls: bool = False
    ehlo: str = CLIENT
    meta: Sequence[str] = ()
    message: str | None = None
    message_name: str = LETTER

    def as_json(self) -> bytes:
        """For `from_json`."""
        return orjson.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: bytes) -> Inquiry:
        """Reads what as_json wrote. Raises Misuse for anything else."""
        try:
            asked = cls(**orjson.loads(text))
        except (orjson.JSONDecodeError, TypeError):
            asked = None
        if asked is None or not asked._is_sound():
            raise Misuse("this is no question of `relay-gateway explain`: it may be of another version")
        return asked

    def _is_sound(self) -> bool:
        if not isinstance(self.recipients, list) or not isinstance(self.meta, list) or not self.recipients:
            return False
        texts = [self.sender, self.peer, self.ehlo, self.message_name, *self.recipients, *self.meta]
        texts += [text for text in (self.listener, self.auth, self.message) if text is not None]
        return isinstance(self.tls, bool) and all(isinstance(text, str) for text in texts)


def question_of(asked: Inquiry, listeners: Sequence[Listener]) -> Question:
    """The question to a policy with these listeners. Raises Misuse."""
    if not listeners:
        raise Misuse("the policy has no SMTP listener")
    number, wanted = _listener(asked.listener, listeners)
    message = MESSAGES[LETTER] if asked.message is None else as_sent(asked.message.encode("latin-1"))
    return Question(
        sender=_path(asked.sender),
        recipients=tuple(map(_path, asked.recipients)),
        peer=_peer(asked.peer),
        listener=number,
        local=local_end(listeners[number], wanted),
        auth=asked.auth,
        tls=asked.tls,
        ehlo=asked.ehlo,
        meta=dict(map(_metadata, asked.meta)),
        message=message,
        message_name=asked.message_name,
    )


def _path(text: str) -> str:
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _metadata(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Misuse(f"--meta {text}: expected KEY=VALUE")
    return key, value


def _peer(text: str) -> tuple[str, int]:
    host, port = text, CLIENT_PORT
    if text.startswith("[") or text.count(":") == 1:
        host, _, number = text.rpartition(":")
        if not number.isdigit() or not 0 < int(number) < 65_536:
            raise Misuse(f"--peer {text}: expected IP or IP:PORT")
        port = int(number)
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), port
    except ValueError:
        raise Misuse(f"--peer {text}: '{host}' is no IP address") from None


def _listener(wanted: str | None, listeners: Sequence[Listener]) -> tuple[int, str]:
    """Which listener is meant, and our end's address where it listens on any."""
    if wanted is None:
        return 0, ""
    found = [number for number, listener in enumerate(listeners) if wanted == listener.listen]
    if found:
        return found[0], ""
    host, _, port = wanted.rpartition(":")
    for number, listener in enumerate(listeners):
        if listener.listen in (f"0.0.0.0:{port}", f"[::]:{port}"):
            return number, host.strip("[]")
    there = ", ".join(listener.listen for listener in listeners)
    raise Misuse(f"no listener {wanted}; the policy has: {there}")
