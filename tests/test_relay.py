"""The relay over real sockets against scripted upstreams: where messages go, and what becomes of them on a bad day."""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from couriers_in_loop import BOTH, CONTENT, DELIVERED, PATH, UNREACHABLE, Gateway, batch, only, statuses
from upstream import CHUNKING, EXTENSIONS, Answer, Dialogue, Do, Slowly, Upstream, ehlo, sound_at_first

from gateway import metrics
from gateway._fastpath import CidrSet, ContentStore
from gateway.config import EgressPath, Host, QueueConfig, SmtpFleet
from gateway.couriers.fleet import health
from gateway.handover import Batch, HandOver, Status
from gateway.smtp import exchange as exchange_module
from gateway.smtp.replies import Reason

# --- the good day -----------------------------------------------------------------------------------------------------


def test_a_message_arrives_byte_for_byte_and_the_answer_comes_back(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*BOTH))
            (mail,) = member.mails
            assert (mail.sender, mail.recipients) == ("a@x.example", list(BOTH))
            assert mail.content == CONTENT
            assert statuses(hand_over) == [Status.DELIVERED] * 2
            response = hand_over.outcomes[0].response
            assert (response.code, response.enhanced, response.content) == (250, "2.0.0", "queued")
            assert response.command == ".\r\n"
            assert (hand_over.peer_name, hand_over.peer_address) == ("m0", "127.0.0.1")
            assert hand_over.site == "unspecified->mx_list:m0@smtp_client"
            assert hand_over.protocol == "ESMTP"
            assert hand_over.source_address is not None
            assert hand_over.source_address.startswith("127.0.0.1:")
            assert len(hand_over.session_id or "") == 36
            assert hand_over.seconds > 0

    run(main())


