"""Every option of every `kumo` function that takes a table: its type, its role and what is built from it.

Declarations only; how options are read is options.py. docs/policy.md documents each of them, and a test compares.
Names and defaults are KumoMTA's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from gateway.config import (
    BatchHandling,
    Disposition,
    EgressPath,
    Host,
    HttpListener,
    KeySource,
    LineEndings,
    Listener,
    ListenerDomain,
    LocalLogs,
    Maildir,
    QueueConfig,
    RecordSettings,
    SmtpFleet,
    Spool,
    TraceHeaders,
    UpstreamTls,
)
from gateway.logs.encoding import Template, TemplateError
from gateway.policy.options import (
    Option,
    Reader,
    Schema,
    accepted,
    boolean,
    cidr_map,
    cidrs,
    collected,
    duration,
    header_name,
    integer,
    json_value,
    list_of,
    map_of,
    mismatch,
    one_of,
    refusal,
    refused,
    string,
)

# --- shared readers ---------------------------------------------------------------------------------------


def disposition(value: object) -> Disposition:
    """`log_oob`, `log_arf`. `true` is no synonym of "LogThenRelay": it relays only where relaying is allowed."""
    if isinstance(value, bool):
        return Disposition.LOG if value else Disposition.IGNORE
    for choice in (Disposition.IGNORE, Disposition.LOG_THEN_DROP, Disposition.LOG_THEN_RELAY):
        if value == choice.value:
            return choice
    raise mismatch("a boolean value or one of 'Ignore', 'LogThenDrop' or 'LogThenRelay'", value)


_SOCKET_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:]*)):(?P<port>\d{1,5})")


def socket_address(value: object) -> str:
    """ "IP:PORT" or "[IPv6]:PORT", normalised; a bare 0 stands for 0.0.0.0."""
    match = _SOCKET_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match["port"]) <= 65535:
        try:
            if match["v6"] is not None:
                return f"[{ipaddress.IPv6Address(match['v6'])}]:{int(match['port'])}"
            return f"{ipaddress.IPv4Address('0.0.0.0' if match['v4'] == '0' else match['v4'])}:{int(match['port'])}"
        except ValueError:
            pass
    raise mismatch("an address and port such as '127.0.0.1:2525' or '[::1]:2525'", value)


def key_source(value: object) -> KeySource:
    """A PEM text's path, or `{ key_data = '…' }`."""
    if isinstance(value, str):
        return KeySource(path=value)
    if isinstance(value, dict) and value and set(value) != {"key_data"}:
        raise refusal("only a path or { key_data = '…' } is supported yet as the source of a key")
    if isinstance(value, dict) and value:
        return KeySource(key_data=string(value["key_data"]))
    raise mismatch("a path or { key_data = '…' }", value)


