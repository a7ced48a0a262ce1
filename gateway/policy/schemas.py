"""Every option of every `kumo` function that takes a table: its type, its role and what is built from it.

Declarations only; how options are read is options.py, and those about the fleet are in queue_schemas.py and its like.
docs/policy.md documents each of them, and a test compares. Names and defaults are KumoMTA's.
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum
from typing import Any

from gateway.config import (
    BatchHandling,
    Disposition,
    EarlyTalker,
    HttpListener,
    KeySource,
    Limits,
    LineEndings,
    Listener,
    ListenerDomain,
    LocalLogs,
    RecordSettings,
    SpoolOrder,
    SpoolSettings,
    TlsMode,
    TlsVersion,
    TraceHeaders,
)
from gateway.logs.encoding import Template, TemplateError
from gateway.policy.limits import DEFAULT_LIMITS, HandlerLimits
from gateway.policy.options import (
    Option,
    Reader,
    Schema,
    accepted,
    boolean,
    cidr_map,
    cidrs,
    collected,
    did_you_mean,
    duration,
    header_name,
    host_name,
    integer,
    json_value,
    list_of,
    map_of,
    mismatch,
    one_line,
    one_of,
    refusal,
    refused,
    string,
)
from gateway.policy.path_schemas import EGRESS_PATH, key_source
from gateway.policy.queue_schemas import QUEUE_CONFIG
from gateway.rates import Rate
from gateway.smtp.address import AddressError, normalise_domain, parse_address
from gateway.smtp.capabilities import OWN, PROMISES

# --- make_listener_domain ---------------------------------------------------------------------------------


def disposition(value: object) -> Disposition:
    """`log_oob`, `log_arf`. `true` is no synonym of "LogThenRelay": it relays only where relaying is allowed."""
    if isinstance(value, bool):
        return Disposition.LOG if value else Disposition.IGNORE
    for choice in (Disposition.IGNORE, Disposition.LOG_THEN_DROP, Disposition.LOG_THEN_RELAY):
        if value == choice.value:
            return choice
    raise mismatch("a boolean value or one of 'Ignore', 'LogThenDrop' or 'LogThenRelay'", value)


LISTENER_DOMAIN = Schema(
    {
        "relay_to": Option(boolean, default=False),
        "relay_from": Option(cidrs, default=ListenerDomain().relay_from),
        "log_oob": Option(disposition, default=Disposition.IGNORE),
        "log_arf": Option(disposition, default=Disposition.IGNORE),
        "ttl": accepted(duration, 60.0),
    },
    lambda options: ListenerDomain(**options),
)

# --- addresses and keys -----------------------------------------------------------------------------------


_SOCKET_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:]*)):(?P<port>\d{1,5})")


_PASSED_SOCKET = re.compile(
    r"fd:[\w.@-]{1,255}"
)  # what systemd.socket(5) takes for a FileDescriptorName, but for spaces


def socket_address(value: object) -> str:
    """ "IP:PORT" or "[IPv6]:PORT", normalised; a bare 0 stands for 0.0.0.0. Or "fd:NAME", a socket of systemd's."""
    if isinstance(value, str) and _PASSED_SOCKET.fullmatch(value):
        return value
    match = _SOCKET_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match["port"]) <= 65535:
        try:
            if match["v6"] is not None:
                return f"[{ipaddress.IPv6Address(match['v6'])}]:{int(match['port'])}"
            return f"{ipaddress.IPv4Address('0.0.0.0' if match['v4'] == '0' else match['v4'])}:{int(match['port'])}"
        except ValueError:
            pass
    raise mismatch("an address and port such as '127.0.0.1:2525' or '[::1]:2525'", value)


# --- start_esmtp_listener ---------------------------------------------------------------------------------

_TRACE_HEADERS = Schema(
    {
        "received_header": Option(boolean),
        "supplemental_header": Option(boolean),
        "header_name": Option(header_name),
        "include_meta_names": Option(list_of(string, "names")),
    },
    lambda options: TraceHeaders(**options),
)


