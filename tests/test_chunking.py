"""BDAT: chunks become what DATA would have brought, whatever is in them and however they are split; at the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import _fastpath as fp
from gateway._fastpath import Content, Framer, stuff
from gateway.config import LineEndings
from gateway.inbound.connection import MOST_COMMANDS
from gateway.rates import Rate
from tests.fuzz import fuzz_session
from tests.inbound import Client, inbound, run
from tests.test_conduct import STRANGER, look_on

TAKES_ALL = """
kumo.on('smtp_server_message_received', function(message)
  message:set_meta('queue', 'null')
  kumo.log_info('MESSAGE ' .. message:get_data())
end)
"""
BEGIN = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@far.example>\r\n"
OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\0", b"x", b"\xe4", b"y" * 40])).map(
    b"".join
)


def seen(content: Content) -> tuple[Any, ...]:
    marks = (content.bare_cr, content.bare_lf, content.has_8bit, content.has_nul, content.stuffed, content.unsafe)
    return b"".join(content.pieces()), content.size, content.too_big, content.long_line, marks


def by_data(text: bytes, strict: bool) -> Content:
    framer = Framer(1000)
    framer.start_content(400, 60, strict)
    framer.feed(stuff(text) + b".\r\n")
    content = framer.next_content()
    assert content is not None
    return content


@given(OCTETS, st.lists(st.integers(0, 30)), st.lists(st.integers(1, 9)), st.booleans())
@example(b"a\r\n.\r\nb", [2, 1, 1], [1] * 20, False)
@example(b".\r\n", [], [], False)
@example(b"a\r\n..\r\n.", [1, 1, 1, 1, 1], [], False)
@example(b"", [], [], False)
def test_chunks_are_what_data_would_have_brought(text, cuts, portions, strict):
    framer = Framer(1000)
    framer.start_content(400, 60, strict, in_chunks=True)
    rest = text
    for cut in [*cuts, len(text)]:
        chunk, rest = rest[:cut], rest[cut:]
        framer.start_chunk(len(chunk))
        done = framer.next_chunk()
        for portion in [*portions, len(chunk)]:
            assert done == (not chunk)
            if not chunk:
                break
            framer.feed(chunk[:portion])
            chunk = chunk[portion:]
            done = framer.next_chunk()
        framer.feed(b"NOOP\r\n")
        assert (framer.next_verb(), framer.argument) == (fp.NOOP, b"")
        framer.so_far()
    assert seen(framer.end_chunks()) == seen(by_data(text, strict))
    framer.feed(b"QUIT\r\n")
    assert (framer.next_verb(), framer.argument) == (fp.QUIT, b"")


async def say(client: Client, data: bytes, replies: int) -> list[bytes]:
    client.received.clear()
    client.send_now(data)

    def is_answered(received: bytes) -> bool:
        return received.endswith(b"\r\n") and sum(line[3:4] != b"-" for line in received.splitlines()) >= replies

    return [line for line in (await client.until(is_answered)).splitlines() if line[3:4] != b"-"]


def codes(lines: list[bytes]) -> list[bytes]:
    return [line[:9] for line in lines]


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"BDAT 7 LAST\r\nhello\r\n", [b"250 2.0.0"]),
        (b"bdat 7 last\r\nhello\r\n", [b"250 2.0.0"]),
        (b"BDAT 5\r\nhelloBDAT 2 LAST\r\n\r\n", [b"250 2.0.0"] * 2),
        (b"BDAT 5\r\nhelloBDAT 0 LAST\r\n", [b"250 2.0.0"] * 2),
        (b"BDAT 0 LAST\r\n", [b"250 2.0.0"]),
        (b"BDAT 0\r\nBDAT 3 LAST\r\nabc", [b"250 2.0.0"] * 2),
        (b"BDAT 3\r\nabcNOOP\r\nBDAT 0 LAST\r\nNOOP\r\n", [b"250 2.0.0"] * 4),
        # a message in it stays one
        (b"BDAT 22 LAST\r\n\r\n.\r\nMAIL FROM:<x@y>\r\n", [b"250 2.0.0"]),
        # nothing of the transaction in between
        (b"BDAT 3\r\nabcDATA\r\nBDAT 0 LAST\r\n", [b"250 2.0.0", b"503 5.5.1", b"250 2.0.0"]),
        (b"BDAT 3\r\nabcRCPT TO:<d@e>\r\nBDAT 0 LAST\r\n", [b"250 2.0.0", b"503 5.5.1", b"250 2.0.0"]),
        (b"BDAT 3\r\nabcMAIL FROM:<d@e>\r\nRSET\r\n", [b"250 2.0.0", b"503 5.5.1", b"250 2.0.0"]),
        # RSET forgets the chunks
        (b"BDAT 3\r\nabcRSET\r\nBDAT 3 LAST\r\nabc", [b"250 2.0.0", b"250 2.0.0", b"503 5.5.1"]),
        (b"BDAT 3\r\nabcEHLO x\r\nBDAT 0 LAST\r\n", [b"250 2.0.0", b"250 START", b"503 5.5.1"]),
        # the octets of a chunk are no commands, wanted or not
        (b"RSET\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n", [b"250 2.0.0", b"503 5.5.1", b"250 2.0.0"]),
        (b"RSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", [b"250 2.0.0", b"503 5.5.1", b"250 2.0.0"]),
        (b"BDAT 4 LAST\r\nabc\n", [b"552 5.6.0"]),
        (b"BDAT 2\r\na\nBDAT 1 LAST\r\nbNOOP\r\n", [b"552 5.6.0", b"503 5.5.1", b"250 2.0.0"]),
        (b"BDAT 70\r\n" + b"x" * 70 + b"BDAT 3 LAST\r\nabc", [b"552 5.3.4", b"503 5.5.1"]),
    ],
)
@pytest.mark.parametrize("portion", [1, 1000])
def test_each_chunk_has_its_answer_and_its_octets_are_no_commands(said, answers, portion):
    async def main() -> None:
        async with inbound(TAKES_ALL, max_message_size=60) as service:
            client, other = await service.greeted(), await service.greeted()
            await say(client, BEGIN, 3)
            client.received.clear()
            for start in range(0, len(said), portion):
                client.send_now(said[start : start + portion])
                if portion == 1:
                    await say(other, b"NOOP\r\n", 1)
            found = await say(client, b"", len(answers))
            assert [line[: len(answer)] for line, answer in zip(found, answers, strict=True)] == answers

    run(main())


@pytest.mark.parametrize(
    "argument", [b"", b"x", b"-1", b"5 LAST LAST", b"5 FIRST", b"1e3", b"0x10", b"9" * 30, b"5\tLASTX"]
)
def test_where_nobody_knows_how_long_a_chunk_is_the_session_ends(argument):
    async def main() -> None:
        async with inbound(TAKES_ALL) as service:
            client = await service.greeted()
            await say(client, BEGIN, 3)
            client.received.clear()
            client.send_now(b"BDAT " + argument + b"\r\nRSET\r\nMAIL FROM:<x@y>\r\n")
            assert (await client.to_end()).splitlines()[0].startswith(b"501 5.5.4 BDAT needs")
            assert client.received.count(b"\r\n") == 1

    run(main())


def test_a_message_in_chunks_is_counted_as_one_and_refused_as_one():
    async def main() -> None:
        async with inbound(TAKES_ALL, max_message_size=60) as service:
            client = await service.greeted()
            await say(client, BEGIN + b"BDAT 3\r\nabcBDAT 3 LAST\r\nabc", 5)
            await say(client, BEGIN + b"BDAT 3\r\nabcBDAT 3 LAST\r\nab\n", 5)
            assert service.metric("messages_total", disposition="discarded") == 1
            assert service.metric("messages_total", disposition="refused") == 1
            assert service.metric("commands_total", verb="BDAT", reply="2xx") == 2
            assert service.metric("rejections_total", stage="data", reason="line_endings") == 1

    run(main())


@pytest.mark.parametrize("mode", [LineEndings.ALLOW, LineEndings.FIX])
def test_a_chunk_that_never_comes_is_no_reason_to_wait_for_ever(mode):
    async def main() -> None:
        limits: dict[str, Any] = {"minimum_data_rate": Rate.read("100/s"), "invalid_line_endings": mode}
        async with inbound(TAKES_ALL, **limits, **STRANGER) as service:
            clients = [await service.greeted() for _ in range(2)]
            for client, said in zip(clients, (b"RSET\r\n", b""), strict=True):
                client.send_now(b"EHLO x\r\nMAIL FROM:<a@b>\r\n" + said + b"BDAT 1000000 LAST\r\nx")
                await client.until(lambda data: b"2.1.0" in data)
            for second in range(12):
                look_on(service, second)
            for client in clients:
                assert (await client.to_end()).endswith(b"421 4.4.2 gw.example the message comes too slowly\r\n")

    run(main())


def test_endless_empty_chunks_are_idle_commands():
    async def main() -> None:
        async with inbound(TAKES_ALL.replace("kumo.on", "kumo.on", 1), **STRANGER) as service:
            client = await service.greeted()
            client.send_now(b"EHLO x\r\n" + b"BDAT 0\r\n" * 200)
            answer = await client.to_end()
            assert b"421 4.7.0" in answer
            assert answer.count(b"\r\n") < 150 + MOST_COMMANDS

    run(main())


@given(st.binary(min_size=4, max_size=60))
@example(bytes([2, 9, 3, *range(22)]))
@example(bytes([4, 1, 3, 13, 10, 46, 13, 10]))
@example(bytes([5, 0, 0, 46, 10, 0, 255, 13]))
@example(bytes([3, 50, 7, 7, 6, 128 + 46, 7, 8, 4, 13, 5]))
def test_no_session_fails_or_depends_on_how_it_is_cut(data):
    fuzz_session.one_input(memoryview(data))
