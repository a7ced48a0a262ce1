"""Field values of reports and of the messages they are about, read tolerantly: bare addresses and `type; value` pairs.

Dates have their own module. Whether an address may be mailed to is not asked here.
"""

import re

# Nobody's address is longer (RFC 5321 §4.5.3.1); the rest of a longer field is not looked at.
MAX_ADDRESS_FIELD = 4096

_QUOTED = r'"(?:[^"\\]|\\.)*"'
# RFC 5322 §3.4: name-addr, with anything in front; §4.4: a source route, which is dropped.
_NAME_ADDR = re.compile(rf'(?:{_QUOTED}|[^"<])*<\s*(?:@[^:<>]*:)?((?:{_QUOTED}|[^"<>])*)>', re.DOTALL)
# What cannot end inside quotes: the first address of a list, or of a group behind its name.
_FIRST = re.compile(rf'(?:[^":;,]*:)?((?:{_QUOTED}|[^",;])*)', re.DOTALL)
_BARE = re.compile(rf'(?:{_QUOTED}|[^\s"])+', re.DOTALL)


def without_comments(text: str) -> str:
    """RFC 5322 §3.2.2: `text` without comments, which nest and may hold quoted-pairs."""
    if "(" not in text:
        return text
    kept = []
    depth = 0
    for token in re.findall(rf"{_QUOTED}|\\.|[()]|[^()\"\\]+|.", text, re.DOTALL):
        if token == "(":
            depth += 1
        elif token == ")" and depth:
            depth -= 1
        elif depth == 0:
            kept.append(token)
    return "".join(kept)


def first_address(value: str) -> str | None:
    """The first address of an address field without name, comments and brackets; None if there is none.

    In brackets anything without blanks counts (`<MAILER-DAEMON>`), elsewhere it takes an `@`.
    """
    text = without_comments(value[:MAX_ADDRESS_FIELD])
    if match := _NAME_ADDR.match(text):
        address = match[1].strip()
        return address if _BARE.fullmatch(address) else None
    match = _FIRST.match(text)
    address = match[1].strip() if match else ""
    return address if "@" in address and _BARE.fullmatch(address) else None


def typed(value: str) -> tuple[str | None, str]:
    """RFC 3464 §2.1.2: `type; value` as (type in lower case or None, value), blanks round both dropped."""
    kind, semicolon, rest = value.partition(";")
    if not semicolon:
        return None, value.strip()
    return kind.strip().lower(), rest.strip()


def recipient_address(value: str) -> str:
    """The address of a Final-Recipient or Original-Recipient without its type and brackets."""
    address = typed(value)[1]
    return address[1:-1].strip() if address.startswith("<") and address.endswith(">") else address