def _mailbox_or_domain(value: object) -> str:
    text = string(value).removeprefix("@")
    try:
        known = parse_address(text).email if "@" in text else normalise_domain(text)
    except AddressError:
        raise mismatch("an address or a domain", value) from None
    if not known:
        raise mismatch("an address or a domain", value)
    return known.lower()


_MAILBOXES_AND_DOMAINS = list_of(_mailbox_or_domain, "addresses and domains")


def rate(value: object) -> Rate:
    """So many in so much time, in the words of kumo.make_throttle."""
    try:
        return Rate.read(string(value))
    except ValueError as error:
        raise refusal(str(error)) from None


def feedback_senders(value: object) -> frozenset[str]:
    """Whose complaints may have the older form: addresses, and domains for all of theirs."""
    return frozenset(_MAILBOXES_AND_DOMAINS(value))


_SNI_PAIR = Schema(
    {"tls_certificate": Option(key_source, required=True), "tls_private_key": Option(key_source, required=True)},
    lambda options: (options["tls_certificate"], options["tls_private_key"]),
)
_SNI_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")


def sni(value: object) -> dict[str, tuple[KeySource, KeySource]]:
    """Certificates and keys by the name that a client asks for; `*.` stands for one label."""
    named = map_of(_SNI_PAIR, "names with their tls_certificate and tls_private_key")(value)
    for name in named:
        if not _SNI_NAME.fullmatch(name):
            raise refusal(f"not a host name in ASCII: '{name}'")
    return {name.lower(): pair for name, pair in named.items()}


_EXTENSIONS = (*OWN, *PROMISES, "PIPELINING", "SIZE", "ENHANCEDSTATUSCODES", "LIMITS", "STARTTLS", "AUTH")


def _extension(value: object) -> str:
    keyword = string(value).upper()
    if keyword not in _EXTENSIONS:
        known = f"what EHLO offers is {', '.join(_EXTENSIONS)}"
        raise refusal(f"never offered in EHLO: '{value}'", did_you_mean(keyword, _EXTENSIONS) or known)
    return keyword


_KEYWORDS = list_of(_extension, "keywords such as 'CHUNKING'")


def extensions(value: object) -> frozenset[str]:
    """Keywords of EHLO."""
    return frozenset(_KEYWORDS(value))


def _block(value: object) -> dict[str, Any]:
    """A `peer` or `via` block: parameters of the listener, and further blocks."""
    block: dict[str, Any] = LISTENER_BLOCK(value)
    return block


_RATES = {
    "connections": Option(integer(0)),
    "connection_rate": Option(rate),
    "message_rate": Option(rate),
    "recipient_rate": Option(rate),
    "octet_rate": Option(rate),
}
_LIMITS = Schema(
    {
        "errors": Option(integer(0)),
        "invalid_recipients": Option(integer(0)),
        "idle_commands": Option(integer(0)),
        "trusted": Option(boolean),
        "auth_failures": Option(rate),
        "ipv4_prefix": Option(integer(8, 32)),
        "ipv6_prefix": Option(integer(16, 128)),
        **_RATES,
    },
    lambda options: Limits(**options),
)
_LIMITS_PER_IDENTITY = Schema(_RATES, lambda options: Limits(**{"connections": 0, **options}))

