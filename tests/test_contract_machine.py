"""The delivery contract as a state machine: clients, the gateway and a fleet together, in memory and in virtual time,
against a reference that is a few lines long. Which client says what, what each member does to whom and when it is away
are hypothesis' choice; so is how octets are cut.

Real are the session, the policy, the transaction, the couriers with the fleet's health, the client's side of SMTP,
and in half of the examples the spool but for its thread.
MACHINE=N runs N examples instead of the short form (make fuzz).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pytest import MonkeyPatch

from gateway.config import SpoolSettings
from gateway.couriers.couriers import Couriers
from gateway.couriers.spool import spool as spools
from gateway.couriers.spool.spool import Spool
from gateway.couriers.spool.store import Row
from gateway.delivery.redelivery import Redelivery
from gateway.later import Later
from gateway.logs.encoding import Record
from gateway.net.endpoints import Endpoints
from gateway.policy.background import Background
from gateway.policy.listener import TermsTable
from gateway.why.client import MemoryClient, services_in_memory
from tests.in_virtual_time import Member, Network, SpoolOnLoop, VirtualLoop
from tests.policy_tools import load, new_page
from tests.upstream import Answer, Do

MEMBERS = (1, 2)  # ports
CLIENTS = 3  # at once
TIMEOUTS = ("banner", "ehlo", "mail_from", "rcpt_to", "data", "data_dot")
POLICY = (
    """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '198.51.100.0/24' } }
end)
kumo.on('smtp_server_rcpt_to', function(recipient)
  if recipient.user == 'nobody' then kumo.reject(550, '5.1.1 nobody') end
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = { '192.0.2.11:1', '192.0.2.12:2' } } }, retry_interval = '10s',
  }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { enable_tls = 'Disabled', connect_timeout = '5s', """
    + ", ".join(f"{each}_timeout = '20s'" for each in TIMEOUTS)
    + """ }
