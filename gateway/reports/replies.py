"""SMTP replies (RFC 5321 §4.2, RFC 3463) as reports quote them: by themselves, or somewhere inside other words.

Only what stands there is told: a code without an enhanced one stays so. What a reply means for a recipient is for
rfc3464.py; work is bounded by MAX_QUOTED.
"""

import re
from itertools import islice

from gateway.reports.fields import clean, decoded_words, typed

MAX_QUOTED = 65536  # characters that are searched for a reply
MAX_TEXT = 1000  # of a reply inside other words

# RFC 3463 §2: class, subject, detail; there are no subjects beyond 7, which tells codes from most version numbers.
_ENHANCED = r"[245]\.[0-7]\.\d{1,3}(?!\d|\.\d)"
_BETWEEN = r"(?:[ \t-]+|[ \t]*\n[ \t]+)"  # it and the code in front of it, folded maybe
_REPLY = re.compile(r"([2-5]\d\d)(?:[ \t-]\s*(.*))?", re.ASCII | re.DOTALL)
_AT_START = re.compile(rf"\(?#?({_ENHANCED})\)?[ \t:-]*(.*)", re.ASCII | re.DOTALL)
# A code, and the enhanced one behind it. Second digit: RFC 5321 §4.2.1 has 0 to 5, mailers have 571 for 5.7.1, too.
_CODE = re.compile(
    rf"(?<![\w.])#?(?P<code>[45][0-57]\d)(?![\w.%/])(?:{_BETWEEN}[\"'(]?#?(?P<enhanced>{_ENHANCED})[\"')]?)?", re.ASCII
)
# What introduces a reply, besides the start of a line: a word, the mark of a transcript, a bracket or quote, a colon,
# the type of a diagnostic, an address literal.
_INTRODUCTION = re.compile(
    r"(?:\b(?:said|says|responded|replied|response|reply|returned|error|code|status|reason|was|with|got)\b"
    r"[^\w\n]{0,4}|<<<[ \t]*|[\[({\"'][ \t]*|[:;][ \t]+|smtp;|\],?[ \t]+)\Z",
    re.ASCII | re.IGNORECASE,
)
MAX_CODES = 1000  # numbers like codes that are looked at
MAX_INTRODUCTION = 64  # characters in front of a code that are looked at
# A code and an enhanced one of its class beside each other are a reply wherever they stand.
_PAIR = re.compile(rf"(?<![\w.])(?P<code>[45][0-57]\d){_BETWEEN}#?(?P<enhanced>{_ENHANCED})", re.ASCII)
# So is a code with its text in quotes, as Cisco's gateways have it: "5.3.0 - Other problem 554-'delivery error: dd'".
_IN_QUOTES = re.compile(rf"(?<![\w.])(?P<code>[45][0-57]\d)-'(?P<enhanced>{_ENHANCED})?", re.ASCII)
_IN_FRONT = re.compile(rf"#({_ENHANCED})[ \t]+smtp;[ \t]*$", re.ASCII | re.IGNORECASE)  # Exchange: "#5.1.1 smtp; 550 …"
_MARKED = re.compile(rf"(?:#|\(|\[|^[ \t]*)({_ENHANCED})", re.ASCII | re.MULTILINE)
_ANYWHERE = re.compile(rf"(?<![\w.])({_ENHANCED})", re.ASCII)
# What a number of three digits at the start of a line counts instead: more than one, so "550 Message rejected" is none.
_COUNTED = re.compile(
    r"[ \t]*(?:[kmg]i?b|bytes|octets|messages(?! from)|mails(?! from)|recipients|addresses|connections|hours|days|"
    r"minutes|seconds|items|times|lines)\b",
    re.ASCII | re.IGNORECASE,
)
_CLOSING = {
    "[": "]",
    "(": ")",
    "{": "}",
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u201e": "\u201c",
    "\u00ab": "\u00bb",
}
_OWN_WORDS = re.compile(  # of the mailer that quotes a reply, on a line behind it
    r"(?:Giving up on|I'm not going to try|SMTP error from|host \S+ \[|Remote host said:|<<<|>>>)", re.IGNORECASE
)
# What Exchange puts behind a reply: "#550 5.1.1 no such user ##rfc822;u@far.example", "<mx #5.1.1 smtp;550 …> #SMTP#".
_MARKS = re.compile(r"(?:##.*|>[ \t]*#SMTP#\s*)$", re.ASCII | re.DOTALL)
_COMMAND = re.compile(r"\s*\((?:in reply to|while) [^()]*\)\s*$", re.ASCII)


class QuotedReply:
    """A reply: code, or None; enhanced, such as "5.1.1", or ""; text behind both, or all there is where it does not
    begin with one."""

    def __init__(self, code: int | None, enhanced: str, text: str) -> None:
        self.code = code
        self.enhanced = enhanced
        self.text = text

    @property
    def reply_class(self) -> int | None:
        """2, 4 or 5, of the code or else of the enhanced one; None without either."""
        if self.code is not None:
            return self.code // 100
        return int(self.enhanced[0]) if self.enhanced else None


