"""Options of what a policy says about the fleet: kumo.make_queue_config and kumo.make_egress_path.

Declarations only, like schemas.py, which explains them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from gateway.config import EgressPath, Host, Maildir, PartialRefusal, QueueConfig, SmtpFleet, UpstreamTls
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
    json_value,
    list_of,
    mismatch,
    one_of,
    refusal,
    refused,
    string,
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
    return integer(0, 0o7777)(value)


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
        "on_partial_refusal": Option(one_of(PartialRefusal), ours=True),
        "retry_interval": Option(duration),
        "max_retry_interval": Option(duration),
        "max_age": Option(duration),
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
    return integer(1)(value)


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
    "ehlo_domain": host_name,
    "enable_tls": one_of(UpstreamTls),
    "enable_pipelining": boolean,
    "prohibited_hosts": cidrs,
    "refresh_interval": duration,
    **dict.fromkeys(_PATH_TIMEOUTS, duration),
}

EGRESS_PATH = Schema(
    {
        **{name: Option(reader) for name, reader in _PATH_OPTIONS.items()},
        "enable_chunking": Option(boolean, ours=True),
        "wait_timeout": Option(duration, ours=True),
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
        "tls_mode": refused("TLS begins with STARTTLS", "StartTls"),
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