def test_envelope_travels_in_one_write_and_the_content_in_the_next(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            await gateway.hand_over(batch(*BOTH))
            reads = member.dialogues[0].reads
            assert [read.count(b"\r\n") for read in reads[:2]] == [1, 4]
            assert b"".join(reads[2:]) == CONTENT + b".\r\n"

    run(main())


def test_a_large_content_arrives_whole_while_the_upstream_reads_slowly(run) -> None:
    async def main() -> None:
        content = (b"x" * 998 + b"\r\n") * 8000
        async with Upstream() as member, Gateway(member) as gateway:
            await gateway.hand_over(batch())
            member.pause()
            result = gateway.start(batch(content=content))
            for _ in range(20):
                await asyncio.sleep(0)
            for connection in member.open:
                connection.transport.resume_reading()
            assert only(await result) == DELIVERED
            assert member.mails[1].content == content

    run(main())


def test_connections_are_kept_and_used_again(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            reports = [await gateway.hand_over(batch()) for _ in range(5)]
            assert len(member.dialogues) == 1
            assert "RSET" not in member.commands
            assert len({report.session_id for report in reports}) == 1
            assert gateway.value(metrics.UPSTREAM_OPENED.slot()) == 1
            assert gateway.value(metrics.UPSTREAM_REPLIES.slot("end_of_data", "2xx")) == 5
            assert gateway.value(metrics.UPSTREAM_REPLIES.slot("greeting", "2xx")) == 1

    run(main())


def test_equal_configurations_share_their_connections(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            for _ in range(3):  # every time anew, as after a refresh of the policy's answers
                await gateway.hand_over(batch(), EgressPath(prohibited_hosts=CidrSet(("10.0.0.0/8",))))
            assert len(member.dialogues) == 1

    run(main())


def test_a_connection_is_closed_in_good_order_after_its_deliveries(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            path = EgressPath(max_deliveries_per_connection=2)
            for _ in range(4):
                await gateway.hand_over(batch(), path)
            await member.until(lambda member: all(dialogue.closed for dialogue in member.dialogues))
            assert [dialogue.commands.count("DATA") for dialogue in member.dialogues] == [2, 2]
            assert [dialogue.commands[-1] for dialogue in member.dialogues] == ["QUIT", "QUIT"]

    run(main())


def test_an_idle_connection_is_closed_in_good_order(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            await gateway.hand_over(batch(), EgressPath(idle_timeout=0.02))
            await member.until(lambda member: member.dialogues[0].closed)
            assert member.commands[-1] == "QUIT"

    run(main())


def test_close_lets_hand_overs_finish_and_takes_leave(run) -> None:
    async def main() -> None:
        async with Upstream({".": b""}) as member, Gateway(member) as gateway:
            result = gateway.start(batch())
            await member.until(lambda member: "." in member.commands)
            closing = asyncio.ensure_future(gateway.couriers.close(10))
            await asyncio.sleep(0)
            member.say_unasked(b"250 2.0.0 at last\r\n")
            assert only(await result) == DELIVERED
            await closing
            await member.until(lambda member: member.dialogues[0].closed)

    run(main())


def test_close_reports_what_is_not_finished_when_its_time_is_up(run) -> None:
    async def main() -> None:
        async with Upstream({"MAIL": Do.STALL}) as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=1)
            results = [gateway.start(batch(), path) for _ in range(3)]
            await member.until(lambda member: len(member.commands) > 1)
            await gateway.couriers.close(0)
            assert {only(await result)[0] for result in results} == {Status.TRANSIENT}

    run(main())


def test_an_answer_that_is_known_at_once_comes_after_submit_has_returned(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("SIZE 10")}) as member, Gateway(member) as gateway:
            assert only(await gateway.start(batch()))[0] is Status.PERMANENT
            # on a kept connection nothing has to be asked; `start` fails where the answer is there already
            assert only(await gateway.start(batch()))[0] is Status.PERMANENT
            assert only(await gateway.start(batch(), queue=QueueConfig(protocol=SmtpFleet(())))) == UNREACHABLE
            assert len(member.dialogues) == 1

    run(main())


# --- many at once -----------------------------------------------------------------------------------------------------


def test_work_goes_to_the_member_with_the_fewest_transactions_in_flight(run) -> None:
    async def main() -> None:
        async with Upstream({".": Do.STALL}) as slow, Upstream() as quick, Gateway(slow, quick) as gateway:
            results = [gateway.start(batch()) for _ in range(2)]
            await slow.until(lambda member: "." in member.commands)
            await quick.until(lambda member: len(member.mails) == 1)
            for _ in range(5):
                assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(quick.mails) == 6
            slow.say_unasked(b"250 2.0.0 at last\r\n")
            assert {only(await result) for result in results} == {DELIVERED}

    run(main())


def test_work_without_rush_goes_round_all_members(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream() as two, Upstream() as three, Gateway(one, two, three) as gateway:
            for _ in range(9):
                await gateway.hand_over(batch())
            assert [len(member.mails) for member in (one, two, three)] == [3, 3, 3]

    run(main())


def test_no_more_connections_than_allowed_and_the_rest_waits_in_order(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=2)
            results = [gateway.start(batch(f"r{n}@y.example"), path) for n in range(20)]
            assert gateway.value(metrics.UPSTREAM_WAITING.slot()) == 19  # until the first greeting
            assert {only(await result) for result in results} == {DELIVERED}
            assert len(member.dialogues) == 2
            for dialogue in member.dialogues:  # which of the two is faster is nobody's business
                order = [int(number) for number in re.findall(r"RCPT TO:<r(\d+)@", " ".join(dialogue.commands))]
                assert order == sorted(order)

    run(main())


def test_what_waits_in_vain_comes_back_when_its_deadline_passes(run) -> None:
    async def main() -> None:
        async with Upstream({".": Do.STALL}) as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=1)
            first = gateway.start(batch(), path)
            waiting = await gateway.hand_over(batch(), path, seconds=0.05)
            assert only(waiting) == (Status.TRANSIENT, 451, Reason.UPSTREAM_TIMEOUT)
            assert waiting.outcomes[0].response.enhanced == "4.4.5"
            assert waiting.peer_name == ""
            member.say_unasked(b"250 2.0.0 at last\r\n")
            assert only(await first) == DELIVERED

    run(main())


def test_a_waiting_message_gets_the_connection_that_replaces_a_broken_one(run) -> None:
    async def main() -> None:
        async with Upstream({".": [Do.RESET, b"250 ok\r\n"]}) as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=1)
            first, second = (gateway.start(batch(), path) for _ in range(2))
            assert only(await first)[0] is Status.UNKNOWN
            assert only(await second)[0] is Status.DELIVERED

    run(main())


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"MAIL": b"550 5.7.1 no\r\n"}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"MAIL": b"451 4.7.1 later\r\n"}, (Status.TRANSIENT, 451, Reason.UPSTREAM_DEFERRED)),
        ({"RCPT": b"550 5.1.1 no\r\n", "DATA": b"554 no\r\n"}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"RCPT": b"450 4.2.1 no\r\n", "DATA": b"554 no\r\n"}, (Status.TRANSIENT, 450, Reason.UPSTREAM_DEFERRED)),
        ({"RCPT": b"550 5.1.1 no\r\n"}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"RCPT": b"450 4.2.1 no\r\n"}, (Status.TRANSIENT, 450, Reason.UPSTREAM_DEFERRED)),
        ({"DATA": b"451 4.3.0 no\r\n"}, (Status.TRANSIENT, 451, Reason.UPSTREAM_DEFERRED)),
        ({".": b"554 5.6.0 spam\r\n"}, (Status.PERMANENT, 554, Reason.UPSTREAM_REFUSED)),
        ({".": b"452 4.3.1 full\r\n"}, (Status.TRANSIENT, 452, Reason.UPSTREAM_DEFERRED)),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_verdict_is_passed_on_and_no_other_member_is_asked(run, answers, expected, pipelining: bool) -> None:
    async def main() -> None:
        script = {**answers, **({} if pipelining else {"EHLO": ehlo("SIZE 1000000")})}
        async with Upstream(script) as one, Upstream(script) as two, Gateway(one, two) as gateway:
            assert only(await gateway.hand_over(batch())) == expected
            assert len(one.dialogues) + len(two.dialogues) == 1
            assert not one.mails
            assert not two.mails

    run(main())


