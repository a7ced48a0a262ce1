"""DKIM and ARC signatures of a message (RFC 6376, RFC 8617), by dkimpy, and results in the words of RFC 8601.

No DNS here: which names have to be asked comes first, what they say is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import authres
import dkim
import dkim.util

MOST_SIGNATURES = 10  # of DKIM that are looked at in one message
MOST_INSTANCES = 50  # RFC 8617 §4.2.1
_LONGEST_FIELD = 8192  # octets: no signature needs as many, and dkimpy takes its time over them
_LONG_BLANK = re.compile(rb"[ \t\r\n]{100}")
_BLANKS = re.compile(rb"[ \t]+")
_FIELDS = {b"dkim-signature", b"arc-seal", b"arc-message-signature"}

Result = dict[str, Any]  # of one method: method, method_version, result, reason, props


class NoAnswer(Exception):
    """The DNS did not say whether there is a key."""


def signature_names(data: bytes) -> dict[str, list[str]]:
    """The names of the keys that the signatures of a message need, for `dkim` and for `arc`."""
    found: dict[str, list[str]] = {"dkim": [], "arc": []}
    for name, value in _signatures(data):
        key = _key_name(value)
        kind = "dkim" if name == b"dkim-signature" else "arc"
        if key is not None and key not in found[kind]:
            found[kind].append(key)
    return {"dkim": found["dkim"][:MOST_SIGNATURES], "arc": found["arc"][: 2 * MOST_INSTANCES]}


def _signatures(data: bytes) -> list[tuple[bytes, bytes]]:
    try:
        fields, _ = dkim.rfc822_parse(data)
    except Exception:  # dkimpy fails in many ways on what is malformed
        return []
    return [(name.lower(), value) for name, value in fields if name.lower() in _FIELDS]


def _key_name(value: bytes) -> str | None:
    tags = _tags(value)
    try:
        return f"{tags[b's'].decode()}._domainkey.{tags[b'd'].decode()}".rstrip(".").lower()
    except (KeyError, UnicodeDecodeError):
        return None


def _tags(value: bytes) -> dict[bytes, bytes]:
    try:
        found: dict[bytes, bytes] = dkim.util.parse_tag_value(re.sub(rb"\r?\n", b"", value))
    except dkim.util.InvalidTagValueList:
        return {}
    return found


# --- DKIM -----------------------------------------------------------------------------------------------------------


def verify_dkim(data: bytes, keys: Mapping[str, str | NoAnswer | None]) -> list[Result]:
    """A result for each signature, the topmost first. keys: what the DNS says, by name; None where there is no key."""
    values = [value for name, value in _signatures(data) if name == b"dkim-signature"][:MOST_SIGNATURES]
    relaxed = _with_relaxed_body(data) if any(map(_has_relaxed_body, values)) else data
    return [
        _dkim_result(relaxed if _has_relaxed_body(value) else data, number, value, keys)
        for number, value in enumerate(values)
    ]


def _dkim_result(data: bytes, number: int, value: bytes, keys: Mapping[str, str | NoAnswer | None]) -> Result:
    tags = _tags(value)
    domain = _shown(tags.get(b"d", b""))
    shown = {
        "header.d": domain,
        "header.i": _shown(tags.get(b"i", b"")) or f"@{domain}",
        "header.s": _shown(tags.get(b"s", b"")),
        "header.a": _shown(tags.get(b"a", b"")),
        "header.b": _shown(re.sub(rb"\s", b"", tags.get(b"b", b""))[:8]),
    }
    result, reason = _dkim_verdict(data, number, value, keys)
    return _result("dkim", result, reason, {name: text for name, text in shown.items() if text not in ("", "@")})


def _dkim_verdict(
    data: bytes, number: int, value: bytes, keys: Mapping[str, str | NoAnswer | None]
) -> tuple[str, str | None]:
    """RFC 8601 §2.7.1."""
    if len(value) > _LONGEST_FIELD or _LONG_BLANK.search(value):
        return "permerror", "the signature is malformed"
    try:
        verifier = dkim.DKIM(data)
        prepared = verifier.verify_headerprep(number)
    except Exception as error:  # dkimpy fails in many ways on what is malformed
        return "permerror", _words(error)
    key = keys.get(_key_name(value) or "")
    if isinstance(key, NoAnswer):
        return "temperror", str(key)
    if not key:
        return "permerror", "there is no key for the signature"
    try:
        signature, names, fields = prepared
        verifier.pk, verifier.keysize, verifier.ktag, verifier.seqtlsrpt = dkim.evaluate_pk("", key)
        if verifier.verify_sig_process(signature, names, fields[number], None):
            return "pass", None
    except dkim.ValidationError as error:
        return "fail", "the body was changed" if "body hash" in str(error) else _words(error)
    except Exception as error:
        return "permerror", _words(error)
    return "fail", "the signature does not verify"


def _has_relaxed_body(value: bytes) -> bool:
    return _tags(value).get(b"c", b"").strip().lower().endswith(b"/relaxed")


def _with_relaxed_body(data: bytes) -> bytes:
    """With runs of blanks in the body as one, as RFC 6376 §3.4.4 has it anyway: dkimpy's own expression for blanks at
    the end of lines takes the square of their number.
    """
    end = data.find(b"\r\n\r\n")
    return data if end < 0 else data[:end] + _BLANKS.sub(b" ", data[end:])


# --- ARC ------------------------------------------------------------------------------------------------------------


def verify_arc(data: bytes, keys: Mapping[str, str | NoAnswer | None]) -> Result:
    """The state of the chain (RFC 8617 §5.2): none, pass or fail."""
    values = [value for name, value in _signatures(data) if name != b"dkim-signature"]
    if not values:
        return _result("arc", "none", None, {})
    if any(len(value) > _LONGEST_FIELD or _LONG_BLANK.search(value) for value in values):
        return _result("arc", "fail", "a signature is malformed", {})
    if len(values) > 2 * MOST_INSTANCES:
        return _result("arc", "fail", "the chain is too long", {})
    try:
        state, _, comment = dkim.ARC(_with_relaxed_body(data)).verify(dnsfunc=_answers(keys))
    except Exception as error:  # dkimpy fails in many ways on what is malformed
        return _result("arc", "fail", _words(error), {})
    result = {dkim.CV_Pass: "pass", dkim.CV_None: "none"}.get(state, "fail")
    return _result("arc", result, comment if result == "fail" else None, {})


def _answers(keys: Mapping[str, str | NoAnswer | None]) -> Callable[..., bytes | None]:
    def answer(name: bytes, timeout: int = 0) -> bytes | None:
        key = keys.get(name.decode("utf-8", "replace").rstrip(".").lower())
        if isinstance(key, NoAnswer):
            raise dkim.DnsTimeoutError(str(key))
        return None if key is None else key.encode("utf-8", "surrogateescape")

    return answer


# --- results --------------------------------------------------------------------------------------------------------


def _result(method: str, result: str, reason: str | None, props: dict[str, str]) -> Result:
    return {"method": method, "method_version": None, "result": result, "reason": reason, "props": props}


def _shown(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _words(error: Exception) -> str:
    """What an exception of dkimpy's says, on one line."""
    return " ".join(str(error).split())[:200] or "malformed"


