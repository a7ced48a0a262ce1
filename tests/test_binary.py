"""BINARYMIME (RFC 3030): a content that is no lines reaches those who take it octet by octet, and nobody else."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway._fastpath import Content, Framer, content_of
from gateway.mail.message import Message
from gateway.smtp.address import NULL_SENDER
from gateway.smtp.capabilities import BINARY, CHUNKS, announced
from tests.fleets import Fleets, gateway_before
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import CHUNKING, ehlo

OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\0", b"x", b"\xe4", b"y" * 40])).map(
    b"".join
)
FIELD = b"X-Added: yes\r\n"


def received(text: bytes, cuts: list[int]) -> Content:
    framer = Framer(1000)
    framer.start_content(10_000, 5, strict=True, in_chunks=True, binary=True)
    for cut in [*cuts, len(text)]:
        chunk, text = text[:cut], text[cut:]
        framer.start_chunk(len(chunk))
        framer.feed(chunk)
        assert framer.next_chunk()
        framer.so_far()
    return framer.end_chunks()


def plain(content: Content) -> bytes:
    return b"".join(content.plain_pieces())


@given(OCTETS, st.lists(st.integers(0, 30)))
@example(b"a\r\n.\r\nb", [3, 1, 1])
@example(b"", [])
@example(b"\r\n", [1])
@example(b"\r", [])
def test_it_is_what_came_on_every_way(text: bytes, cuts: list[int]):
    content = received(text, cuts)
    assert (plain(content), content.size, content.binary) == (text, len(text), True)
    assert not (content.unsafe or content.bare_cr or content.bare_lf or content.long_line)
    message = Message("0", NULL_SENDER, [], content, fix_line_endings=True)
    message.prepend(FIELD)
    wire = message.wire()
    assert (plain(wire), wire.size, message.data()) == (FIELD + text, len(FIELD + text), FIELD + text)
    kept = content_of(wire.joined())  # in a spool
    kept.mark_binary(wire.open_end)
    assert (plain(kept), kept.size) == (FIELD + text, len(FIELD + text))
    message.set_data(b"X: y\r\n\r\n" + text)  # as a policy may
    assert (plain(message.content), message.content.size, message.content.binary) == (
        message.data(),
        8 + len(text),
        True,
    )
    assert message.data() == b"X: y\r\n\r\n" + text


def test_who_takes_it_takes_chunks():
    assert announced({"BINARYMIME": "", "CHUNKING": ""}, verified=False).capabilities == BINARY | CHUNKS
    assert announced({"BINARYMIME": ""}, verified=False).capabilities == 0
    assert announced({"BINARYMIME": "", "CHUNKING": ""}, lmtp=True, verified=False).capabilities == CHUNKS


TAKES = ehlo(*CHUNKING, "BINARYMIME")
NO = b"550 5.1.1 no such mailbox\r\n"
POLICY = (
    INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/8' }")
    + """
kumo.define_spool { name = 'data', path = LOGS .. '-spool', min_free_space = 0, min_free_inodes = 0 }
kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  if domain ~= 'more.example' then return end
  table.insert(extensions, 'BINARYMIME')
  return extensions
end)
kumo.on('smtp_server_message_received', function(msg)
  msg:remove_all_named_headers 'X-Remove'
end)
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  if name == 'stored' then return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } } end
  local members = { FLEETS[name] }
  if name == 'mixed' then members = { FLEETS.lacks, FLEETS.takes } end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = members } }, retry_interval = '1 second' }
end)
"""
)
HEADER = b"Subject: x\r\nX-Remove: this\r\n\r\n"
BODY = b"\0\n.\n\r.\r\n.\r\n..\r\n\xff\r" + b"long" * 1000
LARGE = bytes(range(256)) * 5000  # a file's


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    running.add("takes", {"EHLO": TAKES, "RCPT <no@takes.example>": NO})
    running.add("slowly", {"EHLO": TAKES.replace(b"PIPELINING", b"X-NONE")})
    running.add("lacks", {"EHLO": ehlo(*CHUNKING)})
    running.add("waits", {"EHLO": TAKES, "BDAT": [b"451 4.3.0 later\r\n", b"250 2.0.0 now\r\n"]})
    running.add("refuses", {"EHLO": TAKES, "BDAT": b"554 5.6.0 not this\r\n"})
    running.add("cannot", {"EHLO": TAKES, "BDAT": b"502 5.5.1 what?\r\n"})
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One that offers it of its own accord first, as long as all that it knows take it."""
    with gateway_before(fleets, tmp_path_factory.mktemp("binary"), POLICY) as running:
        assert not offers(running)
        assert send(running, "x@takes.example", body="")[0] == 250
        wait_until(lambda: offers(running), "offered")
        assert send(running, "x@lacks.example", body="")[0] == 250
        wait_until(lambda: not offers(running), "withdrawn")
        yield running


