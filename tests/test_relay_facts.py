"""What a message needs and what members can do, over real sockets: facts decide, not what a client declared; and what
has been learned of a member holds for everyone who names it.
"""

from __future__ import annotations

import logging

import pytest
from couriers_in_loop import BOTH, DELIVERED, UNREACHABLE, Gateway, batch, only, statuses
from upstream import CHUNKING, Do, Upstream, ehlo, sound_at_first

from gateway.config import EgressPath, Host, Listener, QueueConfig, SmtpFleet
from gateway.couriers.couriers import ehlo_domain
from gateway.couriers.fleet.connection import address_literal
from gateway.handover import Status
from gateway.smtp.replies import Reason

FIVE = [f"r{n}@y.example" for n in range(5)]
UNDOTTED = b"Subject: x\r\n\r\nhello\r\n"

# --- facts over declarations ------------------------------------------------------------------------------------------

EIGHT_BIT = "Subject: x\r\n\r\nü\r\n".encode()
UTF8_HEADER = "Subject: ü\r\n\r\nx\r\n".encode()
BARE = {"EHLO": ehlo("PIPELINING")}
WITHOUT_8BITMIME = (Status.PERMANENT, 554, Reason.CONVERSION_REQUIRED)


def test_smtputf8_that_was_only_declared_is_asked_of_nobody(run) -> None:
    async def main() -> None:
        async with Upstream(BARE) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(smtputf8=True))) == DELIVERED
            # RFC 6531 §3.4: a domain alone does not need it, since it has an ASCII form
            assert only(await gateway.hand_over(batch("b@bücher.example", smtputf8=True))) == DELIVERED
            assert member.mails[1].recipients == ["b@xn--bcher-kva.example"]
            assert not any("SMTPUTF8" in command for command in member.commands)

    run(main())


@pytest.mark.parametrize("offered", [("PIPELINING", "8BITMIME"), ("PIPELINING", "8BITMIME", "SMTPUTF8")])
def test_smtputf8_is_not_asked_for_a_body_alone(run, offered) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo(*offered)}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(content=EIGHT_BIT, smtputf8=True))) == DELIVERED
            assert "MAIL FROM:<a@x.example> BODY=8BITMIME" in member.commands

    run(main())


@pytest.mark.parametrize(
    ("recipient", "content"), [("ü@y.example", b"Subject: x\r\n\r\n"), ("b@y.example", UTF8_HEADER)]
)
def test_what_needs_smtputf8_goes_to_a_member_that_offers_it(run, recipient: str, content: bytes) -> None:
    async def main() -> None:
        script = {"EHLO": ehlo("PIPELINING", "8BITMIME")}
        async with Upstream(script) as one, Upstream() as two, Gateway(one, two) as gateway:
            for _ in range(4):
                assert only(await gateway.hand_over(batch(recipient, content=content, smtputf8=True))) == DELIVERED
            assert len(two.mails) == 4
            assert not one.mails
            assert all(command.endswith("SMTPUTF8") for command in two.commands if command.startswith("MAIL"))

    run(main())


def test_a_long_header_is_looked_at_to_its_end(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("8BITMIME")}) as member, Gateway(member) as gateway:
            content = b"X: y\r\n" * 5000 + UTF8_HEADER
            handed = batch(content=content, smtputf8=True)
            assert only(await gateway.hand_over(handed)) == (Status.PERMANENT, 553, Reason.UPSTREAM_REFUSED)
            assert not member.mails

    run(main())


def test_an_eight_bit_header_that_nobody_called_utf8_needs_8bitmime_alone(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("8BITMIME")}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(content=b"Subject: \xe4\r\n\r\n"))) == DELIVERED
            assert "MAIL FROM:<a@x.example> BODY=8BITMIME" in member.commands

    run(main())


@pytest.mark.parametrize("script", [BARE, {"EHLO": b"500 what?\r\n"}], ids=["EHLO", "HELO"])
def test_eight_bit_content_never_goes_to_a_member_without_8bitmime(run, script) -> None:
    async def main() -> None:
        async with Upstream(script) as one, Upstream() as two, Gateway(one, two) as gateway:
            for _ in range(4):
                assert only(await gateway.hand_over(batch(content=EIGHT_BIT))) == DELIVERED
            assert [len(one.mails), len(two.mails)] == [0, 4]
        async with Upstream(script) as one, Upstream(script) as two, Gateway(one, two) as gateway:
            hand_over = await gateway.hand_over(batch(content=EIGHT_BIT))
            assert only(hand_over) == WITHOUT_8BITMIME
            assert hand_over.outcomes[0].response.enhanced == "5.6.3"
            assert [one.commands, two.commands].count([]) == 0
            assert not any("MAIL" in command for command in one.commands + two.commands)
            assert only(await gateway.hand_over(batch())) == DELIVERED

    run(main())


