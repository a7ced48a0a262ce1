"""What `kumo.dns.configure_resolver` and `define_resolver` take: declarations only; lookups.py makes it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from gateway.policy.options import Option, Schema, accepted, boolean, duration, integer, list_of, mismatch, string

STRATEGIES = ("Ipv4AndIpv6", "Ipv6AndIpv4", "Ipv4thenIpv6", "Ipv6thenIpv4", "Ipv4Only", "Ipv6Only")


def _one_of(*names: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in names:
            raise mismatch("one of " + ", ".join(f"'{name}'" for name in names), value)
        return str(value)

    return read


def _endpoint(value: object) -> tuple[str, int]:
    """'IP:PORT' or '[IPv6]:PORT'."""
    host, _, port = string(value).rpartition(":")
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        raise mismatch("an address and a port such as '10.0.0.1:53'", value) from None


def _name_server(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        return {"socket_addr": _endpoint(value), "protocol": "udp_then_tcp"}
    return NAME_SERVER.read(value)


def _hosts(value: object) -> str:
    """`use_hosts_file`: a word, or a boolean as it was in earlier versions."""
    if isinstance(value, bool):
        return "Auto" if value else "Never"
    return _one_of("Always", "Auto", "Never")(value)


def _zone(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(ZONE(value)["zone"])


NAME_SERVER = Schema(
    {
        "socket_addr": Option(_endpoint, required=True),
        "protocol": Option(_one_of("udp", "tcp", "udp_then_tcp"), default="udp_then_tcp"),
        "bind_addr": Option(_endpoint),
        "trust_negative_responses": accepted(boolean),
    }
)
RESOLVER_OPTIONS = Schema(
    {
        "timeout": Option(duration, default=5.0),
        "attempts": Option(integer(0, 100), default=2),
        "edns0": Option(boolean, default=True),
        "recursion_desired": Option(boolean, default=True),
        "server_ordering_strategy": Option(
            _one_of("QueryStatistics", "RoundRobin", "UserProvidedOrder"), default="UserProvidedOrder"
        ),
        "use_hosts_file": Option(_hosts, default="Auto"),
        "cache_size": Option(integer(1), default=8192),
        "positive_min_ttl": Option(duration, default=0.0),
        "positive_max_ttl": Option(duration),
        "negative_min_ttl": Option(duration, default=0.0),
        "negative_max_ttl": Option(duration),
        "ndots": accepted(integer()),
        "num_concurrent_reqs": accepted(integer()),
        "case_randomization": accepted(boolean),
        "ip_strategy": accepted(_one_of("Ipv4Only", "Ipv6Only", *STRATEGIES[:4])),
        "preserve_intermediates": accepted(boolean),
        "try_tcp_on_error": accepted(boolean),
        "validate": accepted(boolean),
        "trust_anchor_file": accepted(lambda value: value),
    }
)
RESOLVER = Schema(
    {
        "name_servers": Option(list_of(_name_server, "name servers"), default=()),
        "options": Option(RESOLVER_OPTIONS, default=RESOLVER_OPTIONS({})),
        "domain": accepted(string),
        "search": accepted(list_of(string, "domains")),
    }
)


ZONE = Schema({"zone": Option(string, required=True), "secure": accepted(boolean)})
TEST = Schema(
    {
        "zones": Option(list_of(_zone, "zones"), default=()),
        "servfail": Option(list_of(string, "names"), default=()),
    }
)


def network_options(config: Any) -> Any:
    """The part of a configuration that is about name servers, None where there is none."""
    if config == "HickorySystemConfig":
        return {}
    if not isinstance(config, dict):
        return None
    for kind in ("Hickory", "Unbound"):
        if kind in config:
            return config[kind]
    if "Aggregate" in config:
        found = map(network_options, parts(config["Aggregate"]))
        return next((one for one in found if one is not None), None)
    return None if "Test" in config else config


def parts(value: Any) -> Iterable[Any]:
    """The configurations of an Aggregate; those that stand in it by their kind come first."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return []
    named = [{key: item} for key, item in value.items() if not key.isdigit()]
    return [*named, *(item for key, item in value.items() if key.isdigit())]
