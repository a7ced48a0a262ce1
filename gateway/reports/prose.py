"""What a report tells people: the text of its first part, decoded, and what it claims happened.

Where that text is, the compiled scanner knows (`Report.prose`). Nothing here guesses recipients.
"""

import html
import re
from itertools import islice

from gateway._fastpath import Report
from gateway.reports.fields import decoded_words

MAX_EXCERPT = 1024  # octets of text, in UTF-8, that a record shows
MAX_PROSE = 65536  # octets of a part that are read for what they claim
_NO_CHARSETS = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7"}  # none of any mail

_BREAKS = (
    "br",
    "p",
    "/p",
    "div",
    "/div",
    "tr",
    "/tr",
    "li",
    "/li",
    "table",
    "/table",
    "h1",
    "h2",
    "h3",
    "/h1",
    "/h2",
    "/h3",
)
_UNSEEN = ("script", "style", "head", "title")
_TAG_NAME = re.compile(r"/?[a-z0-9]{0,10}", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\r\n?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[ \t\xa0]+")

# What a notification says that is no failure: RFC 3464 §2.3.3: delivered, relayed, expanded; delayed.
_KIND = re.compile(
    r"\b(?:succe\w*|delivered|relay(?:ed)?|expanded|read|delay\w*|warning|receipt|retried|"
    r"erfolgreich|zugestellt|verz\u00f6ger\w*|retard\w*|retras\w*|atras\w*|ritardo|vertraagd)\b",
    re.IGNORECASE,
)
# A subject that says behind its colon what happened, and nothing of the original's.
_NOTIFICATION = re.compile(r"[ \w]{0,40}\bnotification:\s*(?=delivery )", re.IGNORECASE)
_SUCCESS = re.compile(
    r"\b(?:successful(?:ly)?|"
    r"(?:was|were|been|is) (?:(?:now|already) )?(?:delivered|relayed|expanded|displayed|read|completed?)|"
    r"(?:delivery|return|read) (?:receipt|confirmation)|"
    r"erfolgreich|wurden?(?: (?!nicht\b|kein|noch\b)\S+){0,12}? (?:zugestellt|ausgeliefert|gelesen)|zugestellt worden|"
    r"avec succ\u00e8s|(?:a|ont) (?:bien )?\u00e9t\u00e9 (?:bien )?(?:remis|livr\u00e9|distribu\u00e9|lu)e?s?|"
    r"con \u00e9xito|(?<!no )(?:(?:ha|han) sido (?:entregad|le\u00edd)[oa]s?|(?:ha|han) entregado)|"
    r"(?<!no )fue(?:ron)? entregad[oa]s?|"
    r"con successo|(?<!non )\u00e8 stato (?:consegnato|recapitato|letto)|"
    r"com (?:\u00eaxito|sucesso)|(?:foi|foram) entregues?|met succes|is (?:afgeleverd|bezorgd))\b",
    re.IGNORECASE,
)
_DELAY = re.compile(
    r"(?:\b(?:delay(?:ed|s)?|not yet (?:been )?(?:delivered|sent)|taking longer|"
    r"(?:will|shall) (?:continue|keep|be|try|retry|attempt)[ \w]{0,20}\b(?:try|trying|tried|retry|retried|attempt\w*)|"
    r"will (?:retry|try again)|attempts will (?:continue|be made)|"
    r"still (?:in (?:the|our) queue|being (?:tried|retried)|(?:be )?(?:trying|tried|retried|queued|undelivered))|"
    r"not need to re-?send|no (?:further |other )?action (?:is|on)|(?:only )?a warning)\b|"
    r"(?:\bnot|n['\u2019]t) (?:been |be )?(?:delivered|sent) (?:\w+ )?yet\b|"
    r"verz\u00f6ger|noch nicht zugestellt|retard\u00e9|retrasad|atrasad|in ritardo|vertraagd)",
    re.IGNORECASE,
)
_NEGATED = re.compile(  # in the same clause
    r"(?:\b(?:not|never|un|cannot|no (?:longer|further|more)|without|nor|neither|fail(?:ed|ure)?|unable|"
    r"nicht|kein\w*|pas|no (?:fue|ha|se|pud\w+|puede)|non (?:\u00e8|ha|pu\u00f2)|n\u00e3o|niet)\b|"
    r"n['\u2019]t\b)[^.!?;\n]*$",
    re.IGNORECASE,
)
_GAVE_UP = re.compile(
    r"\b(?:giv(?:e|en|ing) up|gave up|is (?:a |the )?(?:permanent|final|fatal)|(?:has|have) failed|expired|"
    r"will not (?:be )?(?:try|tried|retr))",
    re.IGNORECASE,
)
# A field of the original; one whose name has a hyphen with its continuation lines.
_QUOTED_FIELD = re.compile(
    r"^[> \t]*(?:(?:subject|from|to|cc|date|received):.*|[a-z0-9]+(?:-[a-z0-9]+)+:.*(?:\n[ \t]+\S.*)*)$",
    re.IGNORECASE | re.MULTILINE,
)
_COPY = re.compile(r"^[ \t]*---[^\n]*?(?:copy|below|original|header)[^\n]*", re.IGNORECASE | re.MULTILINE)
MAX_CLAIM = 16384  # characters in which a claim is looked for
MAX_CLAIMS = 50  # that are looked at


def read_prose(report: Report, message: bytes, most: int = MAX_PROSE) -> str | None:
    """The text for people with LF as line end, HTML as text; None where there is none.

    message: what was scanned. most: octets of it, as encoded in the message, that are read.
    """
    found = report.prose(message, most)
    if found is None:
        return None
    octets, charset, is_html, _, _ = found
    text = _LINE_ENDS.sub("\n", decoded(octets, charset))
    return html_text(text) if is_html else text


def decoded(octets: bytes, charset: str) -> str:
    """Octets as text: in their charset; in UTF-8 if they are that, not what they are labelled as; else in Latin-1."""
    text = _in_charset(octets, charset)
    if text and ("\ufffd" not in text or octets.isascii()):
        return text
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return text or (octets.decode("latin-1") if charset else octets.decode(errors="replace"))


def _in_charset(octets: bytes, charset: str) -> str:
    """With U+FFFD for what does not fit; "" for a charset that no mail has."""
    if not charset.isascii() or charset.lower().replace("-", "_") in _NO_CHARSETS:
        return ""
    try:
        text = octets.decode(charset, "replace")
    except (LookupError, ValueError, UnicodeError):
        return ""
    return text if isinstance(text, str) and not _SURROGATE.search(text) else ""


def html_text(text: str) -> str:
    """What a browser would show, roughly: no tags, a line end for each block."""
    shown = []
    at = 0
    while (opening := text.find("<", at)) >= 0:
        shown.append(text[at:opening])
        name = _TAG_NAME.match(text, opening + 1)
        tag = name[0].lower() if name else ""
        end = "-->" if text.startswith("<!--", opening) else f"</{tag}" if tag in _UNSEEN else ">"
        closing = text.find(end, opening + 1)
        closing = text.find(">", closing) if closing >= 0 else -1
        if closing < 0:
            at = len(text)
            break
        at = closing + 1
        shown.append("\n" if tag in _BREAKS else "")
    return html.unescape("".join([*shown, text[at:]]))


def excerpt(report: Report, message: bytes) -> str | None:
    """The first MAX_EXCERPT octets of the text for people, blanks and empty lines pressed together; None for none."""
    text = read_prose(report, message)
    if text is None:
        return None
    lines = (_BLANKS.sub(" ", line).strip() for line in text.strip()[: MAX_EXCERPT * 16].split("\n"))
    short = "\n".join(filter(None, lines)).encode("utf-8", "replace")[:MAX_EXCERPT].decode("utf-8", "ignore")
    return short or None


def split_at_copy(text: str) -> tuple[str, str]:
    """(what is said, the copy of the original behind it): they are divided by a line of dashes that says so."""
    line = _COPY.search(text)
    return (text[: line.start()], text[line.end() :].lstrip("\n")) if line else (text, "")


def claims_no_failure(subject: str, text: str) -> bool:
    """Whether a notification says that a message was delivered, or is only delayed.

    subject: of the notification; what stands behind a colon in it is the original's.
    """
    subject = decoded_words(subject)
    own = _NOTIFICATION.match(subject)
    if _says(_KIND, subject[own.end() :] if own else subject.partition(":")[0]):
        return True
    words = _QUOTED_FIELD.sub("", split_at_copy(text[:MAX_CLAIM])[0])
    return _says(_SUCCESS, words) or (_says(_DELAY, words) and not _GAVE_UP.search(words))


def _says(what: re.Pattern[str], text: str) -> bool:
    """Whether it says so somewhere, and not that it is not so."""
    for match in islice(what.finditer(text), MAX_CLAIMS):
        if not _NEGATED.search(text[max(0, match.start() - 200) : match.start()]):
            return True
    return False
