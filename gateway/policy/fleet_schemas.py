"""Who is in a fleet: entries of `mx_list`, and the options of `gateway.fleet`, which KumoMTA has not.

Declarations only, like schemas.py, which explains them.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from gateway.config import ClientAddress, Host, SmtpFleet
from gateway.policy.options import (
    UNKNOWN,
    BadOptions,
    Option,
    Role,
    Schema,
    Trouble,
    integer,
    list_of,
    mismatch,
    one_of,
    refusal,
    string,
)
from gateway.policy.path_schemas import EGRESS_PATH, PAIRS

# Of a path, what does not belong to a member: how long answers of handlers hold, and how long mail waits for any.
_NOT_MEMBERS = ("refresh_interval", "refresh_strategy", "wait_timeout")

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


MEMBER_PATH = Schema(
    {name: option for name, option in EGRESS_PATH.options.items() if name not in _NOT_MEMBERS}, dict, PAIRS
)


def _path(value: object) -> tuple[tuple[str, Any], ...]:
    """Options of an egress path as given, which go before those of the queue's."""
    read = MEMBER_PATH.read(value)
    return tuple((name, one) for name, one in read.items() if MEMBER_PATH.options[name].role is Role.SUPPORTED)


def _zone(value: object) -> str:
    zone = string(value)
    if not zone:
        raise refusal("a zone has a name")
    return zone


MEMBER = Schema(
    {
        "host": Option(string),
        "name": Option(string),
        "addr": Option(string),
        "weight": Option(integer(1, 1000)),
        "group": Option(integer(1, 1000)),
        "zone": Option(_zone),
        "path": Option(_path),
    }
)


def _member(value: object) -> Host:
    """A host as in `mx_list`, or a table with it and more."""
    if not isinstance(value, dict):
        return fleet_member(value)
    options = MEMBER.read(value)
    place = {name: options.pop(name) for name in ("host", "name", "addr") if name in options}
    if any(one is UNKNOWN for one in place.values()):
        host = Host("", "")
    elif set(place) == {"host"}:
        host = fleet_member(place["host"])
    elif set(place) == {"name", "addr"}:
        host = fleet_member(place)
    else:
        raise refusal("name a member: host = 'mta1:2525', or name = 'mta1' and addr = '10.0.0.1:2525'")
    return replace(host, **options)


def _members(value: object) -> tuple[Host, ...]:
    hosts: tuple[Any, ...] = list_of(_member, "members")(value)
    if not hosts:
        raise refusal("there is no member")
    known = [host for host in hosts if host is not UNKNOWN and host.address]
    times = Counter((host.address.lower(), host.port) for host in known)
    twice = dict.fromkeys(host.name for host in known if times[host.address.lower(), host.port] > 1)
    if twice:
        raise BadOptions([Trouble(text := f"{name} is there twice", text) for name in twice])
    return hosts


FLEET = Schema(
    {
        "members": Option(_members, required=True),
        "zone": Option(_zone),
        "client_address": Option(one_of(ClientAddress)),
        "path": Option(_path),
    },
    lambda options: _fleet(**options),
)


def _fleet(members: Any, zone: str = "", path: Any = (), client_address: Any = None) -> SmtpFleet:
    if UNKNOWN in (members, path):  # a policy's text that is only looked at
        return SmtpFleet(())
    if client_address is not None:
        path = (*path, ("client_address", client_address))
    hosts = [host for host in members if host is not UNKNOWN and host.path is not UNKNOWN]
    return SmtpFleet(
        tuple(replace(host, path=tuple({**dict(path), **dict(host.path)}.items())) for host in hosts), zone
    )
