"""`kumo.dmarc`: whether a message is from whom it says, by the results for SPF and DKIM (RFC 7489), by pydmarc.

No reports are made, and every message is judged as the record says, whatever its `pct`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dmarc

from gateway.mail.message import Message
from gateway.policy.kumo.strings import psl_domain
from gateway.policy.kumo.values import described
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.messages.header import from_header
from gateway.policy.options import sequences
from gateway.policy.outside.lookups import asked, resolver_called, strings_of
from gateway.policy.outside.outside import Outside

_SHOWN = ("p", "sp", "adkim", "aspf")


class _Suffixes:
    """What pydmarc asks about organisational domains."""

    @staticmethod
    def get_public_suffix(domain: str) -> str:
        return psl_domain(domain) or domain


async def check_msg(
    outside: Outside,
    message: Any,
    dkim_results: Any,
    resolver: Any = None,
    spf_result: Any = None,
    use_reporting: Any = None,
) -> dict[str, Any]:
    """The verdict of the domain in From on a message"""
    found: Message | None = message.message if isinstance(message, MessageHandle) else None
    if found is None:
        raise ValueError(f"check_msg: expected a message, got {described(message)}")
    domain = _from_domain(found)
    if domain is None:
        return _answer("None", "none", "From names no domain, or more than one", {})
    server = resolver_called(outside, resolver, "dmarc")
    organisation = psl_domain(domain)
    published = None
    names = [domain] if organisation in (None, domain) else [domain, organisation]
    for name in names:
        try:
            texts = strings_of(await asked(server, f"_dmarc.{name}", "TXT"))
        except ValueError as error:
            return _answer("TempError", "temperror", str(error), {})
        published = _policy(texts, domain, None if name == domain else name)
        if published is not None:
            break
    if published is None:
        return _answer("None", "none", f"no DMARC records found for {domain}", {"header.from": domain})
    results = [one for one in map(_signer, _list(dkim_results)) if one is not None and _is_kin(domain, one.domain)]
    client = _sender(found, spf_result)
    return _judged(published, domain, [*results, *([client] if client and _is_kin(domain, client.domain) else [])])


def _judged(published: dmarc.DMARCPolicy, domain: str, results: list[Any]) -> dict[str, Any]:
    props = {"header.from": domain}
    props |= {f"policy.{tag}": text for tag in _SHOWN if (text := getattr(published.policy, tag).value)}
    try:
        published.verify(auth_results=results)
    except dmarc.PolicyError:
        disposition = published.result.disposition.value
        props["policy.published-domain-policy"] = disposition
        return _answer(disposition.title(), "fail", "No aligned DKIM or SPF", props)
    return _answer("Pass", "pass", "Success", props)


def _answer(disposition: str, result: str, reason: str, props: dict[str, str]) -> dict[str, Any]:
    return {
        "disposition": disposition,
        "result": {"method": "dmarc", "result": result, "reason": reason, "props": props},
    }


def _from_domain(message: Message) -> str | None:
    """The domain of the one author; None where that is not one."""
    try:
        header = from_header(message)
    except ValueError:
        return None
    mailboxes = () if header is None else header.mailboxes
    domains = {box.domain.lower() for box in mailboxes if box.domain}
    return domains.pop() if len(domains) == 1 else None


def _policy(texts: list[str], domain: str, organisation: str | None) -> dmarc.DMARCPolicy | None:
    """The one record among texts; None where there is none, or several (RFC 7489 §6.6.3)."""
    found = [text for text in texts if text.partition(";")[0].strip() == "v=DMARC1"]
    if len(found) != 1:
        return None
    try:
        return dmarc.DMARCPolicy(found[0], domain, organisation, publicsuffix=_Suffixes, strict=False)
    except dmarc.Error:
        return None


def _list(results: Any) -> list[Any]:
    plain = sequences(results)
    return plain if isinstance(plain, list) else []


def _signer(result: Any) -> dmarc.DKIMAuthResult | None:
    """A DKIM result that speaks for a domain."""
    if not isinstance(result, dict) or result.get("result") != "pass":
        return None
    domain = (result.get("props") or {}).get("header.d")
    return dmarc.DKIMAuthResult(domain, dmarc.DKIMResult.PASS) if isinstance(domain, str) and domain else None


def _sender(message: Message, result: Any) -> dmarc.SPFAuthResult | None:
    if not isinstance(result, dict) or result.get("result") != "pass":
        return None
    helo = (result.get("props") or {}).get("smtp.helo")
    domain = message.sender.domain or helo
    return dmarc.SPFAuthResult(domain, dmarc.SPFResult.PASS) if isinstance(domain, str) and domain else None


def _is_kin(one: str, other: str) -> bool:
    """Whether two domains are of one organisation. pydmarc takes a public suffix for one, too."""
    kin = psl_domain(one)
    return one == other.lower() or (kin is not None and kin == psl_domain(other))


FUNCTIONS: dict[str, Callable[..., Any]] = {"check_msg": check_msg}
WAITING = frozenset({"dmarc.check_msg"})
