"""`kumo.string`: splitting, trimming, templates, public suffixes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup
from publicsuffixlist import PublicSuffixList

from gateway.logs.encoding import as_kumomta_prints
from gateway.mail import headers
from gateway.policy.kumo.values import integer, string
from gateway.smtp.address import AddressError, normalise_domain

# Unicode's White_Space; Python's str.strip() has U+001C to U+001F, too
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
ASCII_WHITE_SPACE = "\t\n\f\r "


def split(text: Any, pattern: Any) -> list[str]:
    """The pieces between the places where `pattern` stands."""
    return _pieces(string(text, "split"), string(pattern, "split"), -1)


def splitn(text: Any, limit: Any, pattern: Any) -> list[str]:
    """At most `limit` pieces; the last one has the rest."""
    count = integer(limit, "splitn")
    return _pieces(string(text, "splitn"), string(pattern, "splitn"), count - 1) if count > 0 else []


def rsplit(text: Any, pattern: Any) -> list[str]:
    """The pieces, the last one first."""
    return split(text, pattern)[::-1]


def rsplitn(text: Any, limit: Any, pattern: Any) -> list[str]:
    """At most `limit` pieces, the last one first; the last of them has the rest."""
    count = integer(limit, "rsplitn")
    if count <= 0:
        return []
    separator = string(pattern, "rsplitn")
    if not separator:
        everything = _pieces(string(text, "rsplitn"), "", -1)
        cut = max(len(everything) - count + 1, 1)
        return [*everything[cut:][::-1], "".join(everything[:cut])]
    return string(text, "rsplitn").rsplit(separator, count - 1)[::-1]


def _pieces(text: str, separator: str, cuts: int) -> list[str]:
    if separator:
        return text.split(separator, cuts)
    pieces = ["", *text, ""]  # an empty pattern stands around every character
    if cuts < 0 or cuts >= len(pieces):
        return pieces
    return [*pieces[:cuts], "".join(pieces[cuts:])]


def split_whitespace(text: Any) -> list[str]:
    """The words between Unicode's white space."""
    return re.findall(f"[^{WHITE_SPACE}]+", string(text, "split_whitespace"))


def split_ascii_whitespace(text: Any) -> list[str]:
    """The words between ASCII's white space."""
    return re.findall(f"[^{ASCII_WHITE_SPACE}]+", string(text, "split_ascii_whitespace"))


def replace(text: Any, old: Any, new: Any) -> str:
    """Every `old` replaced by `new`."""
    return string(text, "replace").replace(string(old, "replace"), string(new, "replace"))


def replacen(text: Any, old: Any, new: Any, count: Any) -> str:
    """The first `count` of them."""
    times = max(0, integer(count, "replacen"))
    return string(text, "replacen").replace(string(old, "replacen"), string(new, "replacen"), times)


def trim(text: Any) -> str:
    """Without white space around it."""
    return string(text, "trim").strip(WHITE_SPACE)


def trim_start(text: Any) -> str:
    """Without white space in front."""
    return string(text, "trim_start").lstrip(WHITE_SPACE)


def trim_end(text: Any) -> str:
    """Without white space behind."""
    return string(text, "trim_end").rstrip(WHITE_SPACE)


def starts_with(text: Any, prefix: Any) -> bool:
    """Plain comparison, no pattern."""
    return string(text, "starts_with").startswith(string(prefix, "starts_with"))


def ends_with(text: Any, suffix: Any) -> bool:
    """Plain comparison, no pattern."""
    return string(text, "ends_with").endswith(string(suffix, "ends_with"))


def wrap(text: Any, soft_limit: Any = None, hard_limit: Any = None) -> str:
    """Lines of at most `soft_limit` octets where there is white space to break at, of `hard_limit` in any case."""
    soft = headers.LINE if soft_limit is None else integer(soft_limit, "wrap")
    hard = headers.LONGEST_LINE if hard_limit is None else integer(hard_limit, "wrap")
    if soft < 1 or hard < 1:
        raise ValueError("wrap: the limits must be at least 1")
    return headers.wrapped(string(text, "wrap"), soft, hard)


# --- templates --------------------------------------------------------------------------------------------------------