_DYNAMIC = {
    "hostname": Option(host_name),
    "banner": Option(one_line),
    "relay_hosts": Option(cidrs),
    "max_message_size": Option(integer(1)),
    "max_recipients_per_message": Option(integer(1)),
    "max_messages_per_connection": Option(integer(1)),
    "client_timeout": Option(duration),
    "first_command_timeout": Option(duration, ours=True),
    "command_timeout": Option(duration, ours=True),
    "data_timeout": Option(duration, ours=True),
    "minimum_data_rate": Option(rate, ours=True),
    "limits": Option(_LIMITS, ours=True),
    "limits_per_identity": Option(_LIMITS_PER_IDENTITY, ours=True),
    "data_processing_timeout": Option(duration),
    "line_length_hard_limit": Option(integer(512)),  # RFC 5321 §4.5.3.1.4
    "invalid_line_endings": Option(one_of(LineEndings)),
    "trace_headers": Option(_TRACE_HEADERS),
    "batch_handling": Option(one_of(BatchHandling)),
    "tls_certificate": Option(key_source),
    "tls_private_key": Option(key_source),
    "tls_mode": Option(one_of(TlsMode)),
    "tls_minimum_version": Option(one_of(TlsVersion), ours=True),
    "tls_ciphers": Option(one_line, ours=True),
    "tls_required_client_ca": Option(key_source),
    "tls_optional_client_ca": Option(key_source, ours=True),
    "sni": Option(sni, ours=True),
    "feedback_senders": Option(feedback_senders, ours=True),
    "report_excerpt": Option(boolean, ours=True),
    "require_proxy_protocol": Option(boolean),
    "proxy_protocol_from": Option(cidrs, ours=True),
    "allow_xclient": Option(boolean),
    "xclient_from": Option(cidrs, ours=True),
    "early_talker": Option(one_of(EarlyTalker), ours=True),
    "banner_delay": Option(duration, ours=True),
    "disable_vrfy": Option(boolean, ours=True),
    "withhold_extensions": Option(extensions, ours=True),
    "meta": Option(map_of(json_value, "names and values")),
    "peer": Option(cidr_map(_block)),
    "via": Option(cidr_map(_block)),
    "data_buffer_size": accepted(integer(1)),
    "deferred_spool": accepted(boolean),
    "deferred_queue": refused("it would skip smtp_server_message_received", False),
}

LISTENER_BLOCK = Schema(_DYNAMIC)


def dynamic_parameters(value: object) -> dict[str, Any]:
    """What smtp_server_get_dynamic_parameters returns: a block whose certificates have their keys beside them."""
    block = _block(value)
    _check_pairs(block)
    _check_is_in_time(block)
    return block


# What a connection begins with, before the handler is asked.
_TOO_LATE = ("tls_mode", "require_proxy_protocol", "proxy_protocol_from")


def _check_is_in_time(block: dict[str, Any]) -> None:
    for name in _TOO_LATE:
        if name in block:
            raise refusal(f"{name} counts before this handler is asked: set it at the listener, or in its peer or via")
    for name in ("peer", "via"):
        for inner in block.get(name, {}).values():
            _check_is_in_time(inner)


def _check_pairs(block: dict[str, Any]) -> None:
    if ("tls_certificate" in block) != ("tls_private_key" in block):
        raise refusal("tls_certificate and tls_private_key belong together")
    for name in ("peer", "via"):
        for inner in block.get(name, {}).values():
            _check_pairs(inner)


def _listener(options: dict[str, Any]) -> Listener:
    return Listener(
        listen=options.pop("listen"),
        max_connections=options.pop("max_connections"),
        peer=options.pop("peer", {}),
        via=options.pop("via", {}),
        overrides=options,
    )


ESMTP_LISTENER = Schema(
    {
        "listen": Option(socket_address, default="127.0.0.1:2025"),
        "max_connections": Option(integer(1), default=32_768),
        **_DYNAMIC,
    },
    _listener,
)

# --- start_http_listener ----------------------------------------------------------------------------------


def _allowed_host(value: object) -> str:
    """A host's name; `*.example.com` stands for all below it, and `*` for every one."""
    wanted = string(value)
    if wanted != "*":
        host_name(wanted.removeprefix("*."))
    return wanted.lower()


_ALLOWED_HOSTS = list_of(_allowed_host, "host names")

HTTP_LISTENER = Schema(
    {
        "listen": Option(socket_address),
        "trusted_hosts": Option(cidrs),
        "allowed_hosts": Option(lambda value: frozenset(_ALLOWED_HOSTS(value)), default=frozenset(), ours=True),
        "hostname": Option(host_name),
        "request_body_limit": accepted(integer()),
        "use_tls": refused("the page would be served in clear", False),
        "tls_certificate": refused("the page would be served in clear"),
        "tls_private_key": refused("the page would be served in clear"),
    },
    lambda options: HttpListener(**options),
)