def test_a_large_message_goes_to_the_member_that_takes_it(run) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo("SIZE 10")}) as one, Upstream() as two, Gateway(one, two) as gateway:
            for _ in range(3):
                assert only(await gateway.hand_over(batch())) == DELIVERED
            assert [len(one.mails), len(two.mails)] == [0, 3]

    run(main())


def test_nothing_is_refused_for_good_while_a_member_that_cannot_be_asked_might_take_it(run) -> None:
    async def main() -> None:
        async with Upstream(BARE) as one, Upstream({"CONNECT": Do.DROP}) as two, Gateway(one, two) as gateway:
            for _ in range(2):  # whichever is asked first
                assert only(await gateway.hand_over(batch(content=EIGHT_BIT))) == UNREACHABLE

    run(main())


# --- out of step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [b"250 2.0.0 another\r\n", b"2", b"x\r\n", b"421 4.3.2 bye\r\n"])
@pytest.mark.parametrize("verdict", [".", "BDAT"])
def test_a_surplus_behind_the_verdict_makes_the_outcome_unknown(run, verdict: str, surplus: bytes) -> None:
    async def main() -> None:
        script = {"EHLO": ehlo(*CHUNKING), verdict: [b"250 2.0.0 queued\r\n" + surplus, b"250 2.0.0 queued\r\n"]}
        members = [Upstream(script, decide=sound_at_first) for _ in range(2)]
        async with members[0] as one, members[1] as two, Gateway(one, two) as gateway:
            for _ in members:
                assert only(await gateway.hand_over(batch(content=UNDOTTED))) == DELIVERED
            handed = batch(content=UNDOTTED) if verdict == "BDAT" else batch(*BOTH)
            hand_over = await gateway.hand_over(handed)
            assert {outcome.status for outcome in hand_over.outcomes} == {Status.UNKNOWN}
            assert {outcome.response.code for outcome in hand_over.outcomes} == {451}
            assert len(one.mails) + len(two.mails) == 3  # nobody else was asked
            used = one if len(one.mails) == 2 else two
            await used.until(lambda member: member.dialogues[0].closed)

    run(main())


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_surplus_before_the_content_is_the_members_failure_and_another_one_takes_over(
    run, stage: str, pipelining: bool
) -> None:
    async def main() -> None:
        extensions = ("PIPELINING",) if pipelining else ()
        words = {"CONNECT": b"220 hi\r\n", "EHLO": ehlo(*extensions), "DATA": b"354 go ahead\r\n"}
        script = {"EHLO": ehlo(*extensions), stage: words.get(stage, b"250 ok\r\n") + b"250 ok\r\n"}
        async with Upstream(script) as one, Upstream() as two, Gateway(one, two) as gateway:
            for _ in range(2):
                assert only(await gateway.hand_over(batch())) == DELIVERED
            assert len(two.mails) == 2
            assert not one.mails
            await one.until(lambda member: all(dialogue.closed for dialogue in member.dialogues))

    run(main())


@pytest.mark.parametrize("half", [b"2", b"250 2.0.0 what nobody asked for\r"])
def test_half_an_answer_that_nobody_asked_for_ends_an_idle_connection_and_the_chunks(run, half: bytes) -> None:
    async def main() -> None:
        async with Upstream({"EHLO": ehlo(*CHUNKING)}) as member, Gateway(member) as gateway:
            for _ in range(2):
                assert only(await gateway.hand_over(batch(content=UNDOTTED))) == DELIVERED
            member.say_unasked(half)
            await member.until(lambda member: member.dialogues[0].closed)
            assert only(await gateway.hand_over(batch(content=UNDOTTED))) == DELIVERED
            assert len(member.dialogues) == 2
            ways = [command[:4] for command in member.commands if command[:4] in ("BDAT", "DATA")]
            assert ways == ["DATA", "BDAT", "DATA"]

    run(main())