def amount(value: object) -> str | int:
    """A number, or a percentage such as "10%"."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise mismatch("a number or a percentage such as '10%'", value)


# --- make_listener_domain ---------------------------------------------------------------------------------


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


def _block(value: object) -> dict[str, Any]:
    """A `peer` or `via` block: parameters of the listener, and further blocks."""
    block: dict[str, Any] = LISTENER_BLOCK(value)
    return block


_DYNAMIC = {
    "hostname": Option(string),
    "banner": Option(string),
    "relay_hosts": Option(cidrs),
    "max_message_size": Option(integer(1)),
    "max_recipients_per_message": Option(integer(1)),
    "max_messages_per_connection": Option(integer(1)),
    "client_timeout": Option(duration),
    "data_processing_timeout": Option(duration),
    "line_length_hard_limit": Option(integer(512)),  # RFC 5321 §4.5.3.1.4
    "invalid_line_endings": Option(one_of(LineEndings)),
    "trace_headers": Option(_TRACE_HEADERS),
    "batch_handling": Option(one_of(BatchHandling)),
    "tls_certificate": Option(key_source),
    "tls_private_key": Option(key_source),
    "meta": Option(map_of(json_value, "names and values")),
    "peer": Option(cidr_map(_block)),
    "via": Option(cidr_map(_block)),
    "data_buffer_size": accepted(integer(1)),
    "deferred_spool": accepted(boolean),
    "deferred_queue": refused("it would skip smtp_server_message_received", False),
    "require_proxy_protocol": refused("without it every client would count as the proxy", False),
    "allow_xclient": refused("without it every client would count as the proxy", False),
    "tls_required_client_ca": refused("clients without a certificate would be let in"),
}

LISTENER_BLOCK = Schema(_DYNAMIC)


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

HTTP_LISTENER = Schema(
    {
        "listen": Option(socket_address),
        "trusted_hosts": Option(cidrs),
        "hostname": accepted(string),
        "request_body_limit": accepted(integer()),
        "use_tls": refused("the page would be served in clear", False),
        "tls_certificate": refused("the page would be served in clear"),
        "tls_private_key": refused("the page would be served in clear"),
    },
    lambda options: HttpListener(**options),
)

# --- configure_local_logs, define_spool -------------------------------------------------------------------


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
    settings: dict[str, RecordSettings] = map_of(_RECORD_SETTINGS, "record types and settings")(value)
    collected((name, one_of(RecordType), name) for name in settings)
    return settings


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
        "min_free_space": accepted(amount),
        "min_free_inodes": accepted(amount),
    },
    lambda options: Spool(**options),
)

# --- make_queue_config ------------------------------------------------------------------------------------

_HOST = re.compile(r"(?:\[(?:IPv6:)?(?P<literal>[^\]]+)\]|(?P<name>[^\[\]:\s]+))(?::(?P<port>\d{1,5}))?", re.I)


def fleet_member(value: object) -> Host:
    """One entry of `mx_list`: "host[:port]", "[ip][:port]", or `{ name = …, addr = "ip[:port]" }`."""
    if isinstance(value, str):
        return _host(value, value)
    if isinstance(value, dict) and set(value) == {"name", "addr"}:
        address = string(value["addr"])
        if address.startswith("/"):
            raise refusal("UNIX sockets are not supported yet by relay-gateway")
        if address.count(":") > 1 and not address.startswith("["):  # a bare IPv6 address
            address = f"[{address}]"
        return _host(string(value["name"]), address)
    raise mismatch("a host such as 'mta1:2525' or { name = 'mta1', addr = '10.0.0.1:2525' }", value)


def _host(name: str, text: str) -> Host:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or 1) <= 65535:
        raise mismatch("a host such as 'mta1:2525' or '[10.0.0.1]:2525'", text)
    if match["literal"]:
        try:
            ipaddress.ip_address(match["literal"])
        except ValueError:
            raise mismatch("an IP address between the brackets", text) from None
    return Host(name, match["literal"] or match["name"], int(match["port"]) if match["port"] else None)


def _mx_list(value: object) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = list_of(fleet_member, "hosts")(value)
    if not hosts:
        raise refusal("mx_list is empty, so there is no fleet to relay to")
    return hosts


_SMTP = Schema(
    {"mx_list": Option(_mx_list), "treat_mx_list_as_secure": accepted(boolean)},
    lambda options: SmtpFleet(options["mx_list"]) if "mx_list" in options else None,
)


def _plain_path(value: object) -> str:
    path = string(value)
    if "{{" in path or "{%" in path:
        raise refusal("templates in maildir_path are not supported yet by relay-gateway")
    return path


def _mode(value: object) -> int:
    mode: int = integer(0, 0o7777)(value)
    return mode


_PROTOCOL = Schema(
    {
        "smtp": Option(_SMTP),
        "maildir_path": Option(_plain_path),
        "dir_mode": Option(_mode),
        "file_mode": Option(_mode),
        "custom_lua": refused("relaying goes to an mx_list or a maildir"),
        "xfer": refused("relaying goes to an mx_list or a maildir"),
    }
)


def _protocol(value: object) -> SmtpFleet | Maildir | None:
    options = _PROTOCOL(value)
    if "smtp" in options and "maildir_path" in options:
        raise refusal("a queue has one protocol: smtp or maildir_path")
    if "maildir_path" in options:
        return Maildir(options["maildir_path"], options.get("dir_mode"), options.get("file_mode"))
    fleet: SmtpFleet | None = options.get("smtp")
    return fleet


class RefreshStrategy(Enum):
    """`refresh_strategy`: when a configuration is asked for again."""

    TTL = "Ttl"
    EPOCH = "Epoch"


def _refreshing(build: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    """`Epoch` is a refresh interval without end, because a new policy starts without old configurations."""

    def make(options: dict[str, Any]) -> Any:
        if options.pop("refresh_strategy", None) is RefreshStrategy.EPOCH:
            options["refresh_interval"] = float("inf")
        return build(**options)

    return make


_THROTTLE = "mail would flow faster than the policy says"

QUEUE_CONFIG = Schema(
    {
        "protocol": Option(_protocol),
        "egress_pool": Option(string),
        "provider_name": Option(string),
        "refresh_interval": Option(duration),
        "refresh_strategy": Option(one_of(RefreshStrategy)),
        "retry_interval": accepted(duration),
        "max_retry_interval": accepted(duration),
        "max_age": accepted(duration),
        "reap_interval": accepted(duration),
        "strategy": accepted(string),
        "timerwheel_tick_interval": accepted(duration),
        "shrink_policy": accepted(json_value),
        "max_message_rate": refused(_THROTTLE),
    },
    _refreshing(QueueConfig),
)

# --- make_egress_path -------------------------------------------------------------------------------------


def _limit(value: object) -> int:
    """A count: 32, "1,000" or "local:20"; all limits are local here."""
    if isinstance(value, str):
        digits = value.removeprefix("local:").replace(",", "").replace("_", "")
        if digits.isascii() and digits.isdigit():
            value = int(digits)
    limit: int = integer(1)(value)
    return limit


_AUTH = "the fleet would be asked to relay without authentication"
_CHOICE = "members are chosen by their load"
_PATH_TIMEOUTS = (
    "connect_timeout", "banner_timeout", "ehlo_timeout", "starttls_timeout", "mail_from_timeout", "rcpt_to_timeout",
    "data_timeout", "data_dot_timeout", "idle_timeout",
)  # fmt: skip
_PATH_OPTIONS: dict[str, Reader] = {
    "connection_limit": _limit,
    "max_deliveries_per_connection": integer(1),
    "max_recipients_per_batch": integer(1),
    "smtp_port": integer(1, 65535),
    "ehlo_domain": string,
    "enable_tls": one_of(UpstreamTls),
    "enable_pipelining": boolean,
    "prohibited_hosts": cidrs,
    "refresh_interval": duration,
    **dict.fromkeys(_PATH_TIMEOUTS, duration),
}

EGRESS_PATH = Schema(
    {
        **{name: Option(reader) for name, reader in _PATH_OPTIONS.items()},
        "refresh_strategy": Option(one_of(RefreshStrategy)),
        "provider_name": accepted(string),
        "readyq_pool_name": accepted(string),
        "max_ready": accepted(integer()),
        "consecutive_connection_failures_before_delay": accepted(integer()),
        "enable_rset": accepted(boolean),
        "enable_mta_sts": accepted(boolean),  # policies are looked up for MX records, which are never used here
        "rset_timeout": accepted(duration),
        "auth_timeout": accepted(duration),
        "system_shutdown_timeout": accepted(duration),
        "try_next_host_on_transport_error": accepted(boolean),
        "opportunistic_tls_reconnect_on_failed_handshake": accepted(boolean),
        "aggressive_connection_opening": accepted(boolean),
        "ignore_8bit_checks": accepted(boolean),
        "low_memory_reduction_policy": accepted(string),
        "no_memory_reduction_policy": accepted(string),
        "dispatcher_wakeup_strategy": accepted(string),
        "maintainer_wakeup_strategy": accepted(string),
        "dispatcher_progress_watchdog_timeout": accepted(duration),
        "allow_smtp_auth_plain_without_tls": accepted(boolean),
        "allow_smtp_auth_plain_without_valid_certificate": accepted(boolean),
        "enable_dane": refused("the fleet's certificates would not be checked against DNS", False),
        "use_lmtp": refused("the fleet would be spoken to in SMTP", False),
        "max_connection_rate": refused(_THROTTLE),
        "max_message_rate": refused(_THROTTLE),
        "additional_connection_limits": refused(_THROTTLE),
        "additional_message_rate_throttles": refused(_THROTTLE),
        "source_selection_rate": refused(_THROTTLE),
        "additional_source_selection_rates": refused(_THROTTLE),
        "smtp_auth_plain_username": refused(_AUTH),
        "smtp_auth_plain_password": refused(_AUTH),
        "skip_hosts": refused(_CHOICE),
        "ip_lookup_strategy": refused(_CHOICE, "Ipv4AndIpv6"),
        "reconnect_strategy": refused(_CHOICE, "ConnectNextHost"),
        "remember_broken_tls": refused("TLS is tried on every connection"),
        "tls_certificate": refused("no client certificate would be shown"),
        "tls_private_key": refused("no client certificate would be shown"),
        "tls_prefer_openssl": accepted(boolean),
        "openssl_cipher_list": refused("other ciphers would be used"),
        "openssl_cipher_suites": refused("other ciphers would be used"),
        "openssl_options": refused("other options would be used"),
        "rustls_cipher_suites": refused("other ciphers would be used"),
    },
    _refreshing(EgressPath),
)

SCHEMAS: dict[str, Schema] = {
    "make_listener_domain": LISTENER_DOMAIN,
    "make_queue_config": QUEUE_CONFIG,
    "make_egress_path": EGRESS_PATH,
    "start_esmtp_listener": ESMTP_LISTENER,
    "start_http_listener": HTTP_LISTENER,
    "configure_local_logs": LOCAL_LOGS,
    "define_spool": SPOOL,
}
