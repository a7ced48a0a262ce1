"""What a client may do amiss in one session, and what it gets for more; how long it may take; at real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from gateway import _fastpath as fp
from gateway.config import Limits, ListenerParams
from gateway.inbound import connection
from gateway.inbound.pace import WINDOW, Pace
from gateway.net.streams import MOST_DROPPED, Poller
from gateway.rates import Rate
from gateway.smtp.conduct import LONGEST_DELAY, STRAYS, UNLIMITED, Conduct, SessionLimits, session_limits
from gateway.smtp.replies import RCPT_OK, Reason, make
from tests.inbound import Client, Inbound, inbound, run

STRANGER: dict[str, Any] = {"relay_hosts": fp.CidrSet()}
TAKES_ALL = """
kumo.on('get_listener_domain', function(domain)
  if domain == 'far.example' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_message_received', function(message) message:set_meta('queue', 'null') end)
"""
MESSAGE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@far.example>\r\nDATA\r\n"


class Hasty(Poller):
    """Whose loop lets no timer wait, and notes for how long each should have."""

    delays: ClassVar[list[float]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        Hasty.delays.append(delay)
        self.loop.call_soon(callback)


@pytest.fixture(autouse=True)
def _no_delays_yet() -> None:
    Hasty.delays.clear()


async def say(client: Client, line: bytes) -> bytes:
    client.received.clear()
    client.send_now(line)
    return await client.until(lambda data: data.endswith(b"\r\n"))


def limited(**limits: Any) -> dict[str, Any]:
    return {**STRANGER, "limits": Limits(**limits)}


def test_after_so_many_errors_a_client_is_answered_later_and_later_and_then_not_any_more():
    async def main() -> None:
        async with inbound(poller=Hasty, **limited(errors=6)) as service:
            client = await service.greeted()
            for _ in range(6):
                assert (await say(client, b"XYZZY\r\n")).startswith(b"500 5.5.1 ")
            assert Hasty.delays == [1, 2, 3]
            client.received.clear()
            client.send_now(b"XYZZY\r\nNOOP\r\n")
            assert await client.to_end() == b"421 4.7.0 gw.example too many errors\r\n"
            await service.until(lambda: not service.roster)
            assert service.metric("rejections_total", reason="too_many_errors", stage="command") == 1

    run(main())


@pytest.mark.parametrize(
    "amiss",
    [
        b"XYZZY\r\n",
        b"EHLO @\r\n",
        b"MAIL FROM:<a@b> X=1\r\n",
        b"MAIL FROM:<a..b@c>\r\n",
        b"AUTH\r\n",
        b"N" * 4000 + b"\r\n",
        b"EXPN list\r\n",
        b"\r\n",
    ],
)
def test_everything_that_no_client_sends_is_an_error(amiss):
    async def main() -> None:
        async with inbound(poller=Hasty, **limited(errors=2)) as service:
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            client.received.clear()
            client.send_now(amiss * 4)
            answer = await client.to_end()
            assert answer.count(b"\r\n") == 3
            assert b"\r\n421 4.7.0 gw.example too many errors\r\n" in answer

    run(main())


def test_a_message_that_is_taken_makes_up_for_errors():
    async def main() -> None:
        async with inbound(TAKES_ALL, poller=Hasty, **limited(errors=3)) as service:
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            for _ in range(4):
                for _ in range(3):
                    assert (await say(client, b"XYZZY\r\n")).startswith(b"500 ")
                client.received.clear()
                client.send_now(MESSAGE + b"\r\n.\r\n")
                assert b"\r\n250 2.0.0 OK" in await client.until(lambda data: data.count(b"\r\n") == 4)

    run(main())


def test_what_follows_a_refused_sender_in_one_write_is_no_error():
    async def main() -> None:
        policy = TAKES_ALL + "kumo.on('smtp_server_mail_from', function() kumo.reject(550, 'no') end)"
        async with inbound(policy, poller=Hasty, **limited(errors=2)) as service:
            client = await service.greeted()
            client.send_now(b"EHLO c.example\r\n" + MESSAGE * 5 + b"QUIT\r\n")
            assert b"\r\n221 2.0.0" in await client.to_end()
            assert Hasty.delays == []

    run(main())


def test_invalid_recipients_are_bounded_and_those_that_were_taken_are_not_lost():
    async def main() -> None:
        async with inbound(TAKES_ALL, poller=Hasty, **limited(invalid_recipients=3)) as service:
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            await say(client, b"MAIL FROM:<a@b.example>\r\n")
            for _ in range(3):
                assert (await say(client, b"RCPT TO:<x@nowhere.example>\r\n")).startswith(b"550 5.7.1")
            # nothing was taken yet: it may go
            client.received.clear()
            client.send_now(b"RCPT TO:<c@far.example>\r\n")
            assert (await client.to_end()) == b"421 4.7.0 gw.example too many invalid recipients\r\n"
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            await say(client, b"MAIL FROM:<a@b.example>\r\n")
            assert (await say(client, b"RCPT TO:<c@far.example>\r\n")).startswith(b"250 ")
            for _ in range(3):
                assert (await say(client, b"RCPT TO:<x@nowhere.example>\r\n")).startswith(b"550 5.7.1")
            assert (await say(client, b"RCPT TO:<c@far.example>\r\n")).startswith(b"452 4.7.0")
            await say(client, b"DATA\r\n")
            assert (await say(client, b"hello\r\n.\r\n")).startswith(b"250 2.0.0 OK")
            assert (await say(client, b"MAIL FROM:<a@b.example>\r\n")).startswith(b"250 ")

    run(main())


def test_commands_without_a_message_are_bounded_and_messages_are_not():
    async def main() -> None:
        async with inbound(TAKES_ALL, poller=Hasty, **limited(idle_commands=5)) as service:
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            for _ in range(10):
                client.received.clear()
                client.send_now(b"RSET\r\nNOOP\r\n" + MESSAGE + b"\r\n.\r\n")
                answer = await client.until(lambda data: data.count(b"\r\n") == 6)
                assert b"\r\n250 2.0.0 OK ids=" in answer
            client.received.clear()
            client.send_now(b"NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\nNOOP\r\n")
            answer = await client.to_end()
            assert answer.splitlines()[5:] == [b"421 4.7.0 gw.example too many commands without a message"]

    run(main())


def test_relay_hosts_may_do_what_they_want_unless_they_are_held_to_it():
    async def main() -> None:
        trusted = fp.CidrSet(("127.0.0.1",))
        for held in (False, True):
            limits = Limits(errors=2, idle_commands=2, trusted=held)
            async with inbound(poller=Hasty, relay_hosts=trusted, limits=limits) as service:
                client = await service.greeted()
                client.send_now(b"XYZZY\r\nNOOP\r\n" * 50 + b"QUIT\r\n")
                answer = await client.to_end()
                assert (answer.count(b"\r\n") == 101, b"421 4.7.0" in answer) == (not held, held)

    run(main())


def test_guesses_are_slowed_and_bounded():
    limits = session_limits(ListenerParams(hostname="gw.example"), trusted=False)
    assert limits is not None
    conduct = Conduct(limits, "gw.example")
    failed = make(535, "5.7.8 no", Reason.AUTH_FAILED)
    answers = [conduct.weigh(fp.AUTH, failed) for _ in range(6)]
    conduct.forgive()  # a message changes nothing about guesses
    answers.append(conduct.weigh(fp.AUTH, make(550, "no", Reason.POLICY_REJECT)))
    assert [delay for _, delay in answers] == [1, 2, 3, 4, 5, 6, 7]
    assert [reply.code for reply, _ in answers] == [535] * 5 + [421] * 2
    assert answers[-1][0].reason is Reason.TOO_MANY_AUTH_FAILURES


@pytest.mark.parametrize("stray", [b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b"BDAT 1\r\nx"])
def test_what_follows_no_sender_is_bounded_although_it_is_no_error(stray):
    async def main() -> None:
        async with inbound(**limited(idle_commands=2)) as service:
            client = await service.greeted()
            client.send_now(b"HELO x\r\n" + stray * 60)
            answer = await client.to_end()
            assert answer.endswith(b"421 4.7.0 gw.example too many commands without a message\r\n")
            assert answer.count(b"503 5.5.1") == 2 * STRAYS

    run(main())


def test_no_reply_is_held_back_for_longer_than_is_said():
    conduct = Conduct(SessionLimits(errors=100), "gw.example")
    unknown = make(500, "what", Reason.UNKNOWN_COMMAND)
    delays = [conduct.weigh(fp.UNKNOWN, unknown)[1] for _ in range(100)]
    assert delays == [0] * 50 + [*range(1, LONGEST_DELAY)] + [LONGEST_DELAY] * 41
    assert conduct.weigh(fp.RCPT, RCPT_OK) == (RCPT_OK, 0)


def test_what_a_listener_says_holds_for_all_and_what_is_usual_for_strangers():
    plain = ListenerParams(hostname="gw.example")
    assert session_limits(plain, trusted=True) is None
    said = ListenerParams(hostname="gw.example", command_timeout=7.0, minimum_data_rate=Rate.read("50/s"))
    of_relay_hosts, of_strangers = (session_limits(said, trusted=trusted) for trusted in (True, False))
    assert of_relay_hosts == SessionLimits(command_timeout=7.0, minimum_data_rate=50.0)
    assert of_strangers is not None
    assert (of_strangers.command_timeout, of_strangers.minimum_data_rate) == (7.0, 50.0)
    assert (of_strangers.first_command_timeout, of_strangers.errors) == (plain.client_timeout, 20)
    nothing = session_limits(ListenerParams(hostname="x", limits=Limits(errors=0, idle_commands=0)), trusted=False)
    assert nothing is not None
    assert (nothing.errors, nothing.idle_commands) == (UNLIMITED, UNLIMITED)


def test_who_was_sent_away_and_goes_on_is_not_read_without_end():
    async def main() -> None:
        async with inbound(poller=Hasty, **limited(errors=1)) as service:
            client = await service.greeted()
            client.send_now(b"XYZZY\r\n" * 3)
            await client.until(lambda data: b"421 4.7.0" in data)
            sent = turns_in_vain = 0
            with contextlib.suppress(ConnectionError):  # the time to read the reply is over
                while turns_in_vain < 100:
                    turns_in_vain += 1
                    with contextlib.suppress(BlockingIOError):
                        sent += client.send_now(bytes(1 << 16))
                        turns_in_vain = 0
                    await asyncio.sleep(0)
            assert sent < MOST_DROPPED + (8 << 20)  # and what the kernel has

    run(main())


# -- time ------------------------------------------------------------------------------------------------------------


def look_on(service: Inbound, seconds: float) -> None:
    """What a worker does once a second, so many seconds later."""
    service.roster.check_idle(service.loop.time() + seconds)


def test_a_client_that_says_nothing_is_sent_away_after_the_time_to_its_first_command():
    async def main() -> None:
        async with inbound(first_command_timeout=5.0) as service:
            client, other = await service.greeted(), await service.greeted()
            await say(other, b"NOOP\r\n")
            look_on(service, 4.0)
            assert len(service.roster) == 2
            look_on(service, 6.0)
            assert await client.to_end() == b"421 4.4.2 gw.example no command came in time\r\n"
            await service.until(lambda: len(service.roster) == 1)
            assert (await say(other, b"NOOP\r\n")).startswith(b"250 ")

    run(main())


def test_a_command_that_comes_an_octet_at_a_time_is_cut():
    async def main() -> None:
        async with inbound(command_timeout=5.0) as service:
            client, other = await service.greeted(), await service.greeted()
            for second in range(5):
                client.send_now(b"N")
                await say(other, b"NOOP\r\n")  # so it has arrived
                look_on(service, second)
                assert len(service.roster) == 2
            look_on(service, 5.0)
            assert await client.to_end() == b"421 4.4.2 gw.example a command took too long\r\n"
            assert service.metric("rejections_total", reason="command_timeout") == 1

    run(main())


def test_commands_that_are_whole_have_no_time_in_common():
    pace, limits = Pace(), SessionLimits(command_timeout=5.0)
    assert [pace.look(limits, (False, number, 3), 2.0 * number, False) for number in range(10)] == [None] * 10
    assert pace.look(limits, (False, 9, 4), 22.0, False) is None
    assert pace.look(limits, (False, 9, 5), 23.0, False) == ("a command took too long", Reason.COMMAND_TIMEOUT)


def test_a_content_that_trickles_is_cut_and_one_that_flows_is_not():
    limits = SessionLimits(minimum_data_rate=100.0)
    for rate, verdict in ((1, Reason.DATA_TOO_SLOW), (99, Reason.DATA_TOO_SLOW), (101, None)):
        pace, found = Pace(), None
        for second in range(int(WINDOW) * 3):
            found = found or pace.look(limits, (True, 0, second * rate), float(second), False)
        assert (found and found[1]) is verdict


def test_a_burst_buys_no_time():
    pace, limits = Pace(), SessionLimits(minimum_data_rate=100.0)
    octets = [1_000_000 + second for second in range(int(WINDOW) * 3)]
    verdicts = [pace.look(limits, (True, 0, n), float(second), False) for second, n in enumerate(octets)]
    assert any(verdicts)


def test_a_client_that_we_keep_waiting_is_not_slow():
    pace, limits = Pace(), SessionLimits(minimum_data_rate=100.0, data_timeout=30.0)
    for second in range(200):
        assert pace.look(limits, (True, 0, 5), float(second), True) is None
    verdicts = [pace.look(limits, (True, 0, 5 + 200 * second), 200.0 + second, False) for second in range(40)]
    assert [verdict[1] for verdict in verdicts if verdict][:1] == [Reason.DATA_TIMEOUT]
    assert verdicts[28] is None


def test_an_octet_a_second_is_cut_at_the_wire():
    async def main() -> None:
        async with inbound(TAKES_ALL, minimum_data_rate=Rate.read("100/s"), **STRANGER) as service:
            client = await service.greeted()
            await say(client, b"EHLO c.example\r\n")
            client.received.clear()
            client.send_now(MESSAGE)
            await client.until(lambda data: b"354 " in data)
            client.received.clear()
            other = await service.greeted()
            for second in range(int(WINDOW)):
                client.send_now(b"x")
                await say(other, b"NOOP\r\n")
                look_on(service, second)
            look_on(service, WINDOW + 1)
            assert await client.to_end() == b"421 4.4.2 gw.example the message comes too slowly\r\n"
            assert service.metric("rejections_total", reason="data_too_slow") == 1
            assert service.metric("messages_total") == 0

    run(main())


@pytest.mark.parametrize("chunk", [b"BDAT 1\r\nx", b"BDAT 90\r\n" + b"x" * 88 + b"\r\n", b"BDAT 0\r\n", b"NOOP\r\n"])
def test_a_content_in_small_chunks_is_no_quicker_for_that(chunk):
    async def main() -> None:
        limits = Limits(idle_commands=0)
        async with inbound(TAKES_ALL, minimum_data_rate=Rate.read("100/s"), limits=limits, **STRANGER) as service:
            client = await service.greeted()
            client.send_now(b"EHLO c.example\r\nMAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\nBDAT 1\r\nx")
            await client.until(lambda data: b"250 2.0.0 Chunk OK\r\n" in data)
            for second in range(int(WINDOW)):
                await say(client, chunk)
                look_on(service, second)
            client.received.clear()
            look_on(service, WINDOW + 1)
            assert await client.to_end() == b"421 4.4.2 gw.example the message comes too slowly\r\n"

    run(main())


def test_what_waits_for_a_late_reply_is_bounded_and_whoever_goes_away_is_noticed():
    async def main() -> None:
        async with inbound(**limited(errors=2)) as service:
            client = await service.greeted()
            client.send_now(b"XYZZY\r\n" * 3)  # two answers after a second
            sent = client.send_now(b"NOOP\r\n" * 2000)
            assert sent > connection.MAX_BUFFERED / 2
            client.sock.close()
            await service.until(lambda: not service.roster)

    run(main())