def test_an_answer_too_many_in_front_of_those_to_a_chunk_makes_no_success_of_the_answer_to_rcpt(run) -> None:
    async def main() -> None:
        script = {
            "EHLO": ehlo(*CHUNKING),
            "MAIL": [b"250 2.0.0 too many\r\n250 2.1.0 ok\r\n", b"250 2.1.0 ok\r\n"],
            "BDAT": Do.STALL,
        }
        async with Upstream(script, decide=sound_at_first) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch(content=UNDOTTED))) == DELIVERED
            unknown = await gateway.hand_over(batch(content=UNDOTTED))
            assert {(outcome.status, outcome.response.code) for outcome in unknown.outcomes} == {(Status.UNKNOWN, 451)}
            await member.until(lambda member: member.dialogues[0].closed)
            assert only(await gateway.hand_over(batch(content=UNDOTTED))) == DELIVERED  # by DATA
            assert len(member.mails) == 2

    run(main())


# --- what was answered before a connection ended ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"MAIL": b"550 5.7.1 no\r\n", "RCPT": Do.DROP}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"MAIL": b"451 4.7.1 later\r\n", "RCPT": Do.RESET}, (Status.TRANSIENT, 451, Reason.UPSTREAM_DEFERRED)),
        ({"MAIL": b"550 5.7.1 no\r\n", "RCPT": b"421 bye\r\n"}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"RCPT": b"550 5.1.1 no\r\n", "DATA": Do.DROP}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
        ({"RCPT": b"550 5.1.1 no\r\n", "DATA": b"421 bye\r\n"}, (Status.PERMANENT, 550, Reason.UPSTREAM_REFUSED)),
    ],
    ids=str,
)
def test_a_refusal_counts_though_the_connection_ends_and_nobody_else_is_asked(run, script, expected) -> None:
    async def main() -> None:
        async with Upstream(script) as one, Upstream(script) as two, Gateway(one, two) as gateway:
            assert only(await gateway.hand_over(batch())) == expected
            assert len(one.dialogues) + len(two.dialogues) == 1

    run(main())


def test_a_lost_connection_with_one_recipient_refused_and_one_taken_is_replaced(run) -> None:
    async def main() -> None:
        script = {"RCPT <b@y.example>": b"550 5.1.1 no\r\n", "DATA": [Do.DROP, b"354 go\r\n"]}
        async with Upstream(script) as one, Upstream(script) as two, Gateway(one, two) as gateway:
            gateway_statuses = statuses(await gateway.hand_over(batch(*BOTH)))
            assert gateway_statuses in (
                [Status.PERMANENT, Status.DELIVERED],
                [Status.TRANSIENT, Status.TRANSIENT],  # both have lost it
            )

    run(main())


# --- too many recipients ----------------------------------------------------------------------------------------------


def at_most(limit: int, words: bytes):
    """A server that takes so many recipients in a transaction."""

    def decide(dialogue, command: str):
        if not command.startswith("RCPT"):
            return None
        before = dialogue.commands[:-1]
        start = max(place for place, word in enumerate(before) if word.startswith("MAIL"))
        taken = sum(word.startswith("RCPT") for word in before[start:])
        return words if taken >= limit else None

    return decide


