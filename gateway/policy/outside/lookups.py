"""`kumo.dns`: what policies ask of the DNS, and which resolvers answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gateway.policy.kumo.cidr_map import peer_address
from gateway.policy.kumo.values import described, string, text_of
from gateway.policy.options import duration
from gateway.policy.outside.outside import Lasting, Outside, Unavailable, read_options
from gateway.policy.outside.resolver_options import (
    RESOLVER,
    RESOLVER_OPTIONS,
    STRATEGIES,
    TEST,
    network_options,
    parts,
)

if TYPE_CHECKING:
    from gateway.policy.outside.resolvers import NameAnswer, NameSource, RememberingResolver

HOSTS = "/etc/hosts"
MX_TIMEOUT = 5.0  # seconds
DEFAULT = ""  # the name of the resolver that is asked where none is named


# --- resolvers --------------------------------------------------------------------------------------------------------


def configure_resolver(outside: Outside, config: Any) -> None:
    """Which resolver answers where none is named; only while the policy is loaded"""
    _define(outside, DEFAULT, config, "configure_resolver")


def configure_unbound_resolver(outside: Outside, config: Any) -> None:
    """The same: there is one kind of resolver here"""
    _define(outside, DEFAULT, config, "configure_unbound_resolver")


def configure_test_resolver(outside: Outside, zones: Any) -> None:
    """The same, with nothing but these zones: a list of them, or what `Test` takes"""
    config = zones if isinstance(zones, dict) else {"zones": zones}
    _define(outside, DEFAULT, {"Test": config}, "configure_test_resolver")


def define_resolver(outside: Outside, name: Any, config: Any) -> None:
    """One more resolver with a name; only while the policy is loaded"""
    _define(outside, string(name, "define_resolver"), config, "define_resolver")


def _define(outside: Outside, name: str, config: Any, function: str) -> None:
    if not outside.loading():
        raise ValueError(f"{function}: it must be called while the policy is loaded, in init")
    outside.settings[f"dns {name}"] = _resolver(outside, config, function)


def _resolver(outside: Outside, config: Any, function: str) -> RememberingResolver:
    from gateway.policy.outside.resolvers import LONGEST, Lifetimes, RememberingResolver, hosts_file

    inner = network_options(config)
    options = RESOLVER_OPTIONS({})
    if inner is not None:
        options = read_options(RESOLVER, inner)["options"]
    lifetimes = Lifetimes(
        (options["positive_min_ttl"], options.get("positive_max_ttl", LONGEST)),
        (options["negative_min_ttl"], options.get("negative_max_ttl", LONGEST)),
    )
    hosts = {} if inner is None or options["use_hosts_file"] == "Never" else hosts_file(HOSTS)
    return RememberingResolver(
        _source(outside, config, function), outside.clock, options["cache_size"], lifetimes, hosts
    )


def _source(outside: Outside, config: Any, function: str) -> NameSource:
    from gateway.policy.outside.resolvers import NameServer, NameServers, OneAfterTheOther, Zones

    if isinstance(config, dict) and "Test" in config and len(config) == 1:
        test = read_options(TEST, config["Test"])
        return Zones(test["zones"], test["servfail"])
    if isinstance(config, dict) and "Aggregate" in config and len(config) == 1:
        return OneAfterTheOther([_source(outside, part, function) for part in parts(config["Aggregate"])])
    inner = network_options(config)
    if inner is None:
        raise ValueError(f"{function}: expected a table or 'HickorySystemConfig', got {described(config)}")
    read = read_options(RESOLVER, inner)
    options = read["options"]
    servers = [
        NameServer(server["socket_addr"], server.get("bind_addr", (None, 0)), server["protocol"] == "tcp")
        for server in read["name_servers"]
    ]
    return NameServers(
        servers,
        may_ask=outside.background.may_ask,
        timeout=options["timeout"],
        attempts=options["attempts"],
        edns0=options["edns0"],
        recursion_desired=options["recursion_desired"],
        rotate=options["server_ordering_strategy"] == "RoundRobin",
    )


def load_resolv_conf(outside: Outside, path: Any = None) -> dict[str, Any]:
    """What a file like /etc/resolv.conf says, as a table for `configure_resolver`"""
    import dns.resolver

    name = "/etc/resolv.conf" if path is None else string(path, "load_resolv_conf")
    found = dns.resolver.Resolver(configure=False)
    try:
        found.read_resolv_conf(name)
    except (OSError, dns.resolver.NoResolverConfiguration) as error:
        raise ValueError(f"load_resolv_conf: reading file {name}: {error}") from None
    servers = [str(server) for server in found.nameservers]
    config: dict[str, Any] = {
        "name_servers": [f"[{server}]:53" if ":" in server else f"{server}:53" for server in servers],
        "search": [name.to_text(omit_final_dot=True) for name in found.search],
        "options": {"timeout": f"{round(found.timeout)}s", "edns0": found.edns >= 0},
    }
    attempts = _attempts(name)
    if attempts is not None:
        config["options"]["attempts"] = attempts
    if found.ndots is not None:
        config["options"]["ndots"] = found.ndots
    if found.domain is not None and len(found.domain) > 1:
        config["domain"] = found.domain.to_text(omit_final_dot=True)
    return config


def _attempts(name: str) -> int | None:
    """resolv.conf(5): `options attempts:n`, which dnspython does not read."""
    with open(name, encoding="utf-8", errors="replace") as file:
        found = re.findall(r"^options\s(?:.*\s)?attempts:(\d+)", file.read(), re.MULTILINE)
    return int(found[-1]) if found else None


def resolver_called(outside: Outside, resolver: Any, function: str) -> RememberingResolver:
    """The resolver of a name, or the one that answers where none is named. Raises ValueError."""
    name = DEFAULT if resolver is None else string(resolver, function)
    found: RememberingResolver | None = outside.settings.get(f"dns {name}")
    if found is None:
        if name != DEFAULT:
            raise ValueError(f"{function}: resolver {name} is not defined")
        found = outside.settings[f"dns {name}"] = _resolver(outside, "HickorySystemConfig", function)
    return found


async def asked(resolver: RememberingResolver, name: str, kind: str) -> NameAnswer:
    """What the DNS says of a name. Raises ValueError where nobody knows."""
    import dns.rdatatype

    from gateway.policy.outside.resolvers import ResolverFailure, name_of

    try:
        return await resolver.ask(name_of(name), dns.rdatatype.from_text(kind))
    except ResolverFailure as error:
        raise ValueError(f"{name}: {error}") from None


def _existing(answer: NameAnswer, name: str) -> NameAnswer:
    if not answer.exists:
        raise Unavailable(f"{name}: there is no such name", answer.seconds)
    return answer


# --- questions --------------------------------------------------------------------------------------------------------


async def lookup_addr(outside: Outside, name: Any, resolver: Any = None, strategy: Any = None) -> Lasting:
    """The IP addresses of a host"""
    host = string(name, "lookup_addr")
    order = STRATEGIES[0] if strategy is None else string(strategy, "lookup_addr")
    order = order.replace("Then", "then")  # KumoMTA spells them in both ways
    if order not in STRATEGIES:
        raise ValueError(f"lookup_addr: '{order}' is none of {', '.join(STRATEGIES)}")
    found, seconds = await _addresses(resolver_called(outside, resolver, "lookup_addr"), host, order)
    return Lasting((found,), seconds)


async def _addresses(resolver: RememberingResolver, host: str, strategy: str) -> tuple[list[str], float]:
    from gateway.policy.outside.resolvers import LOCAL

    literal = peer_address(host)
    if literal is not None:
        return [str(literal)], LOCAL
    if known := resolver.hosts.get(host.rstrip(".").lower()):
        return known, LOCAL
    kinds: tuple[str, ...] = ("AAAA", "A") if strategy.startswith("Ipv6") else ("A", "AAAA")
    if strategy.endswith("Only"):
        kinds = kinds[:1]
    if "then" in strategy:
        first = _existing(await asked(resolver, host, kinds[0]), host)
        if first.records:
            return _texts(first), first.seconds
    answers = await asyncio.gather(*(asked(resolver, host, kind) for kind in kinds))
    if not any(answer.exists for answer in answers):
        _existing(answers[0], host)
    return [text for answer in answers for text in _texts(answer)], min(answer.seconds for answer in answers)


def _texts(answer: NameAnswer) -> list[str]:
    return [record.to_text() for record in answer.records]


async def lookup_txt(outside: Outside, name: Any, resolver: Any = None) -> Lasting:
    """The TXT records of a name"""
    domain = string(name, "lookup_txt")
    answer = _existing(await asked(resolver_called(outside, resolver, "lookup_txt"), domain, "TXT"), domain)
    return Lasting((strings_of(answer),), answer.seconds)


def strings_of(answer: NameAnswer) -> list[str]:
    """The texts of TXT records."""
    return [text_of(b"".join(record.strings)) for record in answer.records]  # type: ignore[attr-defined]


async def lookup_ptr(outside: Outside, address: Any, resolver: Any = None) -> Lasting:
    """The names of an IP address, each with a dot at its end"""
    answer = await asked(resolver_called(outside, resolver, "lookup_ptr"), ptr_host(outside, address), "PTR")
    return Lasting((_texts(answer),), answer.seconds)


async def lookup_mx(outside: Outside, name: Any, resolver: Any = None) -> Lasting:
    """Where mail for a domain goes"""
    domain = string(name, "lookup_mx")
    chosen = resolver_called(outside, resolver, "lookup_mx")
    if domain.startswith("["):
        return _literal(domain)
    try:
        async with asyncio.timeout(outside.settings.get("mx_timeout", MX_TIMEOUT)):
            answer = _existing(await asked(chosen, domain, "MX"), domain)
            hosts = sorted((record.preference, record.exchange.to_text()) for record in answer.records)  # type: ignore[attr-defined]
            seconds = answer.seconds
            if not hosts:  # the domain itself is its mail host (RFC 5321 §5.1)
                found, lasts = await _addresses(chosen, domain, STRATEGIES[0])
                seconds = min(seconds, lasts)
                if not found:
                    raise Unavailable(f"{domain}: there is neither a mail host nor an address", seconds)
    except TimeoutError:
        raise ValueError(f"{domain}: there was no answer in time") from None
    fqdn = domain.rstrip(".") + "."
    return Lasting((_mail_hosts(fqdn, hosts or [(1, fqdn)], is_mx=bool(hosts)),), seconds)


def _literal(domain: str) -> Lasting:
    from gateway.policy.outside.resolvers import LONGEST

    address = peer_address(domain)
    if address is None:
        raise ValueError(f"lookup_mx: '{domain}' is no address literal")
    found = _mail_hosts(domain, [(1, str(address))], is_mx=False)
    return Lasting(({**found, "is_domain_literal": True, "site_name": str(address)},), LONGEST)


def _mail_hosts(domain: str, hosts: list[tuple[int, str]], is_mx: bool) -> dict[str, Any]:
    by_preference: dict[int, list[str]] = {}
    for preference, host in hosts:
        by_preference.setdefault(preference, []).append(host)
    names = [host for _, host in hosts]
    return {
        "by_pref": by_preference,
        "site_name": site_name(names),
        "domain_name": domain,
        "hosts": names,
        "is_domain_literal": False,
        "is_mx": is_mx,
        "mta_sts": "None",
    }


def site_name(hosts: Iterable[str]) -> str:
    """One name for a set of hosts: label by label from the right, what they have in common and what they have not."""
    split = [host.lower().rstrip(".").split(".")[::-1] for host in hosts]
    labels = []
    for place in range(max(map(len, split), default=0)):
        here = sorted({names[place] for names in split if len(names) > place})
        everywhere = all(len(names) > place for names in split)
        pattern = "|".join(here)
        labels.append(pattern if everywhere and len(here) == 1 else f"({pattern})" + ("" if everywhere else "?"))
    return ".".join(reversed(labels))


async def rbl_lookup(outside: Outside, address: Any, base: Any, resolver: Any = None) -> Lasting:
    """What a list says of an IP address: an address and a text, or nil where it is not listed"""
    domain = string(base, "rbl_lookup")
    name = f"{reverse_ip(outside, address)}.{domain}"
    chosen = resolver_called(outside, resolver, "rbl_lookup")
    listed = await asked(chosen, name, "A")
    if not listed.records:
        return Lasting((None, None), listed.seconds)
    reason, seconds = None, listed.seconds
    try:
        answer = await asked(chosen, name, "TXT")
    except ValueError:
        seconds = 0.0  # listed all the same
    else:
        seconds = min(seconds, answer.seconds)
        reason = next(iter(strings_of(answer)), None)
    return Lasting((listed.records[0].to_text(), reason), seconds)


def reverse_ip(outside: Outside, address: Any) -> str:
    """An IP address backwards, as it stands in names of the DNS"""
    return ptr_host(outside, address).removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def ptr_host(outside: Outside, address: Any) -> str:
    """The name that the DNS has for an IP address"""
    text = string(address, "ptr_host")
    found = peer_address(text)
    if found is None:
        raise ValueError(f"'{text}' is not an IP address")
    return found.reverse_pointer


# --- what tunes KumoMTA's own lookups ---------------------------------------------------------------------------------


def set_mx_timeout(outside: Outside, timeout: Any) -> None:
    """How long `lookup_mx` may take; 5 seconds unless set"""
    outside.settings["mx_timeout"] = duration(timeout)


def set_mx_concurrency_limit(outside: Outside, limit: Any = None) -> None:
    """No effect"""


def set_mx_negative_cache_ttl(outside: Outside, seconds: Any = None) -> None:
    """No effect: the zone says how long"""


def configure_test_mta_sts(outside: Outside, policies: Any = None) -> None:
    """No effect: mail goes to the fleet"""


def set_mta_sts_enabled(outside: Outside, enabled: Any = None) -> None:
    """No effect: mail goes to the fleet"""


LOOKUPS = (lookup_addr, lookup_mx, lookup_ptr, lookup_txt, rbl_lookup)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *LOOKUPS,
        ptr_host,
        reverse_ip,
        configure_resolver,
        configure_test_mta_sts,
        configure_test_resolver,
        configure_unbound_resolver,
        define_resolver,
        load_resolv_conf,
        set_mta_sts_enabled,
        set_mx_concurrency_limit,
        set_mx_negative_cache_ttl,
        set_mx_timeout,
    )
}
WAITING = frozenset(f"dns.{function.__name__}" for function in LOOKUPS)