def test_the_connection_goes_on_after_a_refusal(run) -> None:
    async def main() -> None:
        async with Upstream({".": [b"554 5.6.0 spam\r\n", b"250 2.0.0 ok\r\n"]}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch()))[0] is Status.PERMANENT
            await member.until(lambda member: "RSET" in member.commands)
            assert only(await gateway.hand_over(batch())) == DELIVERED

    run(main())


def test_some_refused_for_good_and_the_rest_is_delivered(run) -> None:
    async def main() -> None:
        async with Upstream({"RCPT <b@y.example>": b"550 5.1.1 no\r\n"}) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*BOTH))
            assert statuses(hand_over) == [Status.PERMANENT, Status.DELIVERED]
            assert hand_over.outcomes[0].response.command == "RCPT TO:<b@y.example>\r\n"
            assert member.mails[0].recipients == ["c@z.example"]

    run(main())


def test_one_deferred_recipient_closes_the_connection_before_the_dot(run) -> None:
    async def main() -> None:
        async with Upstream({"RCPT <b@y.example>": b"450 4.2.1 later\r\n"}) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*BOTH))
            assert statuses(hand_over) == [Status.TRANSIENT] * 2
            assert {outcome.reason for outcome in hand_over.outcomes} == {Reason.UPSTREAM_DEFERRED}
            await member.until(lambda member: member.dialogues[0].closed)
            assert b"Subject" not in member.dialogues[0].received
            assert not member.mails

    run(main())


# --- what a member does not offer -------------------------------------------------------------------------------------


def test_smtputf8_that_is_not_offered_is_permanent_and_the_connection_lives_on(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("PIPELINING", "8BITMIME")}) as member, Gateway(member) as gateway:
            for _ in range(2):
                hand_over = await gateway.hand_over(batch("ü@y.example", smtputf8=True))
                assert only(hand_over) == (Status.PERMANENT, 553, Reason.UPSTREAM_REFUSED)
                assert hand_over.outcomes[0].response.enhanced == "5.6.7"
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(member.dialogues) == 1

    run(main())


def test_a_message_larger_than_the_announced_size_is_permanent(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("SIZE 24")}) as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=1)
            results = [gateway.start(batch(), path) for _ in range(3)]
            for result in results:
                assert only(await result) == (Status.PERMANENT, 552, Reason.UPSTREAM_REFUSED)
            assert only(await gateway.hand_over(batch(content=UNDOTTED), path)) == DELIVERED
            assert len(member.dialogues) == 1

    run(main())


def test_helo_serves_where_ehlo_does_not(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": b"500 what?\r\n"}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert member.commands[:3] == ["EHLO gw.example", "HELO gw.example", "MAIL FROM:<a@x.example>"]

    run(main())


# --- more recipients than a transaction takes -------------------------------------------------------------------------

FIVE = [f"r{n}@y.example" for n in range(5)]


def test_many_recipients_go_out_in_several_transactions_on_one_connection(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*FIVE), EgressPath(max_recipients_per_batch=2))
            assert statuses(hand_over) == [Status.DELIVERED] * 5
            assert [outcome.recipient.email for outcome in hand_over.outcomes] == FIVE
            assert [mail.recipients for mail in member.mails] == [FIVE[:2], FIVE[2:4], FIVE[4:]]
            assert len(member.dialogues) == 1

    run(main())


def test_nothing_more_is_sent_after_a_deferral_in_one_of_several_transactions(run) -> None:
    async def main() -> None:
        async with Upstream({"RCPT <r2@y.example>": b"450 4.2.1 later\r\n"}) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*FIVE), EgressPath(max_recipients_per_batch=2))
            assert statuses(hand_over) == [Status.DELIVERED] * 2 + [Status.TRANSIENT] * 3
            assert len(member.mails) == 1

    run(main())


def test_a_refusal_in_one_of_several_transactions_does_not_stop_the_others(run) -> None:
    async def main() -> None:
        answers = {"MAIL": [b"550 5.7.1 no\r\n", b"250 ok\r\n"], "DATA": [b"503 no\r\n", b"354 go\r\n"]}
        async with Upstream(answers) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*FIVE), EgressPath(max_recipients_per_batch=2))
            assert statuses(hand_over) == [Status.PERMANENT] * 2 + [Status.DELIVERED] * 3
            assert len(member.dialogues) == 1

    run(main())


def test_after_a_connection_lost_between_several_transactions_the_rest_goes_to_another_member(run) -> None:
    async def main() -> None:
        script = {"MAIL": [b"250 ok\r\n", Do.DROP]}
        async with Upstream(script) as one, Upstream() as two, Gateway(two, one) as gateway:
            hand_over = await gateway.hand_over(batch(*FIVE), EgressPath(max_recipients_per_batch=2))
            assert statuses(hand_over) == [Status.DELIVERED] * 5
            (first,) = [mail.recipients for mail in one.mails]
            assert first == FIVE[:2]
            assert [mail.recipients for mail in two.mails] == [FIVE[2:4], FIVE[4:]]

    run(main())


# --- the bad day ------------------------------------------------------------------------------------------------------