@pytest.mark.parametrize("words", [b"452 4.5.3 Too many recipients\r\n", b"552 too many recipients\r\n"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_recipients_that_are_too_many_go_in_another_transaction_and_the_limit_is_learned(
    run, words, extensions
) -> None:
    async def main() -> None:
        member = Upstream({"EHLO": ehlo(*extensions)}, decide=at_most(2, words))
        async with member, Gateway(member) as gateway:
            assert statuses(await gateway.hand_over(batch(*FIVE))) == [Status.DELIVERED] * 5
            assert [mail.recipients for mail in member.mails] == [FIVE[:2], FIVE[2:4], FIVE[4:]]
            asked = sum(command.startswith("RCPT") for command in member.commands)
            assert statuses(await gateway.hand_over(batch(*FIVE))) == [Status.DELIVERED] * 5
            assert sum(command.startswith("RCPT") for command in member.commands) == asked + 5

    run(main())


def test_a_limit_among_refused_recipients_loses_nobody(run) -> None:
    async def main() -> None:
        limit = at_most(3, b"452 4.5.3 Too many recipients\r\n")

        def decide(dialogue, command: str):
            return b"550 5.1.1 no\r\n" if FIVE[1] in command else limit(dialogue, command)

        async with Upstream(decide=decide) as member, Gateway(member) as gateway:
            hand_over = await gateway.hand_over(batch(*FIVE))
            assert statuses(hand_over) == [Status.DELIVERED, Status.PERMANENT] + [Status.DELIVERED] * 3
            assert [outcome.recipient.email for outcome in hand_over.outcomes] == FIVE
            taken = [recipient for mail in member.mails for recipient in mail.recipients]
            assert sorted(taken) == sorted(set(FIVE) - {FIVE[1]})

    run(main())


# --- what the gateway calls itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listeners", "machine", "name"),
    [
        (["gw.example"], "vm", "gw.example"),
        (["gw.example", "other.example"], "mx.example", "gw.example"),
        (["gw", "other.example"], "mx.example", "other.example"),
        ([None, "gw"], "mx.example", "mx.example"),
        (["gw."], "vm", ""),
        ([], "vm", ""),
    ],
)
def test_the_name_towards_the_fleet_is_fully_qualified_or_none(listeners, machine: str, name: str) -> None:
    declared = [Listener(listen="127.0.0.1:25", overrides={"hostname": one} if one else {}) for one in listeners]
    assert ehlo_domain(declared, machine) == name


def test_a_host_without_a_name_says_its_address(run) -> None:
    async def main() -> None:
        async with Upstream() as member, Gateway(member, ehlo_domain="") as gateway:
            assert only(await gateway.hand_over(batch())) == DELIVERED
            path = EgressPath(ehlo_domain="path.example")
            assert only(await gateway.hand_over(batch(), path)) == DELIVERED
            said = [command for command in member.commands if command.startswith("EHLO")]
            assert said == ["EHLO [127.0.0.1]", "EHLO path.example"]

    run(main())
    assert address_literal("2001:db8::1%eth0") == "[IPv6:2001:db8::1]"


# --- members, by whatever name ----------------------------------------------------------------------------------------


def queue(*hosts: Host) -> QueueConfig:
    return QueueConfig(protocol=SmtpFleet(hosts))


def test_fleets_that_name_the_same_members_share_connections_and_what_is_known(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream({"CONNECT": Do.DROP}) as two, Gateway() as gateway:
            sound, broken = Host("one", "127.0.0.1", one.port), Host("two", "127.0.0.1", two.port)
            for _ in range(2):
                assert only(await gateway.start(batch(), queue=queue(broken, sound))) == DELIVERED
            assert len(two.dialogues) == 1
            alias = Host("another name", "127.0.0.1", two.port)
            for _ in range(4):  # another fleet, another path, another name
                path = EgressPath(ehlo_domain="other.example")
                assert only(await gateway.start(batch(), path, queue=queue(alias, sound))) == DELIVERED
            assert len(two.dialogues) == 1
            for _ in range(2):
                assert only(await gateway.start(batch(), queue=queue(sound))) == DELIVERED
            assert len(one.dialogues) == 2  # one for each path

    run(main())


def test_a_job_of_another_fleet_gets_the_connection_that_becomes_free(run) -> None:
    async def main() -> None:
        async with Upstream({".": [b"", b"250 2.0.0 ok\r\n"]}) as member, Gateway() as gateway:
            host = Host("m", "127.0.0.1", member.port)
            path = EgressPath(connection_limit=1)
            first = gateway.start(batch(), path, queue=queue(host))
            await member.until(lambda member: "." in member.commands)
            second = gateway.start(batch(), path, queue=queue(host, host))
            member.say_unasked(b"250 2.0.0 at last\r\n")
            assert {only(await first), only(await second)} == {DELIVERED}
            assert len(member.dialogues) == 1

    run(main())


def test_a_member_that_is_back_says_so_and_how_long_it_was_away(run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": [Do.DROP, b"220 hi\r\n"]}) as member, Gateway(member) as gateway:
            assert only(await gateway.hand_over(batch())) == UNREACHABLE
            assert only(await gateway.hand_over(batch())) == DELIVERED

    caplog.set_level(logging.INFO)
    run(main())
    said = [record.getMessage() for record in caplog.records if "m0" in record.getMessage()]
    assert [words.split(" at ")[0] for words in said[:1]] == ["m0 [127.0.0.1] failed"]
    assert said[1].startswith("m0 [127.0.0.1] is back after 0.")
    assert len(said) == 2
