"""What is done to a fleet: the tables of docs/delivery.md, the ways in which it is done, and members at fault.

Who sends, and how every message is accounted for, is tests/fault_accounts.py.
"""

from __future__ import annotations

import itertools
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fleets import Fleets
from tests.gateway_process import INIT
from tests.upstream import CHUNKING, DEFAULTS, EXTENSIONS, Answer, Do, Slowly, Upstream, ehlo, sound_at_first

DOCS = Path(__file__).parent.parent / "docs" / "delivery.md"
STAGES = {
    "greeting": "CONNECT",
    "EHLO": "EHLO",
    "STARTTLS": "STARTTLS",
    "MAIL": "MAIL",
    "RCPT": "RCPT",
    "DATA": "DATA",
    "dot": ".",
    "BDAT": "BDAT",
}
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
MIDST = "mid-content"
SOUND = "sound"  # where nothing is amiss: what the others are compared with
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
LARGE = b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 6000  # more than the kernel takes off the gateway's hands
POLICY = """
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = MEMBERS[domain:match '^(.*)%.example$'] } }, retry_interval = '1 second',
  }
end)
kumo.on('get_egress_path_config', function(domain)
  local soon = domain:find 'mid%-content' and '10s' or '3s' -- for the silent; a busy machine must not seem to be one
  return kumo.make_egress_path {
    enable_tls = SECURE and 'RequiredInsecure' or 'Disabled', enable_chunking = CHUNKS,
    connect_timeout = soon, banner_timeout = soon, ehlo_timeout = soon, starttls_timeout = soon,
    mail_from_timeout = soon, rcpt_to_timeout = soon, data_timeout = soon, data_dot_timeout = soon,
  }
end)
"""
SPOOL = "  kumo.define_spool { name = 'data', path = SPOOL, min_free_space = 0, min_free_inodes = 0 }\nend)"


@dataclass(frozen=True)
class Way:
    """How it is done. sound: members beside the one at fault, in the tables that have some. spool: the gateway's."""

    workers: int = 1
    pipelining: bool = True
    chunking: bool = False
    tls: bool = False
    spool: bool = False
    sound: int = 1

    @property
    def chunks(self) -> bool:
        """Whether contents really go out in chunks, which takes PIPELINING."""
        return self.chunking and self.pipelining

    def policy(self, members: str, folder: Path) -> str:
        """members: a table in Lua, the fleets by name."""
        known = f"MEMBERS = {members}; SPOOL = '{folder}/spool'; "
        known += f"SECURE, CHUNKS = {str(self.tls).lower()}, {str(self.chunking).lower()} "
        opened = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
        return known + (opened.rstrip().removesuffix("end)") + SPOOL if self.spool else opened) + POLICY


def every_way() -> list[Way]:
    """16 of the 64 that there are: of any three of the six choices every combination is among them."""
    ways = []
    for first, second, third, fourth in itertools.product((False, True), repeat=4):
        fifth, sixth = first ^ second ^ third, second ^ third ^ fourth
        ways.append(Way(1 + first, second, third, fourth, fifth, 7 if sixth else 1))
    return ways


@dataclass(frozen=True)
class Cell:
    """heading, stage, doing: its place in the tables. told: what it says there."""

    heading: str
    stage: str
    doing: str
    told: str

    @property
    def fleet(self) -> str:
        """Its name, which is the first part of its mailboxes' domain."""
        return "-".join(re.findall(r"\w+", f"{self.heading} {self.stage} {self.doing}".lower()))

    @property
    def chunked(self) -> bool:
        """It is done to messages in chunks, so not to the first one of a connection."""
        return self.heading.endswith("CHUNKING")

    @property
    def alone(self) -> bool:
        """No sound member is beside the one at fault."""
        return self.heading.startswith("Alone")


def tables() -> dict[str, list[Cell]]:
    """The cells of the page's tables of replies, by heading."""
    found = {}
    for heading, text in re.findall(r"^### ([^\n]+)\n\n((?:\|[^\n]*\n)+)", DOCS.read_text(), re.MULTILINE):
        names, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
        found[heading] = [
            Cell(heading, row[0], doing, cell)
            for row in rows
            for doing, cell in zip(names[1:], row[1:], strict=True)
            if cell != "–"
        ]
    return found


