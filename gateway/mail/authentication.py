"""DKIM and ARC signatures of a message (RFC 6376, RFC 8617), by dkimpy, and results in the words of RFC 8601.

No DNS here: which names have to be asked comes first, what they say is an argument.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import authres
import dkim
import dkim.util

from gateway.mail import headers

MOST_SIGNATURES = 10  # of DKIM that are looked at in one message
MOST_INSTANCES = 50  # RFC 8617 §4.2.1
_LONGEST_FIELD = 8192  # octets: no signature needs as many, and dkimpy takes its time over them
_LONG_BLANK = re.compile(rb"[ \t\r\n]{100}")
_BLANKS = re.compile(rb"[ \t]+")
_PIECE = 32_768  # octets of a body that are worked on before others have their turn
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
        fields, _ = dkim.rfc822_parse(_header(data))
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


def _header(data: bytes) -> bytes:
    """The header, as a message without a body."""
    end = headers.block_end(data)
    return data if end is None else data[:end] + b"\r\n"


def _body(data: bytes) -> _Body:
    end = headers.block_end(data)
    return _Body(b"" if end is None else data[end + 2 :])


# --- bodies ---------------------------------------------------------------------------------------------------------


class _Body:
    """A body, and its hashes. dkimpy's own way takes seconds for a large one, in which no other thread runs."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._known: dict[tuple[bool, str, int | None], bytes] = {}

    def check(self, signature: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Compares the hash in a signature; returns its other tags, for the header. Raises dkim.ValidationError."""
        if b"bh" not in signature:
            return signature
        relaxed = signature.get(b"c", b"").strip().lower().endswith(b"/relaxed")
        length = int(signature[b"l"]) if b"l" in signature else None
        algorithm = dkim.HASH_ALGORITHMS[signature[b"a"]]().name
        claimed = base64.b64decode(re.sub(rb"\s", b"", signature[b"bh"]))
        if self._hash(relaxed, algorithm, length) != claimed:
            raise dkim.ValidationError("the body was changed")
        return {tag: value for tag, value in signature.items() if tag != b"bh"}

    def _hash(self, relaxed: bool, algorithm: str, length: int | None) -> bytes:
        key = relaxed, algorithm, length
        if key not in self._known:
            hasher = hashlib.new(algorithm)
            left = length
            for piece in canonical_body(self._body, relaxed):
                hasher.update(piece if left is None else piece[:left])
                left = None if left is None else max(0, left - len(piece))
            self._known[key] = hasher.digest()
        return self._known[key]


def canonical_body(body: bytes, relaxed: bool) -> Iterator[bytes]:
    """RFC 6376 §3.4.3, §3.4.4, in pieces that are short enough for others to have their turn between them."""
    empty_lines = 0
    is_empty = True
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + _PIECE) + 1 or len(body)
        piece = body[start:end]
        start = end
        if relaxed:
            piece = _BLANKS.sub(b" ", piece).replace(b" \r\n", b"\r\n")
            piece = piece[:-1] if start == len(body) and piece.endswith(b" ") else piece
        text = piece[: _end_of_text(piece)]
        if text:
            is_empty = False
            yield b"\r\n" * empty_lines + text
            empty_lines = 0
        empty_lines += (len(piece) - len(text)) // 2
    if not is_empty or not relaxed:
        yield b"\r\n"


def _end_of_text(piece: bytes) -> int:
    """Where the line ends and empty lines at the end of a piece begin."""
    end = len(piece)
    while piece.endswith(b"\r\n", 0, end):
        end -= 2
    return end


# --- DKIM -----------------------------------------------------------------------------------------------------------


def verify_dkim(data: bytes, keys: Mapping[str, str | NoAnswer | None]) -> list[Result]:
    """A result for each signature, the topmost first. keys: what the DNS says, by name; None where there is no key."""
    header, body = _header(data), _body(data)
    values = [value for name, value in _signatures(data) if name == b"dkim-signature"][:MOST_SIGNATURES]
    return [_dkim_result(header, body, number, value, keys) for number, value in enumerate(values)]


def _dkim_result(
    header: bytes, body: _Body, number: int, value: bytes, keys: Mapping[str, str | NoAnswer | None]
) -> Result:
    tags = _tags(value)
    domain = _shown(tags.get(b"d", b""))
    shown = {
        "header.d": domain,
        "header.i": _shown(tags.get(b"i", b"")) or f"@{domain}",
        "header.s": _shown(tags.get(b"s", b"")),
        "header.a": _shown(tags.get(b"a", b"")),
        "header.b": _shown(re.sub(rb"\s", b"", tags.get(b"b", b""))[:8]),
    }
    result, reason = _dkim_verdict(header, body, number, value, keys)
    return _result("dkim", result, reason, {name: text for name, text in shown.items() if text not in ("", "@")})


def _dkim_verdict(
    header: bytes, body: _Body, number: int, value: bytes, keys: Mapping[str, str | NoAnswer | None]
) -> tuple[str, str | None]:
    """RFC 8601 §2.7.1."""
    if len(value) > _LONGEST_FIELD or _LONG_BLANK.search(value):
        return "permerror", "the signature is malformed"
    try:
        verifier = dkim.DKIM(header)
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
        if verifier.verify_sig_process(body.check(signature), names, fields[number], None):
            return "pass", None
    except dkim.ValidationError as error:
        return "fail", _words(error)
    except Exception as error:
        return "permerror", _words(error)
    return "fail", "the signature does not verify"


# --- ARC ------------------------------------------------------------------------------------------------------------


class _Chain(dkim.ARC):  # type: ignore[misc]
    """A chain whose body is hashed here. text: the body."""

    def __init__(self, header: bytes, text: _Body) -> None:
        super().__init__(header)
        self._text = text

    def verify_sig(self, sig: dict[bytes, bytes], *rest: Any) -> bool:
        return bool(super().verify_sig(self._text.check(sig), *rest))


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
        state, _, comment = _Chain(_header(data), _body(data)).verify(dnsfunc=_answers(keys))
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
    return [result["method"], result["result"], *props]


def _printable(text: object) -> str:
    """What strangers say, in their DNS for one, on its way into a field."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def _for_authres(result: Result) -> authres.AuthenticationResult:
    properties = []
    for name, value in (result.get("props") or {}).items():
        kind, _, rest = name.partition(".")
        if not rest:
            raise ValueError(f"the property '{name}' has no type: write it as 'header.d'")
        about = authres.AuthenticationResultProperty(kind, rest)
        about.value = authres.core.QuotableValue(_printable(value))  # given as an argument, an empty one is none
        properties.append(about)
    version = result.get("method_version")
    return authres.AuthenticationResult(
        result["method"],
        version=None if version is None else str(version),
        result=result["result"],
        reason=_printable(result["reason"]) if result.get("reason") else None,
        properties=properties,
    )
