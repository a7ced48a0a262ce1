"""What a client says before it is known: no octets make its readers fail otherwise than they say, and how the octets
are cut into portions makes no difference.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Callable, Iterable
from random import Random

from gateway.config import ListenerParams
from gateway.inbound.welcome import introduced
from gateway.net.endpoints import Endpoints
from gateway.net.proxy_protocol import SIGNATURE, HeaderReader, NoHeader
from gateway.smtp.commands import Refused, parse_mail, parse_rcpt
from gateway.smtp.events import AuthRequested, Observer
from gateway.smtp.replies import AUTH_FAILED, RESET_OK
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from gateway.smtp.xclient import parse_xclient


def portions(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The octets, cut at these places."""
    places = [0, *sorted(cuts), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(places) if start < end]


def outcome_of_proxy(octets: bytes, cuts: Iterable[int]) -> object:
    """What a reader of PROXY headers makes of it: the ends and what else was told, the rest; or what is wrong."""
    reader = HeaderReader()
    parts = portions(octets, cuts)
    for number, part in enumerate(parts, 1):
        try:
            header = reader.feed(part)
        except NoHeader as error:
            return error.fault
        if header is not None:
            return header._replace(rest=header.rest + b"".join(parts[number:]))
    return "incomplete"


def header_in(octets: bytes) -> bytes:
    """A header of version 2 that is well-formed as far as its length goes."""
    return SIGNATURE + b"\x21\x11" + len(octets).to_bytes(2, "big") + octets


def check_proxy(octets: bytes, cuts: list[int]) -> None:
    for each in (octets, b"PROXY " + octets, header_in(octets)):
        assert outcome_of_proxy(each, cuts) == outcome_of_proxy(each, range(len(each)))


def check_xclient(octets: bytes, cuts: list[int]) -> None:
    """Attributes are read or refused."""
    names = ("ADDR", "PORT", "NAME", "HELO", "PROTO", "LOGIN", "DESTADDR", "DESTPORT")
    one = names[cuts[0] % len(names)].encode() + b"="
    for argument in (octets, one + octets, one + b"IPV6:" + octets):
        try:
            found = parse_xclient(argument)
        except Refused:
            continue
        for port in (found.client_port, found.server_port):
            assert port is None or 0 <= port <= 65535
        ends = introduced(found, Endpoints(("192.0.2.1", 1), ("192.0.2.2", 25)))
        assert len(ends.peer) in (0, 4, 16)


def check_address(octets: bytes, cuts: list[int]) -> None:
    """Paths are read or refused, with every parameter behind them; what is read can be written and read again."""
    for path in (octets, b"<" + octets + b">", b"<" + octets + b"@x.example> SIZE=1"):
        with contextlib.suppress(Refused):
            sender = parse_mail(b"FROM:" + path, True).sender
            assert parse_mail(b"FROM:<" + sender.email.encode() + b"> SMTPUTF8").sender.email == sender.email
        with contextlib.suppress(Refused):
            parse_rcpt(b"TO:" + path, bool(cuts[0] % 2))


def check_auth(octets: bytes, cuts: list[int]) -> None:
    """An exchange ends with a claim or a refusal, however its lines are cut; nobody who looks on sees a response."""
    lines = [base64.b64encode(part) if cuts[0] % 2 else part for part in octets.split(b"\n")]
    first = (b"AUTH PLAIN ", b"AUTH LOGIN ", b"AUTH EXTERNAL ", b"AUTH ")[cuts[-1] % 4]
    said = b"EHLO x\r\n" + first + b"\r\n".join(lines) + b"\r\n"
    assert _auth_replies(said, cuts) == _auth_replies(said, range(len(said)))


def _auth_replies(said: bytes, cuts: Iterable[int]) -> bytes:
    session = ServerSession(Terms(ListenerParams(hostname="gw.example"), offer_auth=True), Observer())
    session.tls_started()
    session.identities = ("mx.example",)
    for part in portions(said, cuts):
        session.receive_data(part)
        while (event := session.next_event()) is not None:
            session.reply(AUTH_FAILED if isinstance(event, AuthRequested) else RESET_OK)
    return session.data_to_send()


CHECKS = (check_proxy, check_xclient, check_address, check_auth)


def seeded(check: Callable[[bytes, list[int]], None], seed: int) -> None:
    """One run of a check, on octets that are always the same for a seed, and mean something now and then."""
    random = Random(seed)
    words = [b" ", b"\0", b"\r\n", *b"192.0.2.7 ::1 [UNAVAILABLE] 25 TCP4 ADDR + 2E @ < > =".split(b" ")]
    octets = b"".join(
        random.choice([random.choice(words), random.randbytes(2)]) for _ in range(random.randrange(1, 12))
    )
    check(octets, sorted(random.randrange(len(octets) + 1) for _ in range(2)))


def one_input(data: memoryview) -> None:
    """The first octet chooses what is checked, the next two where the rest is cut."""
    octets = bytes(data)
    if len(octets) > 3:
        rest = octets[3:]
        CHECKS[octets[0] % len(CHECKS)](rest, [octets[1] % len(rest), octets[2] % len(rest)])