# --- configure_local_logs, define_spool -------------------------------------------------------------------


def amount(value: object) -> str | int:
    """A number, or a percentage such as "10%"."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return integer()(value)
    raise mismatch("a number or a percentage such as '10%'", value)


class RecordType(Enum):
    """The keys of `per_record`: KumoMTA's record types, and the one for all others."""

    RECEPTION = "Reception"
    DELIVERY = "Delivery"
    BOUNCE = "Bounce"
    TRANSIENT_FAILURE = "TransientFailure"
    EXPIRATION = "Expiration"
    ADMIN_BOUNCE = "AdminBounce"
    OOB = "OOB"
    FEEDBACK = "Feedback"
    REJECTION = "Rejection"
    ADMIN_REBIND = "AdminRebind"
    DEFERRED_INJECTION_REBIND = "DeferredInjectionRebind"
    DELAYED = "Delayed"
    XFER_OUT = "XferOut"
    XFER_IN = "XferIn"
    ANY = "Any"


def template(value: object) -> str:
    """The text of a template for log records."""
    text = string(value)
    try:
        Template(text)
    except TemplateError as error:
        raise refusal(f"not a template: {error}") from None
    return text


_RECORD_SETTINGS = Schema(
    {
        "enable": Option(boolean),
        "suffix": Option(string),
        "log_dir": Option(string),
        "template": Option(template),
        "segment_header": Option(string),
    },
    lambda options: RecordSettings(**options),
)


def per_record(value: object) -> dict[str, RecordSettings]:
    """`per_record`: record type → settings."""
    if not isinstance(value, dict):
        raise mismatch("a table of record types and settings", value)
    names: list[tuple[object, Reader, object]] = [(name, one_of(RecordType), name) for name in value]
    settings = collected([*((name, _RECORD_SETTINGS, item) for name, item in value.items()), *names])
    return dict(zip(value, settings, strict=False))


LOCAL_LOGS = Schema(
    {
        "log_dir": Option(string, required=True),
        "max_file_size": Option(integer(1)),
        "max_segment_duration": Option(duration),
        "back_pressure": Option(integer(1)),
        "compression_level": Option(integer(0, 22)),
        "meta": Option(list_of(string, "names")),
        "headers": Option(list_of(string, "names")),
        "per_record": Option(per_record),
        "filter_event": Option(string),
        "min_free_space": Option(amount),
        "min_free_inodes": Option(amount),
    },
    lambda options: LocalLogs(**options),
)

SPOOL = Schema(
    {
        "name": Option(string, required=True),
        "path": Option(string, required=True),
        "kind": accepted(string),
        "flush": accepted(boolean),
        "rocks_params": accepted(json_value),
        "min_free_space": Option(amount),
        "min_free_inodes": Option(amount),
        "order": Option(one_of(SpoolOrder), ours=True),
    },
    lambda options: SpoolSettings(**options),
)

# --- set_handler_limits -----------------------------------------------------------------------------------

HANDLER_LIMITS = Schema(
    {
        "processor_time": Option(duration, default=DEFAULT_LIMITS.processor_time),
        "wait": Option(duration, default=DEFAULT_LIMITS.wait),
        "memory": Option(integer(1024 * 1024), default=DEFAULT_LIMITS.memory),
    },
    lambda options: HandlerLimits(**options),
)

SCHEMAS: dict[str, Schema] = {
    "make_listener_domain": LISTENER_DOMAIN,
    "make_queue_config": QUEUE_CONFIG,
    "make_egress_path": EGRESS_PATH,
    "start_esmtp_listener": ESMTP_LISTENER,
    "start_http_listener": HTTP_LISTENER,
    "configure_local_logs": LOCAL_LOGS,
    "define_spool": SPOOL,
    "set_handler_limits": HANDLER_LIMITS,
}