def offers(gateway: Gateway) -> bool:
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.ehlo()
        return client.has_extn("binarymime")


def send(
    gateway: Gateway,
    to: str,
    content: bytes = HEADER + BODY,
    sender: str = "ann@senders.example",
    body: str = "BODY=binarymime",
) -> tuple[int, bytes]:
    """In chunks. Returns what was said to the last one."""
    with smtplib.SMTP(*gateway.address, "more.example", 30) as client:
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{sender}> {body}")[0] == 250
        for each in to.split():
            assert client.docmd(f"RCPT TO:<{each}>")[0] == 250
        if not body:
            return client.data(b"x")
        first, rest = content[:40], content[40:]
        client.send(b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (len(first), first, len(rest), rest))
        assert client.getreply()[0] == 250
        return client.getreply()


def sent(fleets: Fleets, name: str, sender: str) -> list[bytes]:
    """What a member has taken from a sender, without what the gateway has put in front."""
    return [mail.content[mail.content.index(b"Subject:") :] for mail in fleets.mails(name) if mail.sender == sender]


ARRIVED = HEADER.replace(b"X-Remove: this\r\n", b"") + BODY


@pytest.mark.parametrize("name", ["takes", "slowly", "mixed"])
def test_it_arrives_octet_by_octet(fleets: Fleets, gateway: Gateway, name: str):
    sender = f"{name}.a@senders.example"
    assert send(gateway, f"a@{name}.example b@{name}.example", sender=sender)[0] == 250
    member = "takes" if name == "mixed" else name
    assert sent(fleets, member, sender) == [ARRIVED]

    async def asked() -> list[str]:
        return [each for each in fleets.upstreams[member].commands if f"<{sender}>" in each]

    assert [each.partition(" BODY=")[2] for each in fleets._run(asked())] == ["BINARYMIME"]


def test_a_large_one_does_too(fleets: Fleets, gateway: Gateway):
    content = b"Subject: x\r\n\r\n" + LARGE
    assert send(gateway, "a@takes.example", content, "large@senders.example")[0] == 250
    assert sent(fleets, "takes", "large@senders.example") == [content]


def test_it_is_refused_for_who_is_refused(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "no@takes.example", sender="no@senders.example")[0] == 550
    assert send(gateway, "no@takes.example yes@takes.example", sender="one@senders.example")[0] == 250
    assert sent(fleets, "takes", "one@senders.example") == [ARRIVED]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lacks", (554, b"5.6.3 The next hop does not take binary content")),
        ("refuses", (554, b"5.6.0 not this")),
        ("cannot", (502, b"5.5.1 what?")),
    ],
)
def test_where_it_cannot_go_it_comes_back(fleets: Fleets, gateway: Gateway, name: str, said: tuple[int, bytes]):
    code, text = send(gateway, f"a@{name}.example", sender=f"{name}@senders.example")
    assert (code, text[: len(said[1])]) == said
    assert not sent(fleets, name, f"{name}@senders.example")


def test_it_is_kept_in_the_spool(fleets: Fleets, gateway: Gateway):
    assert send(gateway, "a@waits.example", sender="kept@senders.example")[0] == 250
    wait_until(lambda: sent(fleets, "waits", "kept@senders.example"), "tried again")
    assert sent(fleets, "waits", "kept@senders.example") == [ARRIVED]


def test_a_maildir_has_it_as_it_is(gateway: Gateway, tmp_path: Path):
    assert send(gateway, "a@stored.example")[0] == 250
    (stored,) = [path.read_bytes() for path in (gateway.maildir / "new").iterdir()]
    assert stored.endswith(ARRIVED)


def test_data_is_no_way_for_it(gateway: Gateway):
    with smtplib.SMTP(*gateway.address, "more.example", 30) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@b.example> BODY=BINARYMIME")[0] == 250
        assert client.docmd("RCPT TO:<a@takes.example>")[0] == 250
        assert client.docmd("DATA") == (503, b"5.5.1 A binary content comes by BDAT")
        assert client.docmd("RSET")[0] == 250
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.ehlo()
        refusal = 555, b"5.5.4 Parameter BODY=BINARYMIME is not supported"
        assert client.docmd("MAIL FROM:<a@b.example> BODY=BINARYMIME") == refusal