def cells(way: Way) -> list[Cell]:
    """What is done in this way, and a sound fleet of each size."""
    found = []
    every = tables()
    for heading in ("Alone", "Beside a sound member"):
        chosen = {(cell.stage, cell.doing): cell for cell in every[heading]}
        if way.chunks:
            chosen = {place: cell for place, cell in chosen.items() if place[0] not in ("MAIL", "RCPT", "DATA", "dot")}
            chosen |= {(cell.stage, cell.doing): cell for cell in every[f"{heading}, with CHUNKING"]}
        if not way.tls:
            chosen = {place: cell for place, cell in chosen.items() if place[0] != "STARTTLS"}
        elif cell := chosen.get(("EHLO", "5xx")):  # a server without extensions has no TLS
            told = "451" if heading == "Alone" else "250"
            chosen["EHLO", "5xx"] = Cell(cell.heading, cell.stage, cell.doing, told)
        found += [*chosen.values(), Cell(heading, SOUND, "", "250")]
    return found


@dataclass(frozen=True)
class FaultyFleets:
    """All fleets of one way. cells: by fleet. at_fault: the member that is, by fleet. members: "IP:PORT" by fleet."""

    fleets: Fleets
    cells: dict[str, Cell]
    at_fault: dict[str, Upstream]
    members: dict[str, list[str]]

    @property
    def lua(self) -> str:
        """The members as a table."""
        return "{ " + ", ".join(f"['{name}'] = {{ {str(at)[1:-1]} }}" for name, at in self.members.items()) + " }"

    def mend(self) -> None:
        """Nothing is amiss any more."""

        async def all_of_them() -> None:
            for upstream in self.at_fault.values():
                upstream.cut_received = None
                upstream.answers = dict(self.fleets.upstreams["sound0"].answers)
                upstream.drop_all(Do.RESET)

        self.fleets._run(all_of_them())


def _add(fleets: Fleets, name: str, cell: Cell | None, way: Way, context: ssl.SSLContext | None) -> Upstream:
    """A member that does something at a stage; a sound one without a cell."""
    extensions = CHUNKING if way.chunking else EXTENSIONS
    offered = [each for each in extensions if way.pipelining or each != "PIPELINING"]
    answers: dict[str, Answer | list[Answer]] = {"EHLO": ehlo(*offered)}
    if context is not None:
        answers |= {"EHLO": ehlo(*offered, "STARTTLS"), "STARTTLS": Do.START_TLS}
    cut = None
    if cell is not None:
        how = DOINGS[cell.doing]
        if cell.stage == MIDST:
            cut = 100_000, how
        else:
            key = STAGES[cell.stage]
            if cell.doing == "one too many":
                own = answers.get(key, DEFAULTS[key])
                assert isinstance(how, bytes)
                how = (own if isinstance(own, bytes) else b"220 2.0.0 go ahead\r\n") + how
            answers[key] = how
    if cell is not None and cell.chunked:
        return fleets.add(name, answers, tls=context, decide=sound_at_first)
    return fleets.add(name, answers, cut=cut, tls=context)


@contextmanager
def faulty_fleets(way: Way, context: ssl.SSLContext | None, chosen: list[Cell]) -> Iterator[FaultyFleets]:
    """The fleets of these cells. context: for members with TLS."""
    fleets = Fleets()
    context = context if way.tls else None
    try:
        sound = [f"sound{number}" for number in range(way.sound + 1)]
        for name in sound:
            _add(fleets, name, None, way, context)
        at_fault, members = {}, {}
        for cell in chosen:
            names = sound[:1] if cell.alone else sound
            if cell.stage != SOUND:
                at_fault[cell.fleet] = _add(fleets, cell.fleet, cell, way, context)
                others = [] if cell.alone else sound[1:]
                names = [*others[:1], cell.fleet, *others[1:]]  # the second is asked first
            members[cell.fleet] = [fleets.addresses[name] for name in names]
        yield FaultyFleets(fleets, {cell.fleet: cell for cell in chosen}, at_fault, members)
    finally:
        fleets.close()