def eval_template(name: Any, source: Any, context: Any, dialect: Any = None) -> str:
    """A Jinja template with the fields of `context`. A name that ends in .html, .htm or .xml has its values escaped,
    one in .json, .js or .yaml as JSON; the dialect `'Static'` is no template at all
    """
    if dialect == "Static":
        return string(source, "eval_template")
    if dialect not in (None, "Jinja"):
        raise ValueError(f"eval_template: expected the dialect 'Jinja' or 'Static', got '{dialect}'")
    if not isinstance(context, dict | list | None):
        raise ValueError("eval_template: expected a table of values")
    kind = _escaping(string(name, "eval_template"))
    try:
        template = _environment(kind).from_string(string(source, "eval_template"))
        return template.render(context if isinstance(context, dict) else {})
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"eval_template: {name}: {error}") from None


def _escaping(name: str) -> str:
    """How values are escaped, by the extension of a template's name."""
    match name.removesuffix(".j2").rpartition(".")[2]:
        case "html" | "htm" | "xml":
            return "html"
        case "json" | "json5" | "js" | "yaml" | "yml":
            return "json"
    return ""


def _as_json(value: Any) -> Any:
    return value if isinstance(value, Markup) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@cache
def _environment(kind: str) -> SandboxedEnvironment:
    finalize = _as_json if kind == "json" else as_kumomta_prints
    environment = SandboxedEnvironment(autoescape=kind == "html", keep_trailing_newline=True, finalize=finalize)
    environment.filters["normalize_smtp_response"] = normalize_smtp_response
    return environment


# --- public suffixes --------------------------------------------------------------------------------------------------


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def psl_domain(name: Any) -> str | None:
    """The registrable domain, nil where there is none."""
    found: str | None = _suffixes().privatesuffix(_domain(name, "psl_domain"))
    return found


def psl_suffix(name: Any) -> str | None:
    """The public suffix."""
    found: str | None = _suffixes().publicsuffix(_domain(name, "psl_suffix"))
    return found


def _domain(name: Any, function: str) -> str:
    text = string(name, function)
    try:
        return normalise_domain(text)
    except AddressError:
        return text.lower()


# --- replies of servers -----------------------------------------------------------------------------------------------

_UNIT = r"\d+(?:ns|us|ms|s|m|h|day|month|year)"
_SPAN = re.compile(rf"\b{_UNIT}(?:\s+{_UNIT})*\b")
_OPENING = re.compile(r"(?:\A|(?<=\s))[\[({]")
_CLOSING = re.compile(r"[])}](?:[\s!-/:-@[-`{-~]|\Z)")
_TOKENS = {
    "duration": r"__DURATION__|P(?:\d+(?:\.\d+)?[YMWD])*(?:T(?:\d+(?:\.\d+)?[HMS])*)?",
    "timestamp": r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)",
    "uuid": r"(?:urn:uuid:)?[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}",
    "hash": r"(?=(?:[^A-Za-z]*[A-Za-z]){3})(?=(?:\D*\d){3})[A-Za-z0-9._-]{8,}",
    "ipaddr": r"(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[0-9a-fA-F:]*::|(?:[0-9a-fA-F]{1,4}:){7})[0-9a-fA-F:.]{2,45})"
    r"(?::\d{1,5})?",
    # no word: padded, or with a capital letter behind a small one
    "base64": r"(?=.*=\Z|.*[a-z].*[A-Z])(?:[A-Za-z0-9+/_-]{4}){2,}(?:[A-Za-z0-9+/_-]{2}==|[A-Za-z0-9+/_-]{3}=)?",
    "email": r"[a-z0-9!#$%&'*+/=?^_`{-}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{-}~-]+)*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+"
    r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
}
_RECOGNISED = {token: re.compile(pattern) for token, pattern in _TOKENS.items()}


def normalize_smtp_response(text: Any) -> str:
    """A reply with what differs from one transaction to the next replaced by {timestamp}, {uuid}, {ipaddr}, …"""
    reply = _SPAN.sub("__DURATION__", string(text, "normalize_smtp_response"))
    words = map(_normalised, _CLOSING.sub(" ", _OPENING.sub(" ", reply)).split())
    return " ".join(words).replace("__DURATION__", "{duration}")


def _normalised(word: str) -> str:
    for token, pattern in _RECOGNISED.items():
        if pattern.fullmatch(word):
            return f"{{{token}}}"
    name, equals, value = word.partition("=")
    return f"{name}={_normalised(value)}" if equals else word


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        split, splitn, rsplit, rsplitn, split_whitespace, split_ascii_whitespace, replace, replacen, trim, trim_start,
        trim_end, starts_with, ends_with, wrap, eval_template, psl_domain, psl_suffix, normalize_smtp_response,
    )
}  # fmt: skip