def diagnostic_reply(value: str) -> QuotedReply:
    """The reply in a `Diagnostic-Code`, with its type or without.

    A text of another type than smtp is only looked through for a reply inside it; if there is none, `text` is "".
    """
    if "=?" in value:
        value = decoded_words(value)
    kind, text = typed(value)
    if kind is not None and not kind[:1].isalpha():  # "550; no such user": no type
        kind, text = None, value.strip()
    if kind is None or kind == "smtp":
        if match := _REPLY.fullmatch(text):
            behind = clean(match[2] or "")
            if match[1] < "4" and (refusal := reply_inside(behind)):  # behind a greeting: "220-mx.example 421 4.2.1 …"
                return refusal
            if start := _MARKED.search(behind):
                return QuotedReply(int(match[1]), start[1], behind)
            quoted = _PAIR.search(behind[:MAX_QUOTED])  # of another server, in words of its own
            enhanced = quoted["enhanced"] if quoted is not None and quoted["code"][0] == match[1][0] else ""
            return QuotedReply(int(match[1]), enhanced, behind)
        start = _AT_START.match(text)
        if start is not None and kind is None:
            return QuotedReply(None, start[1], clean(start[2]))
    if found := reply_inside(text):
        found.text = found.text or clean(text)
        return found
    enhanced = _ANYWHERE.search(text[:MAX_QUOTED]) if kind is None or kind == "smtp" else None
    return QuotedReply(None, enhanced[1] if enhanced else "", clean(text) if kind in (None, "smtp") else "")


def reply_inside(text: str) -> QuotedReply | None:
    """The first reply with a code that stands inside other words."""
    text = text[:MAX_QUOTED]
    for match in islice(_CODE.finditer(text), MAX_CODES):
        if _is_reply(text, match):
            break
    else:
        match = None
    for other in (_PAIR.search(text), _IN_QUOTES.search(text)):
        if other is not None and (match is None or other.start("code") < match.start("code")):
            match = other
    if match is None:
        return None
    code, enhanced = match["code"], match["enhanced"] or ""
    before = text[max(0, match.start("code") - 32) : match.start("code")]
    opened = "'" if text.startswith("-'", match.end("code")) else before.rstrip(" \t#")[-1:]
    if not enhanced and (said := _IN_FRONT.search(before)):
        enhanced = said[1]
    behind = _up_to_the_end(text[match.end() : match.end() + MAX_TEXT], opened, code, enhanced)
    if not enhanced and (marked := _MARKED.search(behind)):  # (#5.1.1), or a reply that is quoted twice
        enhanced = marked[1]
    return QuotedReply(int(code), enhanced, clean(behind))


def first_reply(text: str) -> QuotedReply | None:
    """The first reply in a text for people, be it only an enhanced code that is marked as one (`(#5.1.1)`)."""
    if found := reply_inside(text):
        return found
    marked = _MARKED.search(text[:MAX_QUOTED])
    return QuotedReply(None, marked[1], "") if marked else None


def _is_reply(text: str, match: re.Match[str]) -> bool:
    """Whether a code begins a line or is introduced, and words stand behind it that are none that it counts."""
    before = text[max(0, match.start() - MAX_INTRODUCTION) : match.start()]
    line = before.rstrip(" \t>")
    introduced = bool(line) and line[-1] != "\n"
    if introduced and _INTRODUCTION.search(before) is None:
        return False
    if match["enhanced"]:
        return True
    behind, _, next_line = text[match.end() : match.end() + 80].partition("\n")
    if introduced and not behind.strip() and next_line[:1] in (" ", "\t"):  # as Postfix folds what a host said
        behind = next_line.partition("\n")[0]
    return any(map(str.isalpha, behind)) and not _COUNTED.match(behind)


def _up_to_the_end(text: str, opened: str, code: str, enhanced: str) -> str:
    """The text of a reply on one line: up to the bracket that closes `opened`, or to an empty line."""
    lines = []
    for number, line in enumerate(text.splitlines()):
        words = line.strip()
        if number and (not words or _OWN_WORDS.match(words)):
            break
        if words[:3] == code and words[3:4] in (" ", "-"):  # RFC 5321 §4.2.1: each line has the code
            words = words[4:].lstrip().removeprefix(enhanced)
        lines.append(words.strip())
    joined = " ".join(filter(None, lines)).lstrip(" -:,")
    if opened in _CLOSING:
        joined = _closed(joined, opened, _CLOSING[opened])
    return _COMMAND.sub("", _without_closing(_MARKS.sub("", joined).strip())).strip()


def _without_closing(text: str) -> str:
    """Without the bracket at its end that was opened in front of it: `(reason: 550 no such user)`."""
    for opening, closing in (("(", ")"), ("[", "]"), ("<", ">")):
        if text.endswith(closing) and text.count(closing) > text.count(opening):
            return text[:-1].rstrip()
    return text


def _closed(text: str, opening: str, closing: str) -> str:
    depth = 1
    for place, character in enumerate(text):
        if character == closing and (closing != "'" or not text[place + 1 : place + 2].isalnum()):
            depth -= 1
            if depth == 0:
                return text[:place]
        elif character == opening:
            depth += 1
    return text
