"""What a client asks for with parameters of MAIL and RCPT that concern more than one hop, and how it is passed on.

DSN: RET and ENVID, NOTIFY and ORCPT (RFC 3461, RFC 6533). MT-PRIORITY (RFC 6710). DELIVERBY: BY (RFC 2852).
REQUIRETLS (RFC 8689). BODY=BINARYMIME (RFC 3030). Octets in, values out; and parameters again, unchanged but for the
time that has passed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, NamedTuple

from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.capabilities import BINARY, DELIVER_BY, DSN, PRIORITY, REQUIRE_TLS

MOST_ENVID = 100  # characters, RFC 3461 §4.4
MOST_ORCPT = 500  # characters, RFC 3461 §4.2

# RFC 3461 §4: xtext. What it encodes is printable ASCII (§4.2, §4.4).
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/?^_`{|}~]+")
# RFC 6533 §3: utf-8-addr-xtext, and utf-8-addr-unitext, which is for SMTPUTF8
_UTF8_ADDRESS = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{(?:0[1-9A-F]|[1-9A-F][0-9A-F]{1,5})\})+")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_PRIORITY = re.compile(rb"0|-?[1-9]")  # RFC 6710: priority-value
_BY = re.compile(rb"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)  # RFC 2852 §4: by-value
_MOST_SECONDS = 999_999_999
_CONDITIONS = frozenset(("SUCCESS", "FAILURE", "DELAY"))


class RecipientRequests(NamedTuple):
    """What is asked for with a RCPT. notify: NOTIFY's value in upper case. orcpt: ORCPT's as it was given. None: it is
    not asked for.
    """

    notify: str | None = None
    orcpt: str | None = None

    def wants(self, condition: str) -> bool:
        """Whether the sender is to be told of SUCCESS, FAILURE or DELAY. RFC 3461 §4.1: of failures by default."""
        if self.notify is None:
            return condition == "FAILURE"
        return condition in self.notify.split(",")

    def original(self) -> str | None:
        """ORCPT as a field of a report has it: `rfc822; who@there.example` (RFC 3464 §2.3.1)."""
        if self.orcpt is None:
            return None
        kind, _, address = self.orcpt.partition(";")
        if kind.lower() == "utf-8":
            return f"{kind}; {_EMBEDDED.sub(_embedded, address)}"
        return f"{kind}; {decoded(address)}"


NOTHING = RecipientRequests()


class DeliverBy(NamedTuple):
    """RFC 2852 §4: within so many seconds, which may be over. returns: the message is to come back then, instead of a
    notification of delay. traced: who relays it, tells the sender.
    """

    seconds: int
    returns: bool
    traced: bool

    def __str__(self) -> str:
        return f"{self.seconds};{'R' if self.returns else 'N'}{'T' if self.traced else ''}"


class Requests:
    """What is asked for with a message. envid: ENVID's value as it was given. ret: RET's in upper case. recipients:
    what is asked for with each RCPT, by address; whoever is missing has none. priority: MT-PRIORITY's.
    require_tls: it may only travel by verified TLS, to who sees to that. binary: the content is no lines.

    by: BY's, from `since` on (unix time). late: the sender was told that its time is over.
    """

    def __init__(self, envid: str | None = None, ret: str | None = None) -> None:
        self.envid = envid
        self.ret = ret
        self.recipients: dict[str, RecipientRequests] = {}
        self.priority: int | None = None
        self.require_tls = False
        self.binary = False
        self.by: DeliverBy | None = None
        self.since = 0.0
        self.late = False

    def of(self, recipient: EnvelopeAddress) -> RecipientRequests:
        """What is asked for with this one."""
        return self.recipients.get(recipient.email, NOTHING)

    def about(self, recipients: Iterable[EnvelopeAddress], given: Sequence[EnvelopeAddress]) -> Requests:
        """The same for these. given: the recipients as the client named them; what it has asked for a single one, holds
        for whom the policy has put into its place.
        """
        found = copy(self)
        found.recipients = {}
        only = self.recipients.get(given[0].email) if len(given) == 1 else None
        for recipient in recipients:
            asked = self.recipients.get(recipient.email, only)
            if asked is not None:
                found.recipients[recipient.email] = asked
        return found

    def wanted(self) -> int:
        """What a server has to know for all of it to be passed on, as capabilities.py has it."""
        wanted = DSN if self.envid is not None or self.ret is not None or self.recipients else 0
        if self.priority is not None:
            wanted |= PRIORITY
        if self.require_tls:
            wanted |= REQUIRE_TLS
        if self.binary:
            wanted |= BINARY
        return wanted if self.by is None else wanted | DELIVER_BY

    def until(self) -> float:
        """When the time for the delivery is over, unix time; infinity where it has none."""
        return math.inf if self.by is None else self.since + self.by.seconds

    def returns_at(self) -> float:
        """The same, where the message is to come back then."""
        return self.until() if self.by is not None and self.by.returns else math.inf

    def is_too_late(self, now: float) -> bool:
        """Whether the sender has to be told that it takes longer. now: unix time."""
        return not self.late and now >= self.until() and self.returns_at() == math.inf

    def at(self, now: float) -> Requests:
        """The same as it has to be passed on now, unix time: with less time left (RFC 2852 §4)."""
        if self.by is None:
            return self
        found = copy(self)
        left = self.by.seconds - max(0, int(now - self.since))
        found.by = self.by._replace(seconds=max(left, -_MOST_SECONDS))
        found.since = now
        return found

    def of_notification(self) -> Requests | None:
        """What holds for what its sender is told, too (RFC 6710, RFC 8689 §5)."""
        if self.priority is None and not self.require_tls:
            return None
        found = Requests()
        found.priority, found.require_tls = self.priority, self.require_tls
        return found

    def mail_parameters(self, capabilities: int) -> str:
        """What is passed on with MAIL. capabilities: of the server."""
        found = []
        if self.ret is not None and capabilities & DSN:
            found.append(" RET=HDRS" if self.require_tls else f" RET={self.ret}")  # RFC 8689 §5
        if self.envid is not None and capabilities & DSN:
            found.append(f" ENVID={self.envid}")
        if self.priority is not None and capabilities & PRIORITY:
            found.append(f" MT-PRIORITY={self.priority}")
        if self.by is not None and capabilities & DELIVER_BY:
            found.append(f" BY={self.by}")
        if self.require_tls and capabilities & REQUIRE_TLS:
            found.append(" REQUIRETLS")
        return "".join(found)

    def rcpt_parameters(self, recipient: EnvelopeAddress, capabilities: int) -> str:
        """What is passed on with RCPT."""
        if not capabilities & DSN:
            return ""
        asked = self.of(recipient)
        notify = "" if asked.notify is None else f" NOTIFY={asked.notify}"
        if asked.orcpt is None:
            return notify
        # RFC 6533 §3: in this form to any server, whether it takes UTF-8 or not
        return f"{notify} ORCPT={_NOT_ASCII.sub(_embedding, asked.orcpt)}"

    def as_values(self) -> dict[str, Any]:
        """As JSON has it."""
        recipients = {email: asked._asdict() for email, asked in self.recipients.items()}
        found: dict[str, Any] = {"envid": self.envid, "ret": self.ret, "recipients": recipients}
        if self.priority is not None:
            found["priority"] = self.priority
        if self.require_tls:
            found["require_tls"] = True
        if self.binary:
            found["binary"] = True
        if self.by is not None:
            found |= {"by": self.by._asdict(), "since": self.since, "late": self.late}
        return found


def from_values(values: dict[str, Any] | None) -> Requests | None:
    """What as_values() was made of; None of None."""
    if values is None:
        return None
    found = Requests(values["envid"], values["ret"])
    found.recipients = {email: RecipientRequests(**asked) for email, asked in values["recipients"].items()}
    found.priority = values.get("priority")
    found.require_tls = values.get("require_tls", False)
    found.binary = values.get("binary", False)
    if "by" in values:
        found.by, found.since, found.late = DeliverBy(**values["by"]), values["since"], values["late"]
    return found


def decoded(xtext: str) -> str:
    """What it encodes."""
    return _HEXCHAR.sub(lambda code: chr(int(code[1], 16)), xtext)


def read_envid(value: bytes | None) -> str:
    """ENVID=, RFC 3461 §4.4. Raises ValueError."""
    return _xtext(value, MOST_ENVID)


def read_ret(value: bytes | None) -> str:
    """RET=, RFC 3461 §4.3. Raises ValueError."""
    ret = b"" if value is None else value.upper()
    if ret not in (b"FULL", b"HDRS"):
        raise ValueError
    return ret.decode()


def read_priority(value: bytes | None) -> int:
    """MT-PRIORITY=, RFC 6710. Raises ValueError."""
    if value is None or not _PRIORITY.fullmatch(value):
        raise ValueError
    return int(value)


def read_by(value: bytes | None) -> DeliverBy:
    """BY=, RFC 2852 §4: what is to come back has time. Raises ValueError."""
    found = None if value is None else _BY.fullmatch(value)
    if found is None:
        raise ValueError
    by = DeliverBy(int(found[1]), found[2] in b"rR", bool(found[3]))
    if by.returns and by.seconds <= 0:
        raise ValueError
    return by


def read_notify(value: bytes | None) -> str:
    """NOTIFY=, RFC 3461 §4.1: NEVER stands alone. Raises ValueError."""
    notify = "" if value is None else value.decode("ascii").upper()
    if notify != "NEVER" and not _CONDITIONS.issuperset(notify.split(",")):
        raise ValueError
    return notify


def read_orcpt(value: bytes | None, smtputf8: bool) -> str:
    """ORCPT=, RFC 3461 §4.2. smtputf8: the transaction has it, so that UTF-8 may come as it is. Raises ValueError."""
    text = "" if value is None else value.decode()
    kind, semicolon, address = text.partition(";")
    if not semicolon or len(text) > MOST_ORCPT or not _ADDRESS_TYPE.fullmatch(kind):
        raise ValueError
    if kind.lower() == "utf-8":
        if not _UTF8_ADDRESS.fullmatch(address) or not (smtputf8 or address.isascii()):
            raise ValueError
    elif not _XTEXT.fullmatch(address):
        raise ValueError
    return text


def _xtext(value: bytes | None, most: int) -> str:
    text = "" if value is None else value.decode("ascii")
    if len(text) > most or not _XTEXT.fullmatch(text):
        raise ValueError
    return text


def _embedding(letter: re.Match[str]) -> str:
    return f"\\x{{{ord(letter[0]):X}}}"


def _embedded(found: re.Match[str]) -> str:
    """A character, unless a field could not have it: then it stays encoded."""
    code = int(found[1], 16)
    shown = chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else ""
    return shown if shown.isprintable() and shown else found[0]
