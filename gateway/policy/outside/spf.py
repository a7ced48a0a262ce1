"""`kumo.spf`: whether a client's address may send for a domain (RFC 7208), by pyspf.

pyspf asks the DNS where it stands, and waits there. Here it is given what is known, and where that is not enough it
says what it lacks and begins anew: nothing waits but the session.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.kumo.cidr_map import peer_address
from gateway.policy.kumo.values import described, string
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.outside.lookups import asked, resolver_called
from gateway.policy.outside.outside import Outside

with warnings.catch_warnings():  # of what Python finds in its text, where it is compiled for the first time
    warnings.simplefilter("ignore")
    import spf

LONGEST_RECORD, LONGEST_TERM = 4096, 512  # octets; pyspf's patterns take their time over what is longer
_DEFAULT, _NOT_EXPLAINED = "default result", "\0"

Name = tuple[str, str]  # and the kind of record that is asked for
Answers = dict[Name, list[Any] | spf.TempError]


class SpfVerdict(NamedTuple):
    """How a check ends. context: why, for people."""

    disposition: str
    context: str


class _Missing(Exception):
    """Something has to be asked first."""


class SpfCheck(spf.query):  # type: ignore[misc]
    """A question: may `address` send for `domain`. answers: what the DNS has said. sender: with its domain. helo,
    receiver: the names of both ends.

    missing: what has to be in `answers` before there is a verdict.
    """

    def __init__(self, answers: Answers, address: str, domain: str, sender: str, helo: str, receiver: str) -> None:
        super().__init__(i=address, s=sender, h=helo, receiver=receiver)
        self.d = domain
        self.missing: list[Name] = []
        self._answers = answers
        self.set_default_explanation(_NOT_EXPLAINED)

    def verdict(self) -> SpfVerdict | None:
        """None where something is missing."""
        domain = self.d
        try:
            result, _, text = self.check()
        except _Missing:
            return None
        except Exception as error:  # pyspf fails in several ways on what is malformed
            return SpfVerdict("permerror", " ".join(str(error).split()) or "malformed")
        if self.missing:  # while it looked for what it does not insist on, such as an explanation
            return None
        if result == "none":
            return SpfVerdict(result, f"no SPF records found for {domain}")
        if result in ("permerror", "temperror"):
            return SpfVerdict(result, text.partition(": ")[2])
        if result == "fail" and text != _NOT_EXPLAINED:
            return SpfVerdict(result, text)
        return SpfVerdict(result, f"matched '{self.mechanism}' directive" if self.mechanism else _DEFAULT)

    # --- what pyspf calls ---------------------------------------------------------------------------------------------

    def dns(self, name: object, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """Records of a name, as pyspf wants them."""
        key = str(name).rstrip(".").lower(), qtype
        if not all(0 < len(label) < 64 for label in key[0].split(".")):
            return []
        self._insist([key])
        found = self._answers[key]
        if isinstance(found, spf.TempError):
            raise found
        if not found and not ignore_void:  # RFC 7208 §4.6.4
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} names without a record")
        if qtype == "TXT" and any(sum(map(len, strings)) > LONGEST_RECORD for strings in found):
            raise spf.PermError("a TXT record is too long", key[0])
        return found

    def check1(self, record: str | None, domain: str, recursion: int) -> Any:
        """Every record passes through here."""
        if any(len(term) > LONGEST_TERM for term in (record or "").split(" ")):
            raise spf.PermError("a term is too long")
        return super().check1(record, domain, recursion)

    def dns_mx(self, domain: str) -> Any:
        """The addresses of a domain's mail hosts, which are asked for together."""
        self._insist((str(host), self.A) for _, host in self.dns(domain, "MX")[: spf.MAX_MX])
        return super().dns_mx(domain)

    def validated_ptrs(self) -> list[str]:
        """The names of the client that say so themselves."""
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:  # §5.5: then nothing matches
            return []
        self._insist((name, self.A) for name in names)
        return [name for name in names if self._has_address(name)]

    def _has_address(self, name: str) -> bool:
        try:
            return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
        except spf.TempError:
            return False

    def _insist(self, names: Iterable[Name]) -> None:
        lacking = [(name.lower(), kind) for name, kind in names if (name.lower(), kind) not in self._answers]
        if lacking:
            self.missing += lacking
            raise _Missing


async def verdict(ask: Callable[[str, str], Any], *question: str) -> SpfVerdict:
    """ask: the DNS, by name and kind. question: as for SpfCheck."""
    answers: Answers = {}
    while True:
        check = SpfCheck(answers, *question)
        found = check.verdict()
        if found is not None:
            return found
        answers.update(await asyncio.gather(*(_answer(ask, *name) for name in check.missing)))


async def _answer(ask: Callable[[str, str], Any], name: str, kind: str) -> tuple[Name, list[Any] | spf.TempError]:
    try:
        answer = await ask(name, kind)
    except ValueError as error:
        return (name, kind), spf.TempError(str(error))
    return (name, kind), [_FOR_PYSPF[kind](record) for record in answer.records]


_FOR_PYSPF: dict[str, Callable[[Any], Any]] = {
    "A": lambda record: record.to_text(),
    "AAAA": lambda record: record.to_text(),
    "MX": lambda record: (record.preference, record.exchange.to_text(omit_final_dot=True)),
    "PTR": lambda record: record.target.to_text(omit_final_dot=True),
    "TXT": lambda record: list(record.strings),
}


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
    found = await verdict(
        lambda name, kind: asked(server, name, kind),
        str(address),
        domain,
        sender if sender and "@" in sender else f"postmaster@{domain}",
        helo,
        str(values.get("hostname") or "localhost"),
    )
    props = {key: value for key, value in (("smtp.mailfrom", sender), ("smtp.helo", helo)) if value}
    result = {"method": "spf", "result": found.disposition, "reason": found.context, "props": props}
    return {"disposition": found.disposition, "result": result}


FUNCTIONS: dict[str, Callable[..., Any]] = {"check_host": check_host, "check_msg": check_msg}
WAITING = frozenset({"spf.check_host", "spf.check_msg"})