FAILING = [
    {"CONNECT": Do.DROP},
    {"CONNECT": Do.RESET},
    {"CONNECT": b"554 5.3.2 go away\r\n"},
    {"CONNECT": b"421 4.3.2 busy\r\n"},
    {"CONNECT": b"not smtp\r\n"},
    {"EHLO": Do.DROP},
    {"EHLO": b"421 4.3.2 busy\r\n"},
    {"EHLO": b"550 no\r\n", "HELO": b"550 no\r\n"},
    {"MAIL": Do.DROP},
    {"MAIL": Do.RESET},
    {"MAIL": b"421 4.3.2 bye\r\n"},
    {"MAIL": b"354 what?\r\n"},
    {"RCPT": Do.RESET},
    {"RCPT": b"421 4.3.2 bye\r\n"},
    {"RCPT": b"garbage\r\n"},
    {"DATA": Do.DROP},
    {"DATA": b"421 4.3.2 bye\r\n"},
    {"DATA": b"250 what?\r\n"},
    {"DATA": b"354 go\r\n250 done already\r\n"},
]


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes, a member that failed gets no probe, which would be counted as a dialogue."""
    monkeypatch.setattr(health, "_pause", lambda failures: 3600.0)


@pytest.mark.usefixtures("no_probes")
@pytest.mark.parametrize("answers", FAILING, ids=str)
def test_a_member_that_fails_before_the_content_is_replaced_unseen(run, answers) -> None:
    async def main() -> None:
        async with Upstream(answers) as broken, Upstream() as sound, Gateway(sound, broken) as gateway:
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(broken.dialogues) == 1
            assert len(sound.mails) == 1

    run(main())


@pytest.mark.usefixtures("no_probes")
@pytest.mark.parametrize("answers", FAILING, ids=str)
def test_each_member_is_tried_once_and_then_it_is_transient(run, answers) -> None:
    async def main() -> None:
        async with Upstream(answers) as one, Upstream(answers) as two, Gateway(one, two) as gateway:
            hand_over = await gateway.hand_over(batch())
            (outcome,) = hand_over.outcomes
            assert outcome.status is Status.TRANSIENT
            assert outcome.response.code == 451
            assert outcome.response.enhanced.startswith("4.4.")
            assert len(one.dialogues) == len(two.dialogues) == 1

    run(main())


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"CONNECT": Do.DROP}, Reason.UPSTREAM_UNREACHABLE),
        ({"MAIL": Do.DROP}, Reason.UPSTREAM_LOST),
        ({"MAIL": b"garbage\r\n"}, Reason.UPSTREAM_PROTOCOL),
    ],
)
def test_the_reason_says_what_happened_last(run, answers, reason: Reason) -> None:
    async def main() -> None:
        async with Upstream(answers) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch()))[2] is reason

    run(main())


def test_a_member_that_refuses_connections_is_replaced_and_then_asked_last(run) -> None:
    async def main() -> None:
        async with Upstream() as absent, Upstream() as present, Gateway(present, absent) as gateway:
            await absent.stop()
            for _ in range(4):
                assert only(await gateway.hand_over(batch())) == DELIVERED
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("connect")) == 1

    run(main())


def test_work_waits_for_a_sound_member_rather_than_try_one_that_failed_lately(run) -> None:
    async def main() -> None:
        answers = {"CONNECT": [Do.DROP, Do.STALL]}
        async with Upstream(answers) as broken, Upstream() as sound, Gateway(sound, broken) as gateway:
            path = EgressPath(connection_limit=1)
            assert only(await gateway.hand_over(batch(), path)) == DELIVERED
            results = [gateway.start(batch(), path) for _ in range(5)]
            assert {only(await result) for result in results} == {DELIVERED}
            assert len(broken.dialogues) == 1

    run(main())


def test_a_member_that_failed_is_probed_when_it_is_needed_and_asked_again(run) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": [Do.DROP, b"220 hi\r\n"]}) as once, Gateway(once) as gateway:
            assert only(await gateway.hand_over(batch())) == UNREACHABLE
            assert only(await gateway.hand_over(batch())) == DELIVERED

    run(main())


def test_a_fleet_without_members_is_transient(run) -> None:
    async def main() -> None:
        async with Gateway() as gateway:
            assert only(await gateway.hand_over(batch())) == UNREACHABLE

    run(main())


def test_a_fleet_that_nobody_answers_for_is_transient(run) -> None:
    async def main() -> None:
        async with Upstream() as absent, Gateway(absent) as gateway:
            await absent.stop()
            hand_over = await gateway.hand_over(batch(*BOTH))
            assert statuses(hand_over) == [Status.TRANSIENT] * 2
            assert hand_over.outcomes[0].reason is Reason.UPSTREAM_UNREACHABLE
            assert (hand_over.peer_name, hand_over.source_address) == ("m0", None)

    run(main())


def test_names_are_resolved_and_unknown_ones_are_transient(run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            results = []
            for name in ("localhost", "no-such-host.invalid"):
                queue = QueueConfig(protocol=SmtpFleet((Host(name, name, member.port),)))
                results.append(only(await gateway.start(batch(), queue=queue)))
            assert results == [DELIVERED, UNREACHABLE]
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("resolve")) == 1

    run(main())


def test_a_prohibited_address_is_never_connected_to(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            path = EgressPath(prohibited_hosts=CidrSet(("127.0.0.0/8",)))
            assert only(await gateway.hand_over(batch(), path)) == UNREACHABLE
            assert not member.dialogues

    run(main())


@pytest.mark.parametrize("how", [Do.DROP, Do.RESET])
def test_a_kept_connection_that_died_unnoticed_is_replaced_by_a_new_one_to_the_same_member(run, how: Do) -> None:
    async def main() -> None:
        async with Upstream({"MAIL": [b"250 ok\r\n", how, b"250 ok\r\n"]}) as member, Gateway(member) as gateway:
            await gateway.hand_over(batch())
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(member.dialogues) == 2

    run(main())


def test_a_kept_connection_that_says_421_is_replaced_by_a_new_one_to_the_same_member(run) -> None:
    async def main() -> None:
        answers = {"MAIL": [b"250 ok\r\n", b"421 4.4.2 idle for too long\r\n", b"250 ok\r\n"]}
        async with Upstream(answers) as member, Gateway(member) as gateway:
            await gateway.hand_over(batch())
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(member.dialogues) == 2

    run(main())


@pytest.mark.parametrize("words", [b"", b"421 4.4.2 idle\r\n", b"250 hi\r\n"])
def test_an_idle_connection_that_ends_or_speaks_is_forgotten(run, words: bytes) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            await gateway.hand_over(batch())
            if words:
                member.say_unasked(words)
                await member.until(lambda member: not member.open)
            else:
                member.drop_all()
                while gateway.value(metrics.UPSTREAM_OPEN.slot()):
                    await asyncio.sleep(0)
            assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(member.dialogues) == 2

    run(main())


@pytest.mark.parametrize("how", [Do.DROP, Do.RESET, b"garbage\r\n", b"354 what?\r\n"], ids=str)
def test_an_upstream_lost_after_the_dot_leaves_the_outcome_unknown_and_nobody_else_is_asked(run, how) -> None:
    async def main() -> None:
        async with Upstream({".": how}) as one, Upstream({".": how}) as two, Gateway(one, two) as gateway:
            assert only(await gateway.hand_over(batch())) == (Status.UNKNOWN, 451, Reason.OUTCOME_UNKNOWN)
            assert len(one.dialogues) + len(two.dialogues) == 1

    run(main())


STALLS = {
    "CONNECT": EgressPath(banner_timeout=0.03),
    "EHLO": EgressPath(ehlo_timeout=0.03),
    "MAIL": EgressPath(mail_from_timeout=0.03),
    "RCPT": EgressPath(rcpt_to_timeout=0.03),
    "DATA": EgressPath(data_timeout=0.03),
}


class OctetByOctet(Slowly):
    """An octet in every hundredth of a second, a reply in more than any of these time-outs."""

    every = 0.01


@pytest.mark.parametrize(
    "answer", [Do.STALL, OctetByOctet(b"250-2.0.0 in due time\r\n" * 1000)], ids=["silent", "slow"]
)
@pytest.mark.parametrize("stage", STALLS)
def test_a_member_that_does_not_answer_is_replaced_when_the_stages_time_is_up(run, stage: str, answer: Answer) -> None:
    async def main() -> None:
        async with Upstream({stage: answer}) as silent, Upstream() as sound, Gateway(sound, silent) as gateway:
            assert only(await gateway.hand_over(batch(), STALLS[stage])) == DELIVERED
            assert len(silent.dialogues) == 1
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("timeout")) == 1

    run(main())


@pytest.mark.parametrize(
    "answer", [Do.STALL, OctetByOctet(b"250-2.0.0 in due time\r\n" * 1000)], ids=["silent", "slow"]
)
def test_silence_after_the_dot_is_unknown_when_its_time_is_up(run, answer: Answer) -> None:
    async def main() -> None:
        async with Upstream({".": answer}) as one, Upstream({".": answer}) as two, Gateway(one, two) as gateway:
            hand_over = await gateway.hand_over(batch(), EgressPath(data_dot_timeout=0.03))
            assert only(hand_over) == (Status.UNKNOWN, 451, Reason.OUTCOME_UNKNOWN)

    run(main())


@pytest.mark.parametrize(
    ("stage", "status", "reason"),
    [
        ("CONNECT", Status.TRANSIENT, Reason.UPSTREAM_TIMEOUT),
        ("MAIL", Status.TRANSIENT, Reason.UPSTREAM_TIMEOUT),
        (".", Status.UNKNOWN, Reason.OUTCOME_UNKNOWN),
    ],
)
def test_the_deadline_ends_a_hand_over_at_any_stage(run, stage: str, status: Status, reason: Reason) -> None:
    async def main() -> None:
        async with Upstream({stage: Do.STALL}) as one, Upstream({stage: Do.STALL}) as two, Gateway(one, two) as gateway:
            assert only(await gateway.hand_over(batch(), seconds=0.05)) == (status, 451, reason)

    run(main())


LARGE = (b"x" * 998 + b"\r\n") * 20_000


@pytest.fixture(params=["in memory", "in a file"])
def large(request: pytest.FixtureRequest) -> Batch:
    """A batch whose content takes many writes."""
    in_file = ContentStore(tempfile.gettempdir(), 1 << 30, 1, 0)
    return batch(content=LARGE, store=in_file if request.param == "in a file" else None)


@pytest.mark.parametrize("how", [Do.RESET, b"250 2.0.0 lovely\r\n"], ids=str)
def test_an_upstream_that_cannot_have_read_the_dot_is_replaced(run, large, how: Do | bytes) -> None:
    async def main() -> None:
        async with Upstream() as broken, Upstream() as sound, Gateway(sound, broken) as gateway:
            broken.decide = lambda dialogue, command: go_ahead_and_pause(broken, command)
            result = gateway.start(large)
            await broken.until(lambda member: "DATA" in member.commands)
            for _ in range(50):
                await asyncio.sleep(0)
            if isinstance(how, Do):
                broken.drop_all(how)
            else:
                broken.say_unasked(how)
            assert only(await result) == DELIVERED
            assert [mail.content for mail in sound.mails] == [LARGE]
            assert not broken.mails

    run(main())


def test_a_refusal_in_the_middle_of_the_content_counts(run, large) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            member.decide = lambda dialogue, command: go_ahead_and_pause(member, command)
            result = gateway.start(large)
            await member.until(lambda member: "DATA" in member.commands)
            for _ in range(50):
                await asyncio.sleep(0)
            member.say_unasked(b"552 5.3.4 enough\r\n")
            assert only(await result) == (Status.PERMANENT, 552, Reason.UPSTREAM_REFUSED)

    run(main())


def test_a_deadline_in_the_middle_of_the_content_is_transient_because_the_dot_never_left(run, large) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member) as gateway:
            member.decide = lambda dialogue, command: go_ahead_and_pause(member, command)
            hand_over = await gateway.hand_over(large, seconds=0.3)
            assert only(hand_over) == (Status.TRANSIENT, 451, Reason.UPSTREAM_TIMEOUT)

    run(main())


@pytest.mark.parametrize(("limit", "under_way"), [(1, 1), (2, 1), (4, 3), (8, 6)])
def test_large_contents_leave_connections_to_small_ones(run, limit: int, under_way: int) -> None:
    def is_large(dialogue: Dialogue) -> bool:
        return any("SIZE=100000" in command for command in dialogue.commands)

    async def main() -> None:
        store = ContentStore(tempfile.gettempdir(), 1 << 30, 100, 0)
        async with Upstream() as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=limit)
            member.decide = lambda dialogue, command: Do.STALL if command == "." and is_large(dialogue) else None
            waiting = [gateway.start(batch(content=LARGE[:100_000], store=store), path) for _ in range(limit + 1)]
            await member.until(lambda member: member.commands.count("DATA") == under_way)
            if limit > 1:
                assert only(await gateway.hand_over(batch(), path)) == DELIVERED
            assert sum(map(is_large, member.dialogues)) == under_way
            member.drop_all(Do.RESET)
            for each in waiting[:under_way]:
                assert only(await each)[0] is Status.UNKNOWN
            member.decide = lambda dialogue, command: None
            for each in waiting[under_way:]:
                assert only(await each) == DELIVERED

    run(main())


def go_ahead_and_pause(member: Upstream, command: str) -> None:
    if command == "DATA":
        asyncio.get_running_loop().call_soon(member.pause)


# --- content in one chunk with the envelope ---------------------------------------------------------------------------

UNDOTTED = b"Subject: x\r\n\r\nhello\r\n"


def in_one_chunk(*recipients: str) -> Batch:
    return batch(*recipients, content=UNDOTTED)


def chunking(answers: dict[str, Answer | list[Answer]] | None = None, **options: bool) -> Upstream:
    """answers: from each connection's second message on, which is the first one in a chunk."""
    return Upstream({"EHLO": ehlo(*CHUNKING), **(answers or {})}, decide=sound_at_first, **options)


