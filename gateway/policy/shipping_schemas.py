"""The options of `gateway.ship`, and of a file for `relay-gateway ship`: they are the same.

Declarations only; how options are read is options.py's business. docs/shipping.md documents each of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from gateway.config import LocalLogs
from gateway.logs.disk import directories
from gateway.policy.options import (
    UNKNOWN,
    BadOptions,
    Option,
    Reader,
    Schema,
    boolean,
    collected,
    did_you_mean,
    duration,
    integer,
    list_of,
    map_of,
    mismatch,
    one_of,
    refusal,
    string,
)
from gateway.policy.schemas import RecordType, template
from gateway.shipments import (
    AmqpSettings,
    FilesSettings,
    KafkaSettings,
    NatsSettings,
    RecordForm,
    Secret,
    Shipment,
    SinkSettings,
    StdoutSettings,
    WebhookSettings,
)
from gateway.shipping import sinks
from gateway.shipping.forms import TemplateError, condition

_NAME = re.compile(r"[\w.-]{1,60}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORMATS = ("envelopes", "lines")


def secret(value: object) -> Secret:
    """The path of a file that has it, or `{ key_data = '…' }`."""
    if isinstance(value, str) and value:
        return Secret(path=value)
    if isinstance(value, dict) and set(value) == {"key_data"}:
        return Secret(text=string(value["key_data"]))
    raise refusal("expected a path or { key_data = '…' }")


def url_of(*schemes: str) -> Reader:
    """An URL with one of these schemes and a host. What is wrong with it does not repeat it: it may hold a password."""

    def read(value: object) -> str:
        text = string(value)
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or not text.isprintable() or " " in text:
            raise refusal(f"expected an URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return read


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value.startswith("."):
        raise mismatch("a name of at most 60 letters, digits and . _ - that begins with no dot", value)
    return value


def _headers(value: object) -> dict[str, str]:
    found: dict[str, Any] = map_of(string, "header fields")(value)
    for name, text in found.items():
        if not _HEADER.fullmatch(name) or (isinstance(text, str) and not text.isprintable()):
            raise refusal(f"'{name}' is no header field of HTTP, or its value has control characters")
    return found


def _format(value: object) -> str:
    if value not in _FORMATS:
        raise mismatch("one of 'envelopes', 'lines'", value)
    return str(value)


def _scalar(value: object) -> str | int | float | bool:
    if not isinstance(value, str | int | float | bool):
        raise mismatch("a string, a number or a boolean", value)
    return value


def _where(value: object) -> str:
    text = string(value)
    try:
        condition(text)
    except TemplateError as error:
        raise refusal(f"not an expression: {error}") from None
    return text


def _directory(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise mismatch("a directory", value)
    return value


def _file_part(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{0,60}", value, re.ASCII) or value.startswith("-"):
        raise mismatch("a part of a file name", value)
    return value


def _seconds(value: object) -> float:
    seconds = duration(value)
    if not seconds > 0:
        raise mismatch("more than no time", value)
    return seconds


_SERVERS = list_of(string, "servers")

SINKS: Mapping[str, Schema] = {
    "webhook": Schema(
        {
            "url": Option(url_of("http", "https"), required=True),
            "signing_key": Option(secret),
            "authorization": Option(secret),
            "headers": Option(_headers),
            "format": Option(_format),
            "compress": Option(boolean),
            "timeout": Option(_seconds),
            "ca_file": Option(string),
        },
        lambda options: WebhookSettings(**options),
    ),
    "files": Schema(
        {
            "directory": Option(_directory, required=True),
            "prefix": Option(_file_part),
            "suffix": Option(_file_part),
            "compress": Option(boolean),
            "max_file_size": Option(integer(1)),
            "max_file_age": Option(_seconds),
        },
        lambda options: FilesSettings(**options),
    ),
    "stdout": Schema({}, lambda options: StdoutSettings()),
    "kafka": Schema(
        {
            "bootstrap_servers": Option(_SERVERS, required=True),
            "topic": Option(template, required=True),
            "key": Option(template),
            "config": Option(map_of(_scalar, "settings of librdkafka")),
            "password": Option(secret),
            "timeout": Option(_seconds),
        },
        lambda options: KafkaSettings(**options),
    ),
    "nats": Schema(
        {
            "servers": Option(list_of(url_of("nats", "tls", "ws", "wss"), "servers"), required=True),
            "subject": Option(template, required=True),
            "credentials": Option(string),
            "user": Option(string),
            "password": Option(secret),
            "token": Option(secret),
            "ca_file": Option(string),
            "timeout": Option(_seconds),
        },
        lambda options: NatsSettings(**options),
    ),
    "amqp": Schema(
        {
            "url": Option(url_of("amqp", "amqps"), required=True),
            "exchange": Option(string),
            "routing_key": Option(template, required=True),
            "password": Option(secret),
            "ca_file": Option(string),
            "timeout": Option(_seconds),
        },
        lambda options: AmqpSettings(**options),
    ),
}


def sink(value: object) -> SinkSettings:
    """`{ KIND = { … } }`."""
    if not isinstance(value, dict) or len(value) != 1:
        raise mismatch("a table with one kind of sink: " + ", ".join(SINKS), value)
    [(kind, options)] = value.items()
    if kind not in SINKS:
        raise refusal(f"no kind of sink is called '{kind}'", did_you_mean(str(kind), SINKS) or ", ".join(SINKS))
    if options is UNKNOWN:
        return StdoutSettings()  # nobody knows; what runs will
    try:
        found: SinkSettings = SINKS[kind](options)
    except BadOptions as bad:
        raise BadOptions([trouble.inside(kind) for trouble in bad.troubles]) from None
    if package := sinks.missing(found):
        raise refusal(f"the sink '{kind}' needs {package}, which is not installed")
    return found


_RECORD_FORM = Schema({"enable": Option(boolean), "template": Option(template)}, lambda options: RecordForm(**options))


def _per_record(value: object) -> dict[str, RecordForm]:
    if not isinstance(value, dict):
        raise mismatch("a table of record types and settings", value)
    names: list[tuple[object, Reader, object]] = [(name, one_of(RecordType), name) for name in value]
    forms = collected([*((name, _RECORD_FORM, item) for name, item in value.items()), *names])
    return dict(zip(value, forms, strict=False))


def _shipment(options: dict[str, Any]) -> Shipment:
    return Shipment(**options)


def shipments_of(declared: Sequence[Shipment], logs: Sequence[LocalLogs]) -> tuple[Shipment, ...]:
    """A policy's shipments with their directories: all that its loggers write to, where they name none."""
    written = tuple(dict.fromkeys(name for logger in logs for name in directories(logger)))
    return tuple(each if each.log_dirs else replace(each, log_dirs=written) for each in declared)


SHIPMENT = Schema(
    {
        "name": Option(_name, required=True),
        "sink": Option(sink, required=True),
        "log_dirs": Option(list_of(_directory, "directories")),
        "state_dir": Option(_directory),
        "where": Option(_where),
        "per_record": Option(_per_record),
        "max_batch_records": Option(integer(1, 100_000)),
        "max_batch_size": Option(integer(1, 100_000_000)),
        "max_batch_delay": Option(duration),
        "max_retry_interval": Option(_seconds),
        "remove_shipped": Option(boolean),
        "max_held": Option(integer(1)),
    },
    _shipment,
)
