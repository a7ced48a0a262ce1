"""Who may relay to anywhere, or have anything logged, without being anybody the policy knows: warnings for `check`.

Nothing is wrong with such a policy, so nothing here is an error. What handlers grant is asked of a Rehearsal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeAlias

from gateway._fastpath import CidrError, CidrSet
from gateway.policy import domain_files, events
from gateway.policy.collisions import is_reached_from_elsewhere
from gateway.policy.domain_files import Parameters, Text, Unreadable
from gateway.policy.engine import Policy
from gateway.policy.lint import Lint
from gateway.policy.problems import Problem, Severity
from gateway.policy.rehearsal import NOBODYS_DOMAIN, Rehearsal

Network: TypeAlias = "IPv4Network | IPv6Network"

ANY_IPV4, ANY_IPV6 = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
_WIDE = {4: 8, 6: 16}  # prefixes as short as this are more than one organisation's; private ones are not looked at
_EVERYBODY = {4: 0, 6: 3}  # 2000::/3 is all of IPv6 that is given out (RFC 4291 §2.4)
_NETWORK = re.compile(r"""["'](any|[0-9a-fA-F.:]+/1?[0-9])["']""")
_CLAIMS = (
    ("require_proxy_protocol", "proxy_protocol_from", "in a PROXY header"),
    ("allow_xclient", "xclient_from", "with XCLIENT"),
)


def open_relays(policy: Policy, rehearsal: Rehearsal, text: Lint) -> Iterator[Problem]:
    """Warnings, in no order. text: what the policy's text shows."""
    listeners = policy.config.listeners
    yield from _of_listeners(policy)
    yield from _computed(policy, rehearsal)
    yield from _behind_a_proxy(policy)
    if any(is_reached_from_elsewhere(listener.listen) for listener in listeners):
        by_name = [*_by_sender(text), *_by_sender_in_files(policy)]
        yield from by_name
        yield from _of_strangers(policy, rehearsal, told=bool(by_name))
    else:
        yield from _of_strangers(policy, rehearsal, told=True)


def _of_strangers(policy: Policy, rehearsal: Rehearsal, told: bool) -> Iterator[Problem]:
    """What anybody may do at any domain. told: whether it is known already that somebody's relay_from is wide."""
    if events.LISTENER_DOMAIN not in policy.handles:
        return
    granted = rehearsal.granted(NOBODYS_DOMAIN)
    if granted is None:
        return
    place = policy.registered_at(events.LISTENER_DOMAIN)
    wide = [] if told else _wide(granted.relay_from)
    if granted.relay_to:
        message = "anybody may relay to any domain: get_listener_domain grants relay_to for domains it does not know"
        yield _warning(place, message, "grant it for domains of yours, or to clients that authenticated")
    elif wide:
        message = f"{_who(wide, 'relay_from')}, which get_listener_domain grants for domains it does not know"
        yield _warning(place, message, _CLAIMED)
    if granted.takes_reports:
        message = "anybody may have reports logged, whatever domain they are addressed to"
        yield _warning(place, message, "set log_oob and log_arf for the domains that reports come back to")


_CLAIMED = "anybody can write as that domain: set it to the networks of those who may"


def _by_sender(text: Lint) -> Iterator[Problem]:
    """Where relay_from is written out."""
    for call, options, lines in text.tables("kumo.make_listener_domain"):
        entries = options.get("relay_from")
        wide = _wide(entries.values()) if isinstance(entries, dict) else []
        if wide:
            yield _warning((call.where.file, lines[("relay_from",)]), _who(wide, "relay_from"), _CLAIMED)


def _by_sender_in_files(policy: Policy) -> Iterator[Problem]:
    """The same in files of `policy-extras.listener_domains`."""
    names = dict.fromkeys(name for table in policy.source.tables.values() for name in table.files)
    for name in names:
        with suppress(OSError, UnicodeDecodeError, Unreadable):
            with open(name, encoding="utf-8") as file:
                text = Text(name, file.read())
            if _wide({found[1] for found in _NETWORK.finditer(text.text)}):  # else a million domains are not parsed
                yield from _in_file(text)


def _in_file(text: Text) -> Iterator[Problem]:
    known: set[int] = set()  # parameters that many domains share are the same object
    for group in domain_files.read(text):
        for domain, values in group.domains.items():
            entries = values.get("relay_from") if isinstance(values, dict) else None
            if entries and id(values) not in known and (wide := _wide(entries)):
                known.add(id(values))
                line = text.line_of(Parameters(group.listener, domain, values), ("relay_from",))
                yield _warning((text.name, line), f"'{domain}': {_who(wide, 'relay_from')}", _CLAIMED)


def _of_listeners(policy: Policy) -> Iterator[Problem]:
    """Where relay_hosts of a listener, or of a block in it, has everybody or next to that."""
    for number, listener in enumerate(policy.config.listeners):
        if is_reached_from_elsewhere(listener.listen):
            parameters = {**listener.overrides, "peer": listener.peer, "via": listener.via}
            wide = list(_relay_hosts(parameters, None))
            if wide:
                place = policy.declared_at("start_esmtp_listener", number)
                yield _warning(place, _who(wide, "relay_hosts"), "set it to the networks of those who may")


def _computed(policy: Policy, rehearsal: Rehearsal) -> Iterator[Problem]:
    """The same where a handler gives strangers such a list."""
    listeners = policy.config.listeners
    for number, parameters in rehearsal.computed.items():
        wide = _wide(parameters.get("relay_hosts", ()))
        if wide and number < len(listeners) and is_reached_from_elsewhere(listeners[number].listen):
            message = f"{_who(wide, 'relay_hosts')}, which {events.DYNAMIC_PARAMETERS} gives a stranger"
            place = policy.registered_at(events.DYNAMIC_PARAMETERS)
            yield _warning(place, message, "set it to the networks of those who may")


def _behind_a_proxy(policy: Policy) -> Iterator[Problem]:
    """Where anybody may be whom it likes; and where others than this machine may connect, and the machine itself may
    relay because nothing is said. Of a socket of systemd's nobody knows. A proxy that names its clients does no harm.
    """
    for number, listener in enumerate(policy.config.listeners):
        place = policy.declared_at("start_esmtp_listener", number)
        for option, limit, where in _CLAIMS:
            if listener.overrides.get(option) and limit not in listener.overrides:
                message = f"whoever connects may claim any address {where}, also one that may relay"
                yield _warning(place, message, f"set {limit} to the proxies")
        said = "relay_hosts" in listener.overrides or events.DYNAMIC_PARAMETERS in policy.handles
        proxies = listener.overrides.get("proxy_protocol_from")
        named = listener.overrides.get("require_proxy_protocol") or (proxies and proxies.contains_text("127.0.0.1"))
        elsewhere = is_reached_from_elsewhere(listener.listen) or listener.listen.startswith("fd:")
        if not said and not named and elsewhere:
            message = "relay_hosts is not set, so 127.0.0.1 and ::1 may relay to any domain: behind a proxy on this "
            yield _warning(place, f"{message}machine, everybody", "set relay_hosts to those who may")


def _warning(place: tuple[str, int], message: str, hint: str) -> Problem:
    return Problem(*place, message, hint, Severity.WARNING)


def _who(wide: Sequence[Network], where: str) -> str:
    widest = min(wide, key=lambda one: one.prefixlen - _EVERYBODY[one.version])
    if widest.prefixlen > _EVERYBODY[widest.version]:
        return f"the whole of {widest} may relay to any domain: it is in {where}"
    shown = "any" if {ANY_IPV4, ANY_IPV6} <= {*wide} else widest
    return f"anybody may relay to any domain: {where} has {shown}"


# --- networks ---------------------------------------------------------------------------------------------------------


def _relay_hosts(parameters: Mapping[str, Any], within: list[Network] | None) -> Iterator[Network]:
    """The wide networks of a listener's lists, each as far as its block is for it. within: those of the block; None for
    all."""
    for network in _wide(parameters.get("relay_hosts", ())):
        yield from [network] if within is None else filter(_is_wide, _common(network, within))
    for cidr, block in (parameters.get("peer") or {}).items():
        peers = _networks((cidr,))
        inside = peers if within is None else [one for peer in peers for one in _common(peer, within)]
        yield from _relay_hosts(block, inside)
    for block in (parameters.get("via") or {}).values():
        yield from _relay_hosts(block, within)


def _common(network: Network, others: Iterable[Network]) -> Iterator[Network]:
    for other in others:
        if network.version == other.version and network.overlaps(other):  # then one is inside of the other
            yield max(network, other, key=lambda one: one.prefixlen)


def _wide(entries: Iterable[object]) -> list[Network]:
    """The networks of a list that are wider than an organisation's."""
    return [*filter(_is_wide, _networks(entries))]


def _is_wide(network: Network) -> bool:
    return network.prefixlen <= _WIDE[network.version] and not network.is_private


def _networks(entries: Iterable[object]) -> list[Network]:
    """As few networks as cover a list."""
    texts = [entry for entry in entries if isinstance(entry, str)]
    try:
        found = list(CidrSet(texts))
    except CidrError:  # which is told elsewhere
        return []
    return [ANY_IPV4, ANY_IPV6] if found == ["any"] else [ipaddress.ip_network(one) for one in found]