def results_field(authserv_id: str, results: list[Result]) -> bytes:
    """An Authentication-Results field (RFC 8601 §2.2) with its CRLF. Raises ValueError for what it cannot hold."""
    for text in (authserv_id, *(str(text) for result in results for text in _texts(result))):
        if not text.isprintable():
            raise ValueError("a result contains a control character")
    if not authserv_id or any(blank in authserv_id for blank in " ;"):
        raise ValueError(f"'{authserv_id}' is no authserv-id")
    words = [str(_for_authres(result)) for result in results] or ["none"]
    return ";\r\n\t".join([f"Authentication-Results: {authserv_id}", *words]).encode() + b"\r\n"


def _texts(result: Result) -> list[object]:
    props = result.get("props") or {}
    return [result["method"], result["result"], result.get("reason") or "", *props, *props.values()]


def _for_authres(result: Result) -> authres.AuthenticationResult:
    properties = []
    for name, value in (result.get("props") or {}).items():
        kind, _, rest = name.partition(".")
        if not rest:
            raise ValueError(f"the property '{name}' has no type: write it as 'header.d'")
        properties.append(authres.AuthenticationResultProperty(kind, rest, str(value)))
    version = result.get("method_version")
    return authres.AuthenticationResult(
        result["method"],
        version=None if version is None else str(version),
        result=result["result"],
        reason=result.get("reason"),
        properties=properties,
    )
