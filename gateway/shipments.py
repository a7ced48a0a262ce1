"""What is declared about shipping log records, as plain values: which records go where, and how.

How they are written in a policy or a file of their own is gateway/policy/shipping_schemas.py's business; what is done
with them gateway/shipping/'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's text, or the path of the file that has it. Never shown."""

    path: str | None = None
    text: str | None = field(default=None, repr=False)

    def read(self) -> str:
        """The text, without the line end that editors leave. Raises OSError and UnicodeDecodeError."""
        if self.path is None:
            return self.text or ""
        with open(self.path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`sink = { webhook = … }`. headers: further ones; their values may be secrets."""

    url: str = field(repr=False)  # may hold a password
    signing_key: Secret | None = None
    authorization: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    format: str = "envelopes"
    compress: bool = False
    timeout: float = 30.0
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class FilesSettings:
    """`sink = { files = … }`. max_file_size: octets before compression."""

    directory: str
    prefix: str = "records"
    suffix: str = ".jsonl"
    compress: bool = True
    max_file_size: int = 100_000_000
    max_file_age: float = 3600.0


@dataclass(frozen=True, slots=True)
class StdoutSettings:
    """`sink = { stdout = {} }`."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """`sink = { kafka = … }`. topic, key: templates. config: librdkafka's own settings, which may hold passwords."""

    bootstrap_servers: tuple[str, ...]
    topic: str
    key: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    password: Secret | None = None
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """`sink = { nats = … }`. subject: a template."""

    servers: tuple[str, ...] = field(repr=False)
    subject: str
    credentials: str | None = None
    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    ca_file: str | None = None
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class AmqpSettings:
    """`sink = { amqp = … }`. routing_key: a template."""

    url: str = field(repr=False)
    routing_key: str
    exchange: str = ""
    password: Secret | None = None
    ca_file: str | None = None
    timeout: float = 30.0


SinkSettings = WebhookSettings | FilesSettings | StdoutSettings | KafkaSettings | NatsSettings | AmqpSettings


@dataclass(frozen=True, slots=True)
class RecordForm:
    """One entry of a shipment's `per_record`."""

    enable: bool = True
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Shipment:
    """Records of some log directories on their way to one sink.

    log_dirs: () for those of the policy's loggers. where: an expression over a record's fields. max_batch_size: octets.
    max_batch_delay, max_retry_interval: seconds. max_held: octets of segments after which the oldest are given up.
    """

    name: str
    sink: SinkSettings
    log_dirs: tuple[str, ...] = ()
    state_dir: str | None = None
    where: str | None = None
    per_record: Mapping[str, RecordForm] = field(default_factory=dict)
    max_batch_records: int = 500
    max_batch_size: int = 1_000_000
    max_batch_delay: float = 1.0
    max_retry_interval: float = 60.0
    remove_shipped: bool = False
    max_held: int | None = None
