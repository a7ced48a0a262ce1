"""The delivery contract at the wire: every `batch_handling`, several domains, two destinations of every behaviour.

Each recipient of a message that got its 250 is with a fleet, in a Maildir or in a Bounce record, each exactly once; no
250 means that the client was told so, and that nothing was sent to anybody after the fleet that failed for now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fleets import BEHAVIOURS, SCRIPTS, TO_FLEETS, Fleets, gateway_before
from tests.gateway_process import Gateway, wait_until

CLIENTS = {"Together": "127.0.1.1", "BatchByDomain": "127.0.1.2", "BifurcateAlways": "127.0.1.3"}
POLICY = (
    """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.0/8' },
    peer = {
      ['127.0.1.1'] = { batch_handling = 'Together' },
      ['127.0.1.2'] = { batch_handling = 'BatchByDomain' },
      ['127.0.1.3'] = { batch_handling = 'BifurcateAlways' },
    },
  }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
"""
    + TO_FLEETS
)
FOR_NOW = {
    "deferred": (451, "4.2.0 come back later"),
    "gone": (451, "4.4.1 The next hop cannot be reached"),
    "unknown": (451, "4.4.2 The next hop vanished before it confirmed the message"),
}


class Case(NamedTuple):
    """One transaction. first, second: how the destination behaves that its recipients go to, in turns."""

    handling: str
    first: str
    second: str

    @property
    def name(self) -> str:
        return "-".join(self).lower()

    @property
    def sender(self) -> str:
        return f"{self.name}@out.example"

    @property
    def fleets(self) -> tuple[str, str]:
        """Where they go. A fleet that vanished is not asked again at once, so each case has its own."""
        here = 10 * (CASES.index(self) + 1) if "unknown" in self else 0
        one, other = (here if behaves == "unknown" else 0 for behaves in (self.first, self.second))
        return f"{self.first}{one + 1}", f"{self.second}{other + 2}"

    @property
    def recipients(self) -> list[str]:
        """In the order of RCPT."""
        one, other = (f"{fleet}.example" for fleet in self.fleets)
        return [f"first@a.{one}", f"first@c.{other}", f"second@a.{one}", f"third@b.{one}", f"second@c.{other}"]

    def deliveries(self) -> list[list[str]]:
        """Who travels together, in the order of hand-over."""
        a1, c1, a2, b, c2 = self.recipients
        return {
            "Together": [[a1, a2, b], [c1, c2]],
            "BatchByDomain": [[a1, a2], [c1, c2], [b]],
            "BifurcateAlways": [[a1], [c1], [a2], [b], [c2]],
        }[self.handling]

    def messages(self) -> int:
        return {"Together": 1, "BatchByDomain": 3, "BifurcateAlways": 5}[self.handling]


def behaviour(recipient: str) -> str:
    return recipient.split(".")[-2].rstrip("0123456789")


class Expected:
    """What has to become of a case's recipients."""

    def __init__(self, case: Case) -> None:
        self.taken: list[list[str]] = []
        self.refused: list[str] = []
        reply: tuple[int, str] | None = None
        for recipients in case.deliveries():
            behaves = behaviour(recipients[0])
            if behaves in FOR_NOW:
                reply = FOR_NOW[behaves]
                break
            refused = [
                recipient
                for recipient in recipients
                if behaves == "refused" or (behaves == "picky" and recipient.startswith("first@"))
            ]
            self.refused += refused
            if len(refused) < len(recipients):
                self.taken.append([recipient for recipient in recipients if recipient not in refused])
        if reply is None and not self.taken:
            reply = (554, "5.6.0 not such content")
        self.reply = reply


class Outcome(NamedTuple):
    """What a client was told."""

    code: int
    text: str


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    for fleet in {fleet for case in CASES for fleet in case.fleets if fleet not in running.addresses}:
        if behaviour(f"{fleet}.example") == "unknown":
            running.add(fleet, SCRIPTS["unknown"])
    yield running
    running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(fleets, tmp_path_factory.mktemp("contract"), POLICY) as running:
        yield running


CASES = [Case(*case) for case in product(CLIENTS, BEHAVIOURS, BEHAVIOURS)]


