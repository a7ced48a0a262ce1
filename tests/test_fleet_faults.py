"""What docs/delivery.md lists, done to the fleet of a running gateway: the replies, and where each message has arrived.

FAULTS=all (`make faults`) does it in every way, otherwise once.
"""

from __future__ import annotations

import os
import re
import smtplib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleets import Fleets
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import DEFAULTS, EXTENSIONS, Answer, Do, Slowly, ehlo

DOCS = Path(__file__).parent.parent / "docs" / "delivery.md"
OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
STAGES = {"greeting": "CONNECT", "EHLO": "EHLO", "MAIL": "MAIL", "RCPT": "RCPT", "DATA": "DATA", "dot": "."}
DOINGS: dict[str, Answer] = {
    "silent": Do.STALL,
    "slow": Slowly(b"250 2.0.0 in due time\r\n"),
    "closes": Do.DROP,
    "resets": Do.RESET,
    "421": b"421 4.3.2 leaving\r\n",
    "4xx": b"451 4.3.0 not now\r\n",
    "5xx": b"554 5.3.0 never\r\n",
    "garbage": b"what?\r\n",
    "half a line": b"250 2.0",
    "one too many": b"250 2.0.0 too many\r\n",  # behind its answer
}
CONTENT = "hello\r\n"
LARGE = ("x" * 998 + "\r\n") * 8000  # more than the kernel takes off the gateway's hands
POLICY = """
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = MEMBERS[domain:match '^(.*)%.example$'] } } }
end)
kumo.on('get_egress_path_config', function()
  local soon = '3s' -- for the silent; a busy machine must not seem to be one
  return kumo.make_egress_path {
    enable_tls = 'Disabled', connect_timeout = soon, banner_timeout = soon, ehlo_timeout = soon,
    mail_from_timeout = soon, rcpt_to_timeout = soon, data_timeout = soon, data_dot_timeout = soon,
  }
end)
"""


@dataclass(frozen=True)
class Way:
    """How it is done. sound: members beside the one at fault, in the second table."""

    workers: int = 1
    pipelining: bool = True
    sound: int = 1


WAYS = [Way()]
if os.environ.get("FAULTS") == "all":
    WAYS += [Way(pipelining=False), Way(workers=2), Way(sound=7), Way(workers=2, pipelining=False, sound=7)]


def tables() -> dict[str, dict[tuple[str, str], str]]:
    """The cells of the page's tables, by heading, stage and doing."""
    found = {}
    for heading, text in re.findall(r"^### ([^\n]+)\n\n((?:\|[^\n]*\n)+)", DOCS.read_text(), re.MULTILINE):
        names, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
        found[heading] = {
            (row[0], doing): cell for row in rows for doing, cell in zip(names[1:], row[1:], strict=True) if cell != "–"
        }
    return found


TABLES = tables()


def test_the_page_has_every_stage_and_doing() -> None:
    every = {(stage, doing) for stage in STAGES for doing in DOINGS}
    every |= {("mid-content", doing) for doing in ("closes", "resets")}
    assert {heading: set(cells) for heading, cells in TABLES.items()} == {
        "Alone": every,
        "Beside a sound member": every,
    }


def at_fault(fleets: Fleets, name: str, stage: str, doing: str, way: Way) -> None:
    """A member that does something at a stage."""
    answers: dict[str, Answer | list[Answer]] = {}
    if not way.pipelining:
        answers["EHLO"] = ehlo(*EXTENSIONS[1:])
    if stage == "mid-content":
        how = DOINGS[doing]
        assert isinstance(how, Do)
        fleets.add(name, answers, cut=(100_000, how))
    else:
        how = DOINGS[doing]
        if doing == "one too many":
            own = answers.get(STAGES[stage], DEFAULTS[STAGES[stage]])
            assert isinstance(own, bytes)
            assert isinstance(how, bytes)
            how = own + how
        fleets.add(name, {**answers, STAGES[stage]: how})


@contextmanager
def fault_fleets(way: Way) -> Iterator[tuple[Fleets, dict[str, tuple[list[str], str]]]]:
    """The members of each fleet by its name, and what the client is to be told."""
    fleets = Fleets()
    try:
        sound = [f"sound{number}" for number in range(way.sound)]
        for name in sound:
            fleets.add(name, {})
        cases = {}
        for heading, cells in TABLES.items():
            for (stage, doing), expected in cells.items():
                name = f"{heading.split()[0]}-{stage}-{doing}".lower().replace(" ", "-")
                at_fault(fleets, name, stage, doing, way)
                others = sound if heading != "Alone" else []
                members = [*others[:1], name, *others[1:]]  # the second is asked first
                cases[name] = [fleets.addresses[member] for member in members], expected
        yield fleets, cases
    finally:
        fleets.close()


def told(gateway: Gateway, name: str) -> str:
    """Send the fleet its message; the code of the reply."""
    content = LARGE if "mid-content" in name else CONTENT
    with smtplib.SMTP(*gateway.address, "client.example", 60) as client:
        try:
            client.sendmail("a@x.example", [f"one@{name}.example"], f"Subject: {name}\r\n\r\n{content}")
        except smtplib.SMTPDataError as error:
            return str(error.smtp_code)
    return "250"


def was_asked(fleets: Fleets, name: str) -> bool:
    """Whether the member at fault has got the message's MAIL."""
    return any(command.startswith("MAIL") for command in fleets.upstreams[name].commands)


def _unasked(name: str, code: str) -> str:
    return "250" if name.startswith("beside") else code


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_whatever_a_member_does_every_reply_is_true_and_every_message_accounted_for(way: Way, tmp_path: Path) -> None:
    with fault_fleets(way) as (fleets, cases):
        lua = ", ".join(f"['{name}'] = {{ {str(members)[1:-1]} }}" for name, (members, _) in cases.items())
        gateway = Gateway(tmp_path, f"MEMBERS = {{ {lua} }} {OPEN}{POLICY}", "--workers", str(way.workers))
        try:
            gateway.announced()
            with ThreadPoolExecutor(48) as clients:
                small, large = ([name for name in cases if ("mid-content" in name) is large] for large in (False, True))
                replies = dict(zip(small, clients.map(lambda name: told(gateway, name), small), strict=True))
            replies |= {name: told(gateway, name) for name in large}
            # whom the message went elsewhere from in time, before it was asked anything, could not refuse it
            expected = {
                name: code if was_asked(fleets, name) else _unasked(name, code) for name, (_, code) in cases.items()
            }
            assert replies == {name: code.removesuffix("?") for name, code in expected.items()}
            arrived = Counter(mail.recipients[0].split("@")[1].removesuffix(".example") for mail in fleets.all_mails())
            possible = {"250": {1}, "451": {0}, "554": {0}, "451?": {0, 1}}
            assert [name for name, code in expected.items() if arrived[name] not in possible[code]] == []
            kinds = {"250": "Delivery", "451": "TransientFailure", "451?": "TransientFailure"}

            wanted = {name: kinds[code] for name, code in expected.items() if code in kinds}

            def missing() -> set[tuple[str, str]]:
                seen = {
                    (record["recipient"].split("@")[1].removesuffix(".example"), record["type"])
                    for record in gateway.records()
                    if record["type"] in ("Bounce", *kinds.values())
                }
                return seen ^ set(wanted.items())

            wait_until(lambda: not missing(), lambda: f"a record of each message: {missing()}")
            codes = Counter(expected.values())
            for disposition, count in (("relayed", codes["250"]), ("unknown", codes["451?"])):
                assert gateway.metric(f'messages_total{{disposition="{disposition}"}}') == count
        finally:
            gateway.kill()