async def opened(gateway: Gateway, path: EgressPath = PATH) -> None:
    """Each member has a connection that has taken a message by DATA."""
    for _ in gateway.members:
        assert only(await gateway.hand_over(in_one_chunk(), path)) == DELIVERED


def test_a_message_for_one_recipient_travels_in_one_write_where_chunking_is_offered(run) -> None:
    async def main() -> None:
        async with chunking() as member, Gateway(member) as gateway:
            await opened(gateway)
            for _ in range(3):
                hand_over = await gateway.hand_over(in_one_chunk())
                assert only(hand_over) == DELIVERED
            assert hand_over.outcomes[0].response.command == "BDAT 21 LAST\r\n"
            (dialogue,) = member.dialogues
            verbs = [command.partition(" ")[0] for command in dialogue.commands]
            assert verbs == ["EHLO", "MAIL", "RCPT", "DATA", ".", *(3 * ["MAIL", "RCPT", "BDAT"])]
            assert [mail.content for mail in member.mails] == [UNDOTTED] * 4
            assert len(dialogue.reads) == 3 + 3
            assert gateway.value(metrics.UPSTREAM_REPLIES.slot("end_of_data", "2xx")) == 4

    run(main())


def test_what_does_not_fit_one_chunk_goes_by_data(run) -> None:
    async def main() -> None:
        async with chunking() as member, Gateway(member) as gateway:
            for handed, path in [
                (in_one_chunk(*BOTH), PATH),
                (batch(), PATH),
                (in_one_chunk(), EgressPath()),
                (in_one_chunk(), replace(PATH, enable_pipelining=False)),
            ]:
                assert set(statuses(await gateway.hand_over(handed, path))) == {Status.DELIVERED}
            assert [command for command in member.commands if command[:4] in ("DATA", "BDAT")] == ["DATA"] * 4

    run(main())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"MAIL": [b"550 5.7.1 no\r\n", b"250 ok\r\n"]}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"MAIL": [b"451 4.7.1 later\r\n", b"250 ok\r\n"]}, (Status.TRANSIENT, 451, Reason.UPSTREAM_DEFERRED)),
        ({"RCPT": [b"550 5.1.1 no\r\n", b"250 2.1.5 ok\r\n"]}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"RCPT": [b"450 4.2.1 no\r\n", b"250 2.1.5 ok\r\n"]}, (Status.TRANSIENT, 450, Reason.UPSTREAM_DEFERRED)),
        (
            {"RCPT": [b"550 5.1.1 no\r\n", b"250 2.1.5 ok\r\n"], "BDAT in vain": b"250 2.0.0 ok\r\n"},
            (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED),
        ),
        ({"BDAT": [b"554 5.6.0 spam\r\n", b"250 2.0.0 ok\r\n"]}, (Status.PERMANENT, 554, Reason.UPSTREAM_REFUSED)),
        ({"BDAT": [b"452 4.3.1 full\r\n", b"250 2.0.0 ok\r\n"]}, (Status.TRANSIENT, 452, Reason.UPSTREAM_DEFERRED)),
    ],
    ids=str,
)
def test_a_verdict_on_a_chunk_is_passed_on_and_ends_the_connection(run, answers, expected) -> None:
    async def main() -> None:
        async with chunking(answers) as member, Gateway(member) as gateway:
            await opened(gateway)
            assert only(await gateway.hand_over(in_one_chunk())) == expected
            assert len(member.mails) == 1
            assert only(await gateway.hand_over(in_one_chunk())) == DELIVERED
            assert len(member.dialogues) == 2

    run(main())