end)
"""
)
LONGEST = 400.0  # seconds: after that everybody has been answered
DRAINED = 20_000.0  # … and everything is out of the spool, which retry_interval puts off ever longer
STAGES = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET")
FAULTS: dict[str, Answer] = {
    "silent": Do.STALL,
    "closes": Do.DROP,
    "resets": Do.RESET,
    "421": b"421 4.3.2 leaving\r\n",
    "4xx": b"451 4.2.1 not now\r\n",
    "5xx": b"554 5.7.1 no\r\n",
    "garbage": b"what?\r\n",
    "half a line": b"250 2.0",
    "one too many": b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n",
}
# What a client may say in vain or beside its mail, and the class of the reply that is due.
ASIDE = {
    b"NOOP": "250",
    b"RSET": "250",
    b"VRFY <a@b.example>": "252",
    b"EXPN list": "502",
    b"FROB": "500",
    b"DATA": "503",
    b"RCPT TO:<a@b.example>": "503",
    b"MAIL FROM:<a": "501",
    b"EHLO again.example": "250",
}


class SyncedLogs:
    """In the place of the log writer: a record counts once it is on disk, which takes its time."""

    full = False
    disk_problem = None

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._written: list[Record] = []
        self.synced: list[Record] = []

    def told(self, type: str, sender: str, *, only_synced: bool = False) -> list[dict[str, Any]]:
        """The records of a kind that a message has."""
        records = self.synced if only_synced else self.synced + self._written
        lines = (json.loads(record.line()) for record in records if record.type == type)
        return [line for line in lines if line["sender"] == sender]

    def submit(self, record: Record, message: object = None) -> bool:
        """See LogWriter."""
        self._written.append(record)
        return True

    def durable(self) -> Later:
        """See LogWriter."""
        later = Later()

        def synced() -> None:
            self.synced += self._written
            self._written = []
            later.settle(True)

        self._loop.call_later(0.01, synced)
        return later


@dataclass
class Sent:
    """One message, and what its client was told: recipients are those that got a 250. code: of the final reply."""

    name: str
    recipients: list[str]
    code: str = ""

    @property
    def sender(self) -> str:
        return f"{self.name}@out.example"


@dataclass
class Speaker:
    """One client. due: what its replies have to be, in order; a Sent where the reply says what becomes of it."""

    client: MemoryClient
    due: list[str | Sent] = field(default_factory=list)
    replies: bytes = b""


class ContractMachine(RuleBasedStateMachine):
    """faults: (port, stage) → what that member does there, once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.network = Network(self.loop, Random(0))
        self.faults: dict[tuple[int, str], Answer] = {}
        self.members = [Member(port, lambda dialogue, said, port=port: self.decide(port, said)) for port in MEMBERS]
        self.network.members = dict(zip(MEMBERS, self.members, strict=True))
        page = new_page()
        policy = load(POLICY, page=page, background=Background(self.loop))
        self.logs = SyncedLogs(self.loop)
        self.couriers = Couriers(self.network, page, "machine", "gw.example")
        self.services = services_in_memory(
            policy, page, self.couriers, self.logs, now_ns=lambda: int(self.loop.time() * 1e9), monotonic=self.loop.time
        )
        self.table = TermsTable(policy.config.listeners[0], offer_auth=False)
        self.spool: Spool | None = None
        self.folder = TemporaryDirectory()
        self.patch = MonkeyPatch()
        self.page = page
        self.speakers: list[Speaker] = []
        self.sent: list[Sent] = []

    def decide(self, port: int, said: str) -> Answer | None:
        """See Upstream."""
        stage = said if said in (".", "CONNECT") else said.partition(" ")[0].upper()
        return self.faults.pop((port, stage), None)

    # --- what may happen ----------------------------------------------------------------------------------------------

    @initialize(seed=st.integers(0, 1 << 16), spool=st.booleans())
    def cut_octets_by(self, seed: int, spool: bool) -> None:
        self.network.random.seed(seed)
        if spool:
            self.begin_spool()
        self.a_client_comes()

    def begin_spool(self) -> None:
        def writer(path: str, call_soon: object, opened: Callable[[list[Row], bool], None], *others: object) -> Any:
            return SpoolOnLoop(self.loop, opened)

        settings = SpoolSettings(name="data", path=self.folder.name)
        self.patch.setattr(spools, "SpoolWriter", writer)
        self.patch.setattr(spools, "LOOK_INTERVAL", 30.0)  # nobody leaves orders, and looking costs time
        self.spool = Spool(self.loop, self.page, settings, 0, self.loop.time)
        self.services.spool = self.spool
        Redelivery(self.services, self.spool).start()

    @rule(
        port=st.sampled_from(MEMBERS),
        stage=st.sampled_from(STAGES),
        how=st.sampled_from(sorted(FAULTS)),
    )
    def a_member_fails(self, port: int, stage: str, how: str) -> None:
        self.faults[port, stage] = FAULTS[how]

    @rule(port=st.sampled_from(MEMBERS), how=st.sampled_from(["goes", "drops", "resets", "is slow", "is late"]))
    def a_member_is_away(self, port: int, how: str) -> None:
        """Or comes back."""
        member = self.network.members[port]
        if how.startswith("is"):
            member.lag = 0.5 if how == "is slow" else 25.0
        else:
            member.listens = not member.listens
            if how != "goes":
                member.drop_all(Do.DROP if how == "drops" else Do.RESET)
        self.loop.settle()

    @rule(seconds=st.sampled_from([0.02, 1.0, 6.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.let_pass(seconds)

    @precondition(lambda self: len(self.speakers) < CLIENTS)
    @rule()
    def a_client_comes(self) -> None:
        ends = Endpoints(("198.51.100.7", 40000 + len(self.speakers)), ("127.0.0.1", 25))
        speaker = Speaker(MemoryClient(self.services, self.table, ends))
        self.speakers.append(speaker)
        speaker.due.append("220")
        self.say(speaker, b"EHLO client.example\r\n", "250")

    @precondition(lambda self: self.speakers)
    @rule(
        which=st.integers(0, CLIENTS - 1),
        recipients=st.lists(st.sampled_from(["a", "b", "c", "nobody"]), min_size=1, max_size=4, unique=True),
        lines=st.integers(0, 40),
        chunks=st.sampled_from([0, 0, 1, 2]),
        more=st.lists(st.sampled_from(sorted(ASIDE)), max_size=3),
    )
    def a_message_is_sent(self, which: int, recipients: list[str], lines: int, chunks: int, more: list[bytes]) -> None:
        """chunks: in how many it comes with BDAT; 0 for DATA. more: said behind it, without waiting."""
        speaker = self.speakers[which % len(self.speakers)]
        if any(isinstance(due, Sent) for due in speaker.due):
            return  # it waits for an answer, as most do
        message = Sent(f"m{len(self.sent)}", [f"{user}@far.example" for user in recipients if user != "nobody"])
        content = f"Subject: {message.name}\r\n\r\n".encode() + b".line\r\n" * lines
        envelope = [
            f"MAIL FROM:<{message.sender}>".encode(),
            *(f"RCPT TO:<{user}@far.example>".encode() for user in recipients),
        ]
        codes = ["250", *("550" if user == "nobody" else "250" for user in recipients)]
        tail = b"".join(each + b"\r\n" for each in more)
        final: list[str | Sent] = [message] if message.recipients else []
        if not message.recipients:
            self.say(speaker, b"\r\n".join([*envelope, b"DATA", b"RSET", tail]), *codes, "5", "250", *self.due(more))
            return
        self.sent.append(message)
        if not chunks:
            self.say(speaker, b"\r\n".join([*envelope, b"DATA", b""]), *codes, "354")
            stuffed = content.replace(b"\r\n.", b"\r\n..")
            self.say(speaker, stuffed + b".\r\n" + tail, *final, *self.due(more))
        else:
            half = len(content) // chunks if chunks > 1 else 0
            first = [b"BDAT %d\r\n%s" % (half, content[:half])] if half else []
            last = [b"BDAT %d LAST\r\n%s" % (len(content) - half, content[half:])]
            octets = b"\r\n".join([*envelope, b""]) + b"".join([*first, *last]) + tail
            self.say(speaker, octets, *codes, *["250" for _ in first], *final, *self.due(more))

    @precondition(lambda self: self.speakers)
    @rule(
        which=st.integers(0, CLIENTS - 1),
        stage=st.sampled_from(["MAIL", "RCPT", "RCPT", "DATA", ".", "."]),
        how=st.sampled_from([*sorted(FAULTS), *["5xx"] * 4]),
        ports=st.sampled_from([MEMBERS[:1], MEMBERS[1:], MEMBERS]),
        chunks=st.integers(0, 1),
    )
    def a_message_meets_a_fault(self, which: int, stage: str, how: str, ports: tuple[int, ...], chunks: int) -> None:
        for port in ports:
            self.a_member_fails(port, stage, how)
        self.a_message_is_sent(which, ["a", "nobody", "b"], 3, chunks, [])

    @precondition(lambda self: self.speakers)
    @rule(which=st.integers(0, CLIENTS - 1), words=st.lists(st.sampled_from(sorted(ASIDE)), min_size=1, max_size=3))
    def something_else_is_said(self, which: int, words: list[bytes]) -> None:
        speaker = self.speakers[which % len(self.speakers)]
        self.say(speaker, b"".join(word + b"\r\n" for word in words), *self.due(words))

    @precondition(lambda self: self.speakers)
    @rule(which=st.integers(0, CLIENTS - 1), quits=st.booleans())
    def a_client_goes(self, which: int, quits: bool) -> None:
        """Without QUIT it does not wait for what is due, and nobody knows what it would have been told."""
        speaker = self.speakers.pop(which % len(self.speakers))
        if quits:
            self.say(speaker, b"QUIT\r\n", "221")
            self.loop.let_pass(LONGEST)
            self.listen(speaker)
            assert speaker.due == []
        for due in speaker.due:
            if isinstance(due, Sent):
                due.code = "gone"
        speaker.client.reception.lost()
        self.loop.settle()

    # --- clients ------------------------------------------------------------------------------------------------------

    @staticmethod
    def due(words: list[bytes]) -> list[str]:
        return [ASIDE[word] for word in words]

    def say(self, speaker: Speaker, octets: bytes, *due: str | Sent) -> None:
        speaker.due += due
        random = self.network.random
        while octets:
            cut = len(octets) if random.random() < 0.5 else random.randrange(1, len(octets) + 1)
            speaker.client.send(octets[:cut])
            octets = octets[cut:]
        self.loop.settle()
        self.listen(speaker)

    def listen(self, speaker: Speaker) -> None:
        """Each reply is the one that is due, in order."""
        speaker.replies += speaker.client.received()
        while found := re.match(rb"(?:(\d\d\d)-[^\r\n]*\r\n)*(\d\d\d) [^\r\n]*\r\n", speaker.replies):
            speaker.replies = speaker.replies[found.end() :]
            code = found[2].decode()
            assert speaker.due, f"nothing was asked that {found[0]!r} answers"
            due = speaker.due.pop(0)
            if isinstance(due, Sent):
                due.code = code
                self.check(due)
            else:
                assert code.startswith(due), f"{found[0]!r} instead of {due}"

    # --- the contract -------------------------------------------------------------------------------------------------

    def arrived(self, message: Sent) -> Counter[str]:
        """How often, by recipient."""
        mails = (mail for member in self.members for mail in member.mails if mail.sender == message.sender)
        return Counter(recipient for mail in mails for recipient in mail.recipients)

    def bounced(self, message: Sent) -> Counter[str]:
        """Who has a record of refusal on disk."""
        records = self.logs.told("Bounce", message.sender, only_synced=True)
        return Counter(each for record in records for each in named(record))

    def check(self, message: Sent) -> None:
        """To be called when its reply has come, and in the end."""
        if self.spool is not None:
            self.check_spooled(message)
            return
        arrived = self.arrived(message)
        assert set(arrived) <= set(message.recipients), "nothing reaches who was refused, or never named"
        assert all(times == 1 for times in arrived.values()), f"{message}: twice: {arrived}"
        if message.code == "250":
            here = arrived + self.bounced(message)
            assert here == Counter(message.recipients), f"{message} is at {arrived}, refused {self.bounced(message)}"
        elif arrived and message.code != "gone":
            assert self.is_unknown(message), f"{message} is at {arrived}"

    def check_spooled(self, message: Sent) -> None:
        """Who is not at a member yet may be in the spool; nobody gets it more often than once, and once for each time
        that it was unknown. A refusal is told by a notification, or by its record.
        """
        arrived = self.arrived(message)
        bounced = Counter(each for record in self.logs.told("Bounce", message.sender) for each in named(record))
        assert set(arrived) <= set(message.recipients)
        if message.code not in ("250", "gone"):
            assert not arrived, f"{message} is at {arrived}"
            return
        for recipient in message.recipients:
            here, most = arrived[recipient] + bounced[recipient], 1 + self.times_unknown(message, recipient)
            assert here <= most, f"{message}: {arrived}, {bounced}, not {most}"
            assert here or self.waiting() or message.code == "gone", f"{message}: {recipient} is lost"

    def waiting(self) -> int:
        """Messages in the spool."""
        return 0 if self.spool is None else len(self.spool.schedule)

    def is_unknown(self, message: Sent) -> bool:
        """Whether its record says that what became of it is unknown (RFC 1047)."""
        return any(self.times_unknown(message, recipient) for recipient in message.recipients)

    def times_unknown(self, message: Sent, recipient: str) -> int:
        told = self.logs.told("TransientFailure", message.sender)
        return sum(each["reason"] == "outcome_unknown" and recipient in named(each) for each in told)

    def teardown(self) -> None:
        try:
            self.faults.clear()
            self.loop.let_pass(LONGEST)
            for speaker in self.speakers:
                self.listen(speaker)
                assert speaker.due == [], f"never answered: {speaker.due}"
                speaker.client.reception.lost()
            if self.spool is not None:
                for member in self.members:
                    member.listens, member.lag = True, 0.0
                until = self.loop.time() + DRAINED
                while self.waiting() and self.loop.time() < until:
                    self.loop.let_pass(10.0)
                assert not self.waiting(), "the spool is not empty"
            for message in self.sent:
                assert message.code, "a message without an answer"
                self.check(message)
            self.loop.run_until_complete(self.couriers.close(0))
            if self.spool is not None:
                self.loop.run_until_complete(self.spool.close(0))
        finally:
            self.patch.undo()
            self.folder.cleanup()
            self.network.close()
            self.loop.close()


def named(record: dict[str, Any]) -> list[str]:
    """The recipients of a record."""
    found = record["recipient"]
    return [found] if isinstance(found, str) else found


EXAMPLES = int(os.environ.get("MACHINE", "0"))
TestContract: Any = ContractMachine.TestCase
TestContract.settings = settings(
    max_examples=EXAMPLES or 60,
    stateful_step_count=60 if EXAMPLES else 40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
