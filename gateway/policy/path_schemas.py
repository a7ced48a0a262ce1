"""Options of kumo.make_egress_path: how to talk to members of the fleet; and what other schemas read alike: where a key
is, when a handler is asked again.

Declarations only, like schemas.py, which explains them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from gateway.config import ClientAddress, EgressPath, KeySource, UpstreamTls
from gateway.policy.options import (
    Option,
    Reader,
    Schema,
    accepted,
    boolean,
    cidrs,
    duration,
    host_name,
    integer,
    mismatch,
    one_line,
    one_of,
    refusal,
    refused,
    string,
)

THROTTLE = "mail would flow faster than the policy says"


class RefreshStrategy(Enum):
    """`refresh_strategy`: when a configuration is asked for again."""

    TTL = "Ttl"
    EPOCH = "Epoch"


def refreshing(build: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    """`Epoch` is a refresh interval without end, because a new policy starts without old configurations."""

    def make(options: dict[str, Any]) -> Any:
        if options.pop("refresh_strategy", None) is RefreshStrategy.EPOCH:
            options["refresh_interval"] = float("inf")
        return build(**options)

    return make


def key_source(value: object) -> KeySource:
    """The path of a PEM text or password, or `{ key_data = '…' }`."""
    if isinstance(value, str):
        return KeySource(path=value)
    if isinstance(value, dict) and value and set(value) != {"key_data"}:
        raise refusal("expected a path or { key_data = '…' }; of others { key_data = kumo.secrets.load { … } }")
    if isinstance(value, dict) and value:
        return KeySource(key_data=string(value["key_data"]))
    raise mismatch("a path or { key_data = '…' }", value)


def _limit(value: object) -> int:
    """A count: 32, "1,000" or "local:20"; all limits are local here."""
    if isinstance(value, str):
        digits = value.removeprefix("local:").replace(",", "").replace("_", "")
        if digits.isascii() and digits.isdigit():
            value = int(digits)
    return integer(1)(value)


_CHOICE = "members are chosen by their load"
_PATH_TIMEOUTS = (
    "connect_timeout", "banner_timeout", "ehlo_timeout", "starttls_timeout", "mail_from_timeout", "rcpt_to_timeout",
    "data_timeout", "data_dot_timeout", "idle_timeout", "auth_timeout",
)  # fmt: skip
_PATH_OPTIONS: dict[str, Reader] = {
    "connection_limit": _limit,
    "max_deliveries_per_connection": integer(1),
    "max_recipients_per_batch": integer(1),
    "smtp_port": integer(1, 65535),
    "ehlo_domain": host_name,
    "enable_tls": one_of(UpstreamTls),
    "enable_pipelining": boolean,
    "prohibited_hosts": cidrs,
    "tls_certificate": key_source,
    "tls_private_key": key_source,
    "openssl_cipher_list": one_line,
    "smtp_auth_plain_username": one_line,
    "smtp_auth_plain_password": key_source,
    "allow_smtp_auth_plain_without_tls": boolean,
    "allow_smtp_auth_plain_without_valid_certificate": boolean,
    "use_lmtp": boolean,
    "refresh_interval": duration,
    **dict.fromkeys(_PATH_TIMEOUTS, duration),
}

PAIRS = (("tls_certificate", "tls_private_key"), ("smtp_auth_plain_username", "smtp_auth_plain_password"))

EGRESS_PATH = Schema(
    {
        **{name: Option(reader) for name, reader in _PATH_OPTIONS.items()},
        "enable_chunking": Option(boolean, ours=True),
        "wait_timeout": Option(duration, ours=True),
        "client_address": Option(one_of(ClientAddress), ours=True),
        "tls_ca": Option(key_source, ours=True),
        "tls_name": Option(host_name, ours=True),
        "refresh_strategy": Option(one_of(RefreshStrategy)),
        "provider_name": accepted(string),
        "readyq_pool_name": accepted(string),
        "max_ready": accepted(integer()),
        "consecutive_connection_failures_before_delay": accepted(integer()),
        "enable_rset": accepted(boolean),
        "enable_mta_sts": accepted(boolean),  # policies are looked up for MX records, which are never used here
        "rset_timeout": accepted(duration),
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
        "enable_dane": refused("the fleet's certificates would not be checked against DNS", False),
        "max_connection_rate": refused(THROTTLE),
        "max_message_rate": refused(THROTTLE),
        "additional_connection_limits": refused(THROTTLE),
        "additional_message_rate_throttles": refused(THROTTLE),
        "source_selection_rate": refused(THROTTLE),
        "additional_source_selection_rates": refused(THROTTLE),
        "skip_hosts": refused(_CHOICE),
        "ip_lookup_strategy": refused(_CHOICE, "Ipv4AndIpv6"),
        "reconnect_strategy": refused(_CHOICE, "ConnectNextHost"),
        "remember_broken_tls": refused("TLS is tried on every connection"),
        "tls_mode": refused("TLS begins with STARTTLS", "StartTls"),
        "tls_prefer_openssl": accepted(boolean),
        "openssl_cipher_suites": refused("other ciphers would be used"),
        "openssl_options": refused("other options would be used"),
        "rustls_cipher_suites": refused("other ciphers would be used"),
    },
    refreshing(EgressPath),
    PAIRS,
)