@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
def test_a_member_that_leaves_before_the_chunk_is_replaced_unseen(run, stage: str) -> None:
    async def main() -> None:
        leaving = {stage: b"421 4.3.2 bye\r\n"}
        async with chunking(leaving) as broken, chunking() as sound, Gateway(sound, broken) as gateway:
            await opened(gateway)
            assert only(await gateway.hand_over(in_one_chunk())) == DELIVERED
            assert len(broken.mails) + len(sound.mails) == 3

    run(main())


@pytest.mark.parametrize("how", [Do.DROP, Do.RESET, Do.STALL, b"garbage\r\n", b"354 what?\r\n"], ids=str)
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "BDAT"])
def test_a_member_lost_with_a_chunk_leaves_the_outcome_unknown_and_is_then_asked_last(run, stage: str, how) -> None:
    async def main() -> None:
        soon = replace(PATH, mail_from_timeout=0.1, rcpt_to_timeout=0.1, data_dot_timeout=0.1)
        path = soon if how is Do.STALL else PATH
        async with chunking({stage: how}) as broken, chunking() as sound, Gateway(sound, broken) as gateway:
            await opened(gateway, path)
            hand_over = await gateway.hand_over(in_one_chunk(), path)
            assert only(hand_over) == (Status.UNKNOWN, 451, Reason.OUTCOME_UNKNOWN)
            assert hand_over.outcomes[0].response.command == "BDAT 21 LAST\r\n"
            assert len(sound.mails) == 1  # as before
            for _ in range(3):
                assert only(await gateway.hand_over(in_one_chunk(), path)) == DELIVERED
            assert len(broken.dialogues) == 1

    run(main())


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
@pytest.mark.parametrize("discards", [True, False])
def test_a_member_that_offers_chunking_but_does_not_know_it_gets_data_instead(run, code: int, discards: bool) -> None:
    async def main() -> None:
        what = {"BDAT": b"%d 5.5.1 what?\r\n" % code}
        async with chunking(what, discards=discards) as member, Gateway(member) as gateway:
            for _ in range(3):
                assert only(await gateway.hand_over(in_one_chunk())) == DELIVERED
            assert len(member.dialogues) == 2
            assert [mail.content for mail in member.mails] == [UNDOTTED] * 3
            assert gateway.value(metrics.UPSTREAM_FAILURES.slot("protocol")) == 1

    run(main())