@pytest.fixture(scope="module")
def told(gateway: Gateway) -> dict[Case, Outcome]:
    """All cases sent, and logged: the log is waited for once."""
    replies: dict[Case, Outcome] = {}
    senders = {case.sender for case in CASES}

    def logged() -> int:  # other tests' messages may be among the records
        return sum(one["type"] == "Reception" and one["sender"] in senders for one in gateway.records())

    for handling, address in CLIENTS.items():
        session = gateway.smtp(address)
        session.ehlo()
        for case in CASES:
            if case.handling != handling:
                continue
            session.mail(case.sender)
            for recipient in case.recipients:
                assert session.rcpt(recipient)[0] == 250
            code, text = session.data(f"Subject: {case.name}\r\n\r\nhello\r\n")
            replies[case] = Outcome(code, text.decode())
        session.quit()
    accepted = sum(case.messages() for case, reply in replies.items() if reply.code == 250)
    wait_until(lambda: logged() == accepted, "every Reception logged")
    return replies


def of_type(gateway: Gateway, kind: str) -> int:
    return sum(record["type"] == kind for record in gateway.records())


def recipients_of(records: list[dict[str, Any]]) -> Counter[str]:
    """How often each recipient is named."""
    named: Counter[str] = Counter()
    for record in records:
        named.update([record["recipient"]] if isinstance(record["recipient"], str) else record["recipient"])
    return named


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_recipient_is_where_the_reply_says(case: Case, gateway: Gateway, fleets: Fleets, told, tmp_path: Path):
    expected, reply = Expected(case), told[case]
    everybody = Counter(case.recipients)
    if expected.reply is None:
        assert reply.code == 250, reply
        refused = f" ({len(expected.refused)} of 5 recipients refused)" if expected.refused else ""
        assert reply.text.startswith("2.0.0 OK ids=")
        assert reply.text.endswith(refused)
        assert len(reply.text.removesuffix(refused).split("=")[1].split()) == case.messages()
    else:
        assert reply == expected.reply

    at_fleets = Counter[str]()
    for mail in fleets.all_mails():
        if mail.sender == case.sender:
            at_fleets.update(mail.recipients)
            assert f"Subject: {case.name}\r\n\r\nhello\r\n".encode() in mail.content
    assert at_fleets == Counter(r for group in expected.taken for r in group if behaviour(r) != "stored")

    subject = f"Subject: {case.name}\r\n".encode()
    files = [path for path in gateway.maildir.glob("*/new/*") if subject in path.read_bytes()]
    stored = [group for group in expected.taken if behaviour(group[0]) == "stored"]
    assert len(files) == len(stored)

    own = [record for record in gateway.records() if record["sender"] == case.sender]
    by_type = {kind: [record for record in own if record["type"] == kind] for kind in {r["type"] for r in own}}
    assert recipients_of(by_type.get("Delivery", [])) == Counter(r for group in expected.taken for r in group)
    if expected.reply is None:
        assert recipients_of(by_type["Reception"]) == everybody
        assert recipients_of(by_type.get("Bounce", [])) == Counter(expected.refused)
        assert not by_type.keys() & {"TransientFailure", "Rejection"}
    else:
        assert recipients_of(by_type["Rejection"]) == everybody
        assert "Reception" not in by_type
        assert by_type["Rejection"][0]["response"]["code"] == reply.code


# --- as many as there may be ------------------------------------------------------------------------------------------


def send_to_many(gateway: Gateway, domain: str, count: int = 1000) -> tuple[int, str]:
    session = gateway.smtp(CLIENTS["BifurcateAlways"])
    session.ehlo("x" * 40)
    session.putcmd("MAIL FROM:<many@out.example>")
    for number in range(count):
        session.putcmd(f"RCPT TO:<r{number}@{domain}>")
    session.putcmd("DATA")
    for _ in range(count + 1):
        assert session.getreply()[0] == 250
    assert session.getreply()[0] == 354
    session.send(f"Subject: {domain}\r\n\r\nhello\r\n.\r\n")
    code, text = session.getreply()
    assert session.noop()[0] == 250
    session.quit()
    return code, text.decode()


def test_a_thousand_messages_of_one_transaction_into_a_maildir(gateway: Gateway):
    code, text = send_to_many(gateway, "many.stored1.example")
    assert code == 250
    assert len(text) < 500
    assert text.endswith(" and 988 more")
    subject = b"Subject: many.stored1.example\r\n"
    assert sum(subject in path.read_bytes() for path in gateway.maildir.glob("stored1/new/*")) == 1000


def test_a_thousand_refusals_that_come_at_once(gateway: Gateway):
    """The member's SIZE says that it takes no message at all, so nothing need be asked for the others."""
    assert send_to_many(gateway, "many.tiny1.example") == (552, "5.3.4 message too big for the next hop")
