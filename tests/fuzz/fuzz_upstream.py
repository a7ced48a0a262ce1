"""What a member of the fleet answers: no octets make the client's side fail, a message counts as taken only where all
of it was answered for, and how replies are cut into portions makes no difference to them.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway._fastpath import content_of
from gateway.config import EgressPath, UpstreamTls
from gateway.couriers.fleet import outcome
from gateway.handover import Status
from gateway.smtp.address import parse_address
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import ClientState, Event
from gateway.smtp.exchange import Exchange
from gateway.smtp.response import MAX_REPLY, ReplyReader
from tests.fuzz.fuzz_arrival import portions

CONTENT = content_of(b"Subject: x\r\n\r\nhello\r\n")
RECIPIENTS = [parse_address("b@y.example"), parse_address("c@y.example")]
WORDS = (
    *(b"220 hi\r\n", b"250 ok\r\n", b"250 2.1.0 ok\r\n", b"250 2.1.5 ok\r\n", b"250 2.0.0 queued\r\n", b"354 go\r\n"),
    *(
        b"250-up\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n",
        b"250-up\r\n250 8BITMIME\r\n",
        b"250 up\r\n",
    ),
    *(b"421 4.3.2 bye\r\n", b"450 4.2.1 later\r\n", b"452 4.5.3 too many\r\n", b"550 5.1.1 no\r\n", b"500 what?\r\n"),
    *(b"503 no\r\n", b"250-", b"250 ", b"\r\n", b"\n", b"25", b"2.1.5", b"x", b"250 SIZE 9999999999999999999999\r\n"),
)


def answers_in(octets: bytes, cuts: Iterable[int]) -> tuple[list[tuple[int, bytes]], bool]:
    """The replies in it, and whether something else came first."""
    reader, found = ReplyReader(), []
    for part in portions(octets, cuts):
        if reader.malformed is None:
            found += reader.read(part)
            assert len(reader.pending) <= MAX_REPLY + len(part)
    return found, reader.malformed is not None


def converse(octets: bytes, cuts: Iterable[int], chunking: bool, recipients: int) -> None:
    """Two messages, one after the other, over a connection whose other end says these octets."""
    session = ClientSession(EgressPath(enable_tls=UpstreamTls.DISABLED, enable_chunking=chunking), "gw.example")
    exchanges: list[Exchange] = []
    said = b""
    for part in portions(octets, cuts):
        was_closed = session.state is ClientState.CLOSED
        event = session.receive_data(part)
        output = b"".join(session.data_to_send())
        said += output
        assert not (was_closed and (event or output))
        if event is Event.FAILED:
            assert session.failure is not None
            assert not output
        if session.state is ClientState.READY and len(exchanges) < 2:
            exchanges.append(Exchange(parse_address("a@x.example"), RECIPIENTS[:recipients], CONTENT))
            session.begin(exchanges[-1])
            said += b"".join(session.data_to_send())
    assert said.count(b"hello") <= len(exchanges)
    for exchange in exchanges:
        judge(exchange)


def judge(exchange: Exchange) -> None:
    """Nobody is told of a success without an answer to all of it."""
    if exchange.taken():
        codes = [answer[0] for answer in (exchange.mail, *exchange.rcpts, exchange.verdict) if answer is not None]
        assert exchange.mail is not None
        assert exchange.mail[0] // 100 == 2
        assert exchange.accepted
        assert len(codes) == 2 + len(exchange.recipients)
        assert exchange.chunked or (exchange.data is not None and exchange.data[0] // 100 == 3)
    for settled in (*outcome.unknown(exchange), *(outcome.concluded(exchange) if exchange.verdict else ())):
        if settled is not None and settled.status is Status.DELIVERED:
            assert exchange.taken()


def one_input(data: memoryview) -> None:
    """The first octet chooses the member and the message, two where the rest is cut; then octets below 128 stand for
    words, the others for themselves."""
    octets = bytes(data)
    if len(octets) < 4:
        return
    said = b"".join(WORDS[octet % len(WORDS)] if octet < 128 else bytes((octet - 128,)) for octet in octets[3:])
    cuts = [octets[1] * 3 % len(said), octets[2] * 7 % len(said)]
    whole = answers_in(said, ())
    assert answers_in(said, cuts) == whole or whole[1]
    assert answers_in(said, range(len(said))) == whole or whole[1]
    if octets[0] & 4:
        said = WORDS[0] + WORDS[6] + said
    for where in (cuts, range(len(said)), _line_ends(said)):
        converse(said, where, bool(octets[0] & 1), 1 + (octets[0] >> 1 & 1))


def _line_ends(octets: bytes) -> list[int]:
    return [place + 1 for place, octet in enumerate(octets) if octet == 0x0A]
