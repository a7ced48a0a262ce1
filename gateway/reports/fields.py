"""Field values of reports and of the messages they are about, read tolerantly: addresses, `type; value` pairs, text.

Dates have their own module. Whether an address may be mailed to is not asked here.
"""

import re
from email.errors import MessageError
from email.header import decode_header, make_header

from gateway.smtp.address import AddressError, parse_address

# Limits on the work that one field can cause, far above what is seen: characters of an address field that are looked
# at, of a field whose encoded-words are decoded, of an address (RFC 5321 §4.5.3.1.3 allows 256 octets).
MAX_ADDRESS_FIELD = 4096
MAX_ENCODED = 4096
MAX_ADDRESS = 512

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PLAIN = re.compile(r"<([\w.+=/-]+@[\w.-]+)>", re.ASCII)  # what a Return-Path usually is
# RFC 5322 §3.4: name-addr, with anything in front; §4.4: a source route, which is dropped.
_NAME_ADDR = re.compile(rf'(?:{_QUOTED}|[^"<])*<\s*(?:@[^:<>]*:)?((?:{_QUOTED}|[^"<>])*)>', re.DOTALL)
# The first address of a list, or of a group behind the group's name.
_FIRST = re.compile(rf'(?:[^":;,]*:)?((?:{_QUOTED}|[^",;])*)', re.DOTALL)
_BARE = re.compile(rf'(?:{_QUOTED}|[^\s"])+', re.DOTALL)
_COMMENT_TOKENS = re.compile(rf"{_QUOTED}|\\.|[()]|[^()\"\\]+|.", re.DOTALL)
# Codecs of Python's that no mail uses and that are slow, or that read escapes.
_NO_CHARSETS = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}
_BETWEEN_WORDS = re.compile(r"[\s<>()\[\]:;,\"']+")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_XTEXT = re.compile(r"\+([2-7][0-9A-F])")


def clean(text: str) -> str:
    """`text` fit for JSON in UTF-8: octets that were not UTF-8 (lone surrogates) become U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def decoded_words(text: str) -> str:
    """RFC 2047: `text` with its encoded-words decoded, or as it is if they cannot be."""
    if "=?" not in text or len(text) > MAX_ENCODED:
        return clean(text)
    try:
        words = decode_header(clean(text))
        charsets = {charset.lower().replace("-", "_") for _, charset in words if charset}
        return clean(str(make_header(words)) if _NO_CHARSETS.isdisjoint(charsets) else text)
    except (MessageError, LookupError, ValueError):
        return clean(text)


def without_comments(text: str) -> str:
    """RFC 5322 §3.2.2: `text` without comments, which nest and may hold quoted-pairs."""
    if "(" not in text:
        return text
    kept = []
    depth = 0
    for token in _COMMENT_TOKENS.findall(text):
        if token == "(":
            depth += 1
        elif token == ")" and depth:
            depth -= 1
        elif depth == 0:
            kept.append(token)
    return "".join(kept)


def first_address(value: str) -> str | None:
    """The first address of an address field without name, comments and brackets; None if there is none.

    In brackets anything without blanks counts (`<MAILER-DAEMON>`), elsewhere it takes an `@`. A stray bracket or quote
    is no part of an address.
    """
    if plain := _PLAIN.fullmatch(value, 0, MAX_ADDRESS_FIELD):
        return plain[1]
    text = without_comments(value[:MAX_ADDRESS_FIELD])
    if match := _NAME_ADDR.match(text):
        address = match[1].strip()
        return address if _BARE.fullmatch(address) else None
    match = _FIRST.match(text)
    address = match[1].strip().strip("<>") if match else ""
    return address if "@" in address and _BARE.fullmatch(address) else None


def addresses(value: str) -> list[str]:
    """All addresses of an address field, likewise, and those that stand among other words (`u@d.example via …`)."""
    found = []
    for part in _listed(value[:MAX_ADDRESS_FIELD]):
        address = first_address(part) if "@" in part else None
        if address is None:
            found += [word for word in _BETWEEN_WORDS.split(part) if 0 < word.find("@") < len(word) - 1][:1]
        else:
            found.append(address)
    return found


def _listed(value: str) -> list[str]:
    """The parts of a list; a comma in quotes divides nothing."""
    if '"' not in value:
        return value.split(",")
    parts = []
    start = at = 0
    quoted = False
    while at < len(value):
        if value[at] == '"':
            quoted = not quoted
        elif value[at] == "," and not quoted:
            parts.append(value[start:at])
            start = at + 1
        at += 2 if value[at] == "\\" else 1
    return [*parts, value[start:]]


def mailbox(value: str) -> str | None:
    """The address of a field as the envelope has it, whatever stands around it; "" for `<>`, None for none."""
    address = normalised(value)
    return _mended(value) if address is None else address


def _mended(value: str) -> str | None:
    found = addresses(value)
    address = found[0] if found else first_address(value)
    if address is None:
        return "" if without_comments(value[:MAX_ADDRESS_FIELD]).strip() == "<>" else None
    address = address.removeprefix("mailto:").strip("<>'\".,;")
    return normalised(address[1:-1] if address.startswith("[") else address)


def normalised(address: str) -> str | None:
    """An address as the envelope has it: no brackets, the domain in its one spelling. None if it is no address.

    The null reverse-path is "".
    """
    if len(address) > MAX_ADDRESS:
        return None
    try:
        return parse_address(clean(address)).email
    except AddressError:
        return None


def typed(value: str) -> tuple[str | None, str]:
    """RFC 3464 §2.1.2: `type; value` as (type in lower case or None, value), blanks round both dropped."""
    end = value.find(";")
    kind = value[:end].strip().lower() if end >= 0 else " "
    if " " in kind:  # of more than one word: a semicolon in a value without type
        return None, value.strip()
    return kind, value[end + 1 :].strip()


def recipient_address(value: str) -> str:
    """The address of a Final-Recipient or Original-Recipient without its type, brackets and what else is around it."""
    address = _without_brackets(typed(value)[1])
    return address if normalised(address) else _mended(address) or address


def _without_brackets(address: str) -> str:
    return address[1:-1].strip() if address.startswith("<") and address.endswith(">") else address


def envelope_recipient(value: str) -> tuple[str, str, bool]:
    """A Final-Recipient or Original-Recipient as (type, address, understood).

    Addresses of type rfc822 and utf-8 (RFC 6533 §3: with `\\x{…}` escapes) are normalised, others kept as they are.
    Without type, or where the address is none, the third value is False and the second the bare text.
    """
    kind, bare = typed(value)
    address = _without_brackets(bare)
    if kind is not None and kind not in ("rfc822", "utf-8"):
        return kind, clean(address), bool(kind)
    if kind == "utf-8":
        address = _ESCAPED.sub(_unescape, address)
    known = mailbox(address)
    if known is None and "=?" in address:
        known = mailbox(decoded_words(address))
    return kind or "unknown", known or clean(address), kind is not None and bool(known)


def _unescape(match: re.Match[str]) -> str:
    point = int(match[1], 16)
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else match[0]


def decoded_xtext(address: str) -> str:
    """RFC 3461 §4: an address without the escapes of xtext, of printable characters."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), address)
