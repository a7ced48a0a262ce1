"""`kumo.spf`: whether a client's address may send for a domain (RFC 7208).

What is asked of the DNS is bounded as §4.6.4 has it. The macro `%{p}`, which §7.2 advises against, is "unknown".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import quote

from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.kumo import times
from gateway.policy.kumo.cidr_map import peer_address
from gateway.policy.kumo.values import described, string
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.outside.lookups import asked, resolver_called, strings_of
from gateway.policy.outside.outside import Outside

LOOKUPS, VOID_LOOKUPS, HOSTS = 10, 2, 10  # §4.6.4
_DISPOSITIONS = {"+": "pass", "": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_VERSION = re.compile(r"v=spf1(?: .*)?", re.IGNORECASE)
_TERM = re.compile(r"(?P<qualifier>[+\-?~]?)(?P<name>[a-z][a-z0-9._-]*)(?P<rest>.*)", re.IGNORECASE)
_HOSTS_OF = re.compile(r"(?::(?P<domain>.+?))?(?:/(?P<four>\d{1,2}))?(?://(?P<six>\d{1,3}))?")
_MACRO = re.compile(
    r"%(?:\{(?P<letter>[slodiphcrtv])(?P<digits>\d*)(?P<back>r?)(?P<by>[.\-+,/_=]*)\}|(?P<other>.?))", re.I
)
_LABEL = re.compile(r"[^.]{1,63}")
_PLAIN = {"%": "%", "_": " ", "-": "%20"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class SpfVerdict(Exception):
    """How a check ends. context: why, for people."""

    def __init__(self, disposition: str, context: str) -> None:
        super().__init__(context)
        self.disposition = disposition
        self.context = context


class _Term(NamedTuple):
    """One directive or modifier. text: as it stands there."""

    qualifier: str
    name: str
    rest: str
    text: str


class SpfBudget:
    """What one check may still ask."""

    def __init__(self) -> None:
        self.lookups = LOOKUPS
        self.void = VOID_LOOKUPS

    def take(self) -> None:
        """A term that asks the DNS. Raises SpfVerdict."""
        self.lookups -= 1
        if self.lookups < 0:
            raise SpfVerdict("permerror", "DNS lookup limits exceeded")

    def take_void(self) -> None:
        """An answer that there is nothing. Raises SpfVerdict."""
        self.void -= 1
        if self.void < 0:
            raise SpfVerdict("permerror", "too many DNS lookups without an answer")


@dataclass(frozen=True)
class SpfCheck:
    """A question: may `address` send for `domain`. ask: the DNS, by name and kind. sender: with its domain. helo,
    receiver: the names of both ends.
    """

    ask: Callable[[str, str], Any]
    address: Address
    domain: str
    sender: str
    helo: str
    receiver: str
    budget: SpfBudget

    async def verdict(self) -> SpfVerdict:
        """The answer, with the explanation of the domain where it has one."""
        try:
            return await self._judged()
        except SpfVerdict as verdict:
            return verdict

    async def _judged(self) -> SpfVerdict:
        if len(_labels(self.domain)) < 2:
            return SpfVerdict("none", f"invalid domain name: {self.domain}")
        records = [text for text in await self._texts(self.domain) if _VERSION.fullmatch(text)]
        if not records:
            return SpfVerdict("none", f"no SPF records found for {self.domain}")
        if len(records) > 1:
            return SpfVerdict("permerror", f"several SPF records found for {self.domain}")
        directives, modifiers = _parsed(records[0])
        for term in directives:
            if await self._matches(term):
                verdict = SpfVerdict(_DISPOSITIONS[term.qualifier], f"matched '{term.text}' directive")
                return await self._explained(verdict, modifiers) if verdict.disposition == "fail" else verdict
        if "redirect" in modifiers:
            self.budget.take()
            verdict = await replace(self, domain=self._expanded(modifiers["redirect"]))._judged()
            return SpfVerdict("permerror", verdict.context) if verdict.disposition == "none" else verdict
        return SpfVerdict("neutral", "default result")

    async def _matches(self, term: _Term) -> bool:
        name = term.name
        if name == "all":
            return True
        if name in ("ip4", "ip6"):
            return self.address in ipaddress.ip_network(term.rest[1:], strict=False)
        self.budget.take()
        if name == "include":
            return await self._is_included(self._expanded(term.rest[1:]))
        if name == "exists":
            return bool(await self._asked(self._expanded(term.rest[1:]), "A"))
        if name == "ptr":
            return await self._is_named(self._expanded(term.rest[1:]) if term.rest else self.domain)
        parts = _HOSTS_OF.fullmatch(term.rest)
        assert parts is not None  # it was looked at
        host = self._expanded(parts["domain"]) if parts["domain"] else self.domain
        length = parts["four"] if self.address.version == 4 else parts["six"]
        for one in [host] if name == "a" else await self._exchangers(host):
            for found in await self._addresses(one):
                if self.address in ipaddress.ip_network(f"{found}/{length or found.max_prefixlen}", strict=False):
                    return True
        return False

    async def _is_included(self, domain: str) -> bool:
        verdict = await replace(self, domain=domain)._judged()
        if verdict.disposition in ("none", "permerror", "temperror"):
            kind = "temperror" if verdict.disposition == "temperror" else "permerror"
            raise SpfVerdict(kind, f"{verdict.disposition} while evaluating include:{domain}: {verdict.context}")
        return verdict.disposition == "pass"

    async def _is_named(self, domain: str) -> bool:
        try:
            names = await self._asked(self.address.reverse_pointer, "PTR")
        except SpfVerdict as verdict:
            if verdict.disposition == "temperror":  # §5.5: then it does not match
                return False
            raise
        for record in names[:HOSTS]:
            name = record.to_text().rstrip(".").lower()
            if f".{name}".endswith(f".{domain.lower()}"):
                try:
                    if self.address in await self._addresses(name):
                        return True
                except SpfVerdict as verdict:
                    if verdict.disposition != "temperror":
                        raise
        return False

    async def _exchangers(self, domain: str) -> list[str]:
        found = await self._asked(domain, "MX")
        if len(found) > HOSTS:
            raise SpfVerdict("permerror", f"too many MX records for {domain}")
        return [record.exchange.to_text().rstrip(".") for record in sorted(found, key=lambda one: one.preference)]

    async def _addresses(self, host: str) -> list[Address]:
        records = await self._asked(host, "A" if self.address.version == 4 else "AAAA")
        return [ipaddress.ip_address(record.to_text()) for record in records]

    async def _texts(self, domain: str) -> list[str]:
        answer = await self._answer(domain, "TXT")
        return strings_of(answer)

    async def _asked(self, name: str, kind: str) -> list[Any]:
        """Records of a name; none is one of the few answers of that kind that are allowed."""
        if not _labels(name):
            return []
        records = list((await self._answer(name, kind)).records)
        if not records:
            self.budget.take_void()
        return records

    async def _answer(self, name: str, kind: str) -> Any:
        try:
            return await self.ask(name, kind)
        except ValueError as error:
            raise SpfVerdict("temperror", str(error)) from None

    async def _explained(self, verdict: SpfVerdict, modifiers: dict[str, str]) -> SpfVerdict:
        """§6.2: whatever goes wrong, there is no explanation."""
        try:
            texts = await self._texts(self._expanded(modifiers["exp"]))
            [text] = texts
            return SpfVerdict(verdict.disposition, self._expanded(text, explaining=True))
        except (KeyError, ValueError, SpfVerdict):
            return verdict

    # --- macros (§7) --------------------------------------------------------------------------------------------------

    def _expanded(self, text: str, *, explaining: bool = False) -> str:
        """A domain, or an explanation, with its macros filled in. Raises SpfVerdict."""

        def value(macro: re.Match[str]) -> str:
            if macro["letter"] is None:
                if macro["other"] not in _PLAIN:
                    raise SpfVerdict("permerror", f"a macro that there is not in '{text}'")
                return _PLAIN[macro["other"]]
            letter = macro["letter"].lower()
            if letter in "crt" and not explaining:
                raise SpfVerdict("permerror", f"%{{{letter}}} outside of an explanation")
            parts = re.split(f"[{re.escape(macro['by'] or '.')}]", self._macro(letter))
            if macro["back"]:
                parts.reverse()
            if macro["digits"]:
                if int(macro["digits"]) == 0:
                    raise SpfVerdict("permerror", f"a macro of no labels in '{text}'")
                parts = parts[-int(macro["digits"]) :]
            found = ".".join(parts)
            return quote(found, safe="") if macro["letter"].isupper() else found

        expanded = _MACRO.sub(value, text)
        if explaining:
            return expanded
        while len(expanded) > 253 and "." in expanded:  # §7.3
            expanded = expanded.partition(".")[2]
        return expanded

    def _macro(self, letter: str) -> str:
        local, _, domain = self.sender.rpartition("@")
        four = self.address.version == 4
        values = {
            "s": self.sender, "l": local or "postmaster", "o": domain, "d": self.domain, "p": "unknown", "h": self.helo,
            "i": str(self.address) if four else ".".join(self.address.exploded.replace(":", "")),
            "v": "in-addr" if four else "ip6", "c": str(self.address), "r": self.receiver,
            "t": str(times.now().nanoseconds // 10**9),
        }  # fmt: skip
        return values[letter]


def _labels(name: str) -> list[str]:
    """The labels of a name; none where it is no name."""
    labels = name.rstrip(".").split(".")
    fits = len(name) <= 254 and all(map(_LABEL.fullmatch, labels))
    return labels if fits and name.isprintable() and " " not in name else []


def _parsed(record: str) -> tuple[list[_Term], dict[str, str]]:
    """The directives and the modifiers of a record. Raises SpfVerdict for one that is not as §12 has it."""
    directives: list[_Term] = []
    modifiers: dict[str, str] = {}
    for text in record.split(" ")[1:]:
        if not text:
            continue
        parts = _TERM.fullmatch(text)
        if parts is None:
            raise SpfVerdict("permerror", f"failed to parse spf record: '{text}'")
        name, rest = parts["name"].lower(), parts["rest"]
        if rest.startswith("=") and not parts["qualifier"]:
            if name in ("redirect", "exp") and (name in modifiers or len(rest) == 1):
                raise SpfVerdict("permerror", f"failed to parse spf record: '{text}'")
            modifiers[name] = rest[1:]
            continue
        term = _Term(parts["qualifier"], name, rest, text)
        if not _is_directive(term):
            raise SpfVerdict("permerror", f"failed to parse spf record: '{text}'")
        directives.append(term)
    return directives, modifiers


def _is_directive(term: _Term) -> bool:
    name, rest = term.name, term.rest
    if name == "all":
        return not rest
    if name in ("include", "exists"):
        return len(rest) > 1 and rest[0] == ":"
    if name == "ptr":
        return not rest or (len(rest) > 1 and rest[0] == ":")
    if name in ("ip4", "ip6"):
        return any(_networks(name, rest))
    parts = _HOSTS_OF.fullmatch(rest) if name in ("a", "mx") else None
    return parts is not None and int(parts["four"] or 0) <= 32 and int(parts["six"] or 0) <= 128


def _networks(name: str, rest: str) -> Iterator[bool]:
    try:
        network = ipaddress.ip_network(rest[1:], strict=False)
    except ValueError:
        return
    yield rest[:1] == ":" and f"ip{network.version}" == name


# --- for policies -----------------------------------------------------------------------------------------------------


async def check_host(
    outside: Outside, domain: Any, conn_meta: Any, sender: Any = None, resolver: Any = None
) -> dict[str, Any]:
    """Whether the client may send for a domain: of HELO, or of `sender`"""
    if not isinstance(conn_meta, ConnMeta):
        raise ValueError(f"check_host: expected conn_meta, got {described(conn_meta)}")
    name = string(domain, "check_host")
    values = dict(conn_meta.values)
    if sender is None:
        return await _checked(outside, name, {**values, "ehlo_domain": name}, None, resolver)
    return await _checked(outside, name, values, string(sender, "check_host"), resolver)


async def check_msg(outside: Outside, message: Any, resolver: Any = None) -> dict[str, Any]:
    """The same for the sender of a message"""
    found: Message | None = message.message if isinstance(message, MessageHandle) else None
    if found is None:
        raise ValueError(f"check_msg: expected a message, got {described(message)}")
    return await _checked(outside, found.sender.domain, dict(found.meta), found.sender.email, resolver)


async def _checked(
    outside: Outside, domain: str, values: dict[str, Any], sender: str | None, resolver: Any
) -> dict[str, Any]:
    address = peer_address(str(values.get("received_from")))
    if address is None:
        raise ValueError("received_from missing from metadata")
    helo = str(values.get("ehlo_domain") or "")
    domain = domain or helo  # of the null sender (§2.4)
    server = resolver_called(outside, resolver, "spf")
    check = SpfCheck(
        ask=lambda name, kind: asked(server, name, kind),
        address=address,
        domain=domain,
        sender=sender if sender and "@" in sender else f"postmaster@{domain}",
        helo=helo,
        receiver=str(values.get("hostname") or "localhost"),
        budget=SpfBudget(),
    )
    verdict = await check.verdict()
    props = {key: value for key, value in (("smtp.mailfrom", sender), ("smtp.helo", helo)) if value}
    result = {"method": "spf", "result": verdict.disposition, "reason": verdict.context, "props": props}
    return {"disposition": verdict.disposition, "result": result}


FUNCTIONS: dict[str, Callable[..., Any]] = {"check_host": check_host, "check_msg": check_msg}
WAITING = frozenset({"spf.check_host", "spf.check_msg"})
