"""Members that speak LMTP (RFC 2033), over real sockets: whom each answer is for, and what is lost in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from couriers_in_loop import BOTH, DELIVERED, UNREACHABLE, Gateway, batch, only, statuses
from upstream import EXTENSIONS, Answer, Do, Upstream, ehlo

from gateway import metrics
from gateway.config import EgressPath
from gateway.handover import Status
from gateway.smtp.replies import Reason
from tests import gateway_process
from tests.fleets import Fleets

PATH = EgressPath(use_lmtp=True, enable_chunking=True)
LATER, NEVER = b"451 4.2.1 mailbox is busy\r\n", b"552 5.2.2 mailbox is full\r\n"
OF_B, OF_C = ". <b@y.example>", ". <c@z.example>"
Answers = dict[str, Answer | list[Answer]]


def test_a_message_is_greeted_and_sent_as_the_protocol_has_it(run) -> None:
    async def main() -> None:
        offered = {"LHLO": ehlo(*EXTENSIONS, "CHUNKING")}
        async with Upstream(offered, lmtp=True) as member, Gateway(member) as gateway:
            for _ in range(2):
                handed = await gateway.hand_over(batch(*BOTH), PATH)
                assert statuses(handed) == [Status.DELIVERED] * 2
            assert handed.protocol == "LMTP"
            verbs = [command.split()[0] for command in member.commands]
            assert verbs == ["LHLO", *["MAIL", "RCPT", "RCPT", "DATA", "."] * 2]
            assert gateway.value(metrics.UPSTREAM_REPLIES.slot("end_of_data", "2xx")) == 4

    run(main())


def test_a_server_that_does_not_speak_it_is_not_spoken_to_otherwise(run) -> None:
    async def main() -> None:
        async with Upstream({"LHLO": b"500 5.5.1 what?\r\n"}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(), PATH)) == UNREACHABLE
            assert {command.split()[0] for command in member.commands} == {"LHLO"}

    run(main())


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({OF_C: LATER}, [(Status.DELIVERED, 250), (Status.TRANSIENT, 451)]),
        ({OF_B: NEVER}, [(Status.PERMANENT, 552), (Status.DELIVERED, 250)]),
        ({OF_B: NEVER, OF_C: LATER}, [(Status.PERMANENT, 552), (Status.TRANSIENT, 451)]),
        ({"RCPT <b@y.example>": NEVER, OF_C: LATER}, [(Status.PERMANENT, 552), (Status.TRANSIENT, 451)]),
        ({"RCPT <b@y.example>": NEVER}, [(Status.PERMANENT, 552), (Status.DELIVERED, 250)]),
    ],
)
def test_each_recipient_is_judged_by_its_own_answer(run, pipelining: bool, answers: Answers, expected) -> None:
    async def main() -> None:
        offered = {"LHLO": ehlo(*EXTENSIONS) if pipelining else ehlo("8BITMIME")}
        async with Upstream({**answers, **offered}, lmtp=True) as member, Gateway(member) as gateway:
            handed = await gateway.hand_over(batch(*BOTH), PATH)
            assert [(outcome.status, outcome.response.code) for outcome in handed.outcomes] == expected
            assert only(await gateway.hand_over(batch("d@y.example"), PATH)) == DELIVERED
            assert "RSET" not in member.commands  # each has its answer, and the next MAIL may follow
            assert len(member.dialogues) == 1

    run(main())


@pytest.mark.parametrize("end", [Do.DROP, Do.RESET, b"421 4.3.2 I leave\r\n", b"garbage\r\n", Do.STALL])
def test_those_who_were_answered_are_settled_and_the_others_unknown(run, end: Answer) -> None:
    async def main() -> None:
        answers: Answers = {OF_B: b"250 2.1.5 it has it\r\n", OF_C: end}
        async with Upstream(answers, lmtp=True) as member, Upstream(lmtp=True) as other, Gateway(member) as gateway:
            path = EgressPath(use_lmtp=True, data_dot_timeout=0.3)
            one, two = (await gateway.hand_over(batch(*BOTH), path)).outcomes
            assert (one.status, one.response.content) == (Status.DELIVERED, "it has it")
            assert (two.status, two.reason) == (Status.UNKNOWN, Reason.OUTCOME_UNKNOWN)
            assert [mail.recipients for mail in member.mails] == [["b@y.example"]]
            assert other.mails == []

    run(main())


def test_an_answer_too_many_makes_all_of_them_doubtful(run) -> None:
    async def main() -> None:
        answers: Answers = {OF_C: b"250 2.0.0 ok\r\n250 2.0.0 and more\r\n"}
        async with Upstream(answers, lmtp=True) as member, Gateway(member) as gateway:
            handed = await gateway.hand_over(batch(*BOTH), PATH)
            assert statuses(handed) == [Status.UNKNOWN] * 2

    run(main())


def test_a_member_lost_before_the_dot_is_replaced(run) -> None:
    async def main() -> None:
        async with (
            Upstream({"DATA": Do.DROP}, lmtp=True) as faulty,
            Upstream(lmtp=True) as sound,
            Gateway(faulty, sound) as gateway,
        ):
            for _ in range(3):
                assert statuses(await gateway.hand_over(batch(*BOTH), PATH)) == [Status.DELIVERED] * 2
            assert (len(faulty.mails), len(sound.mails)) == (0, 6)

    run(main())


# --- with a running gateway -------------------------------------------------------------------------------------------

POLICY = """
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } }, retry_interval = '1s' }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { use_lmtp = true }
end)
"""


@pytest.fixture
def fleets() -> Iterator[Fleets]:
    fleets = Fleets()
    yield fleets
    fleets.close()


@pytest.mark.parametrize("spools", [True, False])
def test_a_client_is_told_250_where_the_rest_is_spooled_and_else_4xx(
    fleets: Fleets, tmp_path: Path, spools: bool
) -> None:
    member = fleets.add("lmtp", {OF_C: [LATER, LATER, b"250 2.0.0 now\r\n"]})
    member.lmtp = True
    init = gateway_process.INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
    options = ("--spool", str(tmp_path / "spool")) if spools else ()
    upstreams = [fleets.addresses["lmtp"]]
    gateway = gateway_process.Gateway(tmp_path, init + POLICY, "--workers", "1", *options, upstreams=upstreams)
    try:
        with gateway.smtp() as client:
            client.ehlo()
            for command in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "RCPT TO:<c@z.example>"):
                assert client.docmd(command)[0] == 250
            code, text = client.data(b"Subject: x\r\n\r\nhello\r\n")
            assert code == (250 if spools else 451), text
        if spools:
            gateway_process.wait_until(lambda: len(fleets.mails("lmtp")) == 2, "the rest is delivered")
        assert [mail.recipients for mail in fleets.mails("lmtp")] == [["b@y.example"], ["c@z.example"]][: 1 + spools]
        found = gateway_process.wait_until(
            lambda: [one for one in gateway.records() if one["type"] == "Delivery"], "the record"
        )
        assert found[0]["delivery_protocol"] == "LMTP"
    finally:
        gateway.kill()