def test_what_is_said_to_a_content_that_was_read_as_commands_is_no_answer_to_the_next_message(run) -> None:
    async def main() -> None:
        answers = {"RCPT": [b"550 5.1.1 no\r\n"], "BDAT": b"503 5.5.1 no\r\n", "NOOP": b"250 2.0.0 ok\r\n"}
        async with chunking(answers, discards=False) as member, Gateway(member) as gateway:
            noops = batch(content=b"NOOP\r\n" * 30)
            for number in range(1, 4):
                await opened(gateway)
                assert only(await gateway.hand_over(noops)) == (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)
                assert len(member.mails) == number

    run(main())


@pytest.mark.parametrize("how", [Do.RESET, b"250 2.0.0 lovely\r\n"], ids=str)
def test_a_member_that_cannot_have_read_the_whole_chunk_is_replaced(run, how, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(exchange_module, "MOST_UNASKED", 20_000_000)
        async with chunking() as broken, chunking() as sound, Gateway(sound, broken) as gateway:
            result = await send_half_a_chunk(broken, gateway)
            if isinstance(how, Do):
                broken.drop_all(how)
            else:
                broken.say_unasked(how)
            assert only(await result) == DELIVERED
            assert [mail.content for mail in sound.mails] == [UNDOTTED, LARGE]
            assert len(broken.mails) == 1

    run(main())


def test_a_refusal_in_the_middle_of_a_chunk_counts(run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(exchange_module, "MOST_UNASKED", 20_000_000)
        async with chunking() as member, Gateway(member) as gateway:
            result = await send_half_a_chunk(member, gateway)
            member.say_unasked(b"552 5.3.4 enough\r\n")
            assert only(await result) == (Status.PERMANENT, 552, Reason.UPSTREAM_REFUSED)

    run(main())


async def send_half_a_chunk(member: Upstream, gateway: Gateway) -> asyncio.Future[HandOver]:
    """A hand-over whose envelope was answered, and whose content is more than the kernel takes."""

    def pause_after_bdat(dialogue: Dialogue, command: str) -> None:
        if command.startswith("RCPT"):
            asyncio.get_running_loop().call_soon(member.pause)

    await opened(gateway)
    member.decide = pause_after_bdat
    result = gateway.start(batch(content=LARGE))
    await member.until(lambda member: any(command.startswith("BDAT") for command in member.commands))
    for _ in range(50):
        await asyncio.sleep(0)
    return result


# --- any day ----------------------------------------------------------------------------------------------------------

MISHAPS = [Do.DROP, Do.RESET, b"421 4.3.2 bye\r\n", b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n", b"garbage\r\n"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offered", [EXTENSIONS, CHUNKING], ids=["data", "chunking"])
def test_whatever_happens_every_outcome_is_true(run, seed: int, offered: Sequence[str]) -> None:
    chance = random.Random(seed)

    def decide(dialogue: Dialogue, command: str) -> Answer | None:
        return chance.choice(MISHAPS) if chance.random() < 0.08 else None

    def member() -> Upstream:
        return Upstream({"EHLO": ehlo(*offered)}, decide=decide)

    async def main() -> None:
        async with member() as one, member() as two, member() as three:
            members = (one, two, three)
            async with Gateway(*members) as gateway:
                path = replace(PATH, connection_limit=3, max_deliveries_per_connection=7)
                results = [gateway.start(in_one_chunk(f"r{n}@y.example"), path) for n in range(150)]
                outcomes = [(await result).outcomes[0] for result in results]
            arrived = Counter(mail.recipients[0] for member in members for mail in member.mails)
            possible = {
                Status.DELIVERED: {1},
                Status.TRANSIENT: {0},
                Status.PERMANENT: {0},
                Status.UNKNOWN: {0, 1},
            }
            for outcome in outcomes:
                assert arrived[outcome.recipient.email] in possible[outcome.status], outcome
            assert Status.DELIVERED in {outcome.status for outcome in outcomes}

    run(main())


# --- a cut at every octet ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["sent", "received"])
@pytest.mark.parametrize(
    "offered", [CHUNKING, EXTENSIONS, EXTENSIONS[1:]], ids=["chunking", "pipelining", "one by one"]
)
def test_cut_after_any_octet_nothing_is_taken_for_delivered_unless_it_was_confirmed(
    run, direction: str, offered: Sequence[str]
) -> None:
    async def status_and_octets(cut: int | None) -> tuple[Status, int]:
        async with Upstream({"EHLO": ehlo(*offered)}) as member, Gateway(member) as gateway:
            before = 0
            if offered is CHUNKING:
                await opened(gateway)
                before = len(getattr(member.dialogues[0], direction))
            if cut is not None:
                setattr(member, f"cut_{direction}", before + cut)
            hand_over = await gateway.hand_over(in_one_chunk())
            return only(hand_over)[0], len(getattr(member.dialogues[0], direction)) - before

    async def main() -> None:
        status, total = await status_and_octets(None)
        assert status is Status.DELIVERED
        for cut in range(1, total):
            status, _ = await status_and_octets(cut)
            assert status in (Status.TRANSIENT, Status.UNKNOWN), cut
        if direction == "sent":
            assert (await status_and_octets(total))[0] is Status.DELIVERED

    run(main())
