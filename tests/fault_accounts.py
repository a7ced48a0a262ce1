"""Clients that send to fleets at fault, and what has to be true of each message then: what its client was told, where
it has arrived, what the records say, and how long it took.
"""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.fault_cases import CONTENT, LARGE, MIDST, SOUND, Cell, FaultyFleets, Way, tables
from tests.gateway_process import PATIENCE, Gateway, wait_until

ONE_OF_MANY = 48  # clients
ONE_OF_FEW = 2  # that send large messages


class Client:
    """A session that goes on whatever becomes of its messages: a gateway that ends it fails the test."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, 2 * PATIENCE)
        self._file = self._socket.makefile("rb")
        self.say(b"EHLO client.example\r\n", 2)

    def say(self, octets: bytes, replies: int) -> str:
        """The code of the last of so many replies."""
        self._socket.sendall(octets)
        code = ""
        while replies:
            line = self._file.readline()
            assert line[:3].isdigit(), f"no reply but {line!r}"
            if line[3:4] != b"-":
                code, replies = line[:3].decode(), replies - 1
        return code

    def send(self, sender: str, recipient: str, content: bytes) -> str:
        """The code of the reply to a message."""
        code = self.say(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode(), 3)
        assert code == "354"
        return self.say(content + b".\r\n", 1)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@dataclass
class Sent:
    """A message. told: the code of its reply, with a question mark where the records call its outcome unknown."""

    cell: Cell
    name: str
    told: str
    took: float
    asked: bool = False  # the member at fault was given its MAIL


def sent_to(faulty: FaultyFleets, address: tuple[str, int], each: int) -> list[Sent]:
    """Send `each` messages to every fleet, one to those that are cut in the middle of a content; in any order."""
    numbers = itertools.count()
    small = [cell for cell in faulty.cells.values() if cell.stage != MIDST for _ in range(each)]
    large = [cell for cell in faulty.cells.values() if cell.stage == MIDST]
    random.Random(1).shuffle(small)

    def sending(cells: list[Cell]) -> Callable[[], list[Sent]]:
        left = iter(cells)

        def run() -> list[Sent]:
            done = []
            with closing(Client(address)) as client:
                for cell in left:  # which several threads may ask
                    name = f"m{next(numbers)}"
                    began = time.monotonic()
                    content = LARGE if cell.stage == MIDST else CONTENT
                    code = client.send(f"{name}@x.example", f"{name}@{cell.fleet}.example", content)
                    done.append(Sent(cell, name, code, time.monotonic() - began))
            return done

        return run

    done: list[Sent] = []
    for cells, clients in ((small, ONE_OF_MANY), (large, ONE_OF_FEW)):
        with ThreadPoolExecutor(clients) as pool:
            run = sending(cells)
            for future in [pool.submit(run) for _ in range(min(clients, len(cells)))]:
                done += future.result()
    return done


def told_by_table(message: Sent, way: Way) -> set[str]:
    """What its client may have been told."""
    cell = message.cell
    if not message.asked and cell.told != "250":
        told = {"451" if cell.alone else "250"}  # before the member was asked, it could not say anything
    else:
        told = {cell.told}
        if cell.chunked:
            told.add("250")  # the first one of a connection; and what came behind RCPT looked like the answer to BDAT
            if cell.doing == "one too many":  # the member is sent to by DATA from then on
                every = tables()[cell.heading.partition(",")[0]]
                told |= {other.told for other in every if (other.stage, other.doing) == (cell.stage, cell.doing)}
    return {"250" if code.startswith("451") and way.spool else code for code in told}


class Accounts:
    """What the gateway and the members know of the messages: kinds of records, and arrivals, by message."""

    def __init__(self, gateway: Gateway, faulty: FaultyFleets) -> None:
        self.kinds: dict[str, Counter[str]] = {}
        self.types: Counter[str] = Counter()
        for record in gateway.records():
            self.types[record["type"]] += 1
            recipient = record["recipient"]
            for each in [recipient] if isinstance(recipient, str) else recipient:
                kind = "Unknown" if record.get("reason") == "outcome_unknown" else record["type"]
                if not (record["type"] == "Rejection" and kind == "Unknown"):
                    self.kinds.setdefault(each.partition("@")[0], Counter())[kind] += 1
        self.arrived = Counter(mail.recipients[0].partition("@")[0] for mail in faulty.fleets.all_mails())

    def of(self, name: str) -> Counter[str]:
        """The records of a message by type; "Unknown" is a TransientFailure with an unknown outcome."""
        return self.kinds.get(name, Counter())

    def wrong(self, message: Sent, way: Way) -> str:
        """What is not as it has to be."""
        kinds, arrived = self.of(message.name), self.arrived[message.name]
        unknown, failed, delivered = kinds["Unknown"], kinds["TransientFailure"], kinds["Delivery"]
        if message.told == "250":
            first = (unknown, failed) == (0, 0) or way.spool
            right = delivered == kinds["Reception"] == 1 and first and 1 <= arrived <= 1 + unknown
        elif message.told == "451":
            right = (delivered, unknown, failed, arrived) == (0, 0, 1, 0)
        elif message.told == "451?":
            right = (delivered, unknown, failed) == (0, 1, 0) and arrived <= 1
        else:
            right = (delivered, unknown, failed, arrived, kinds["Rejection"]) == (0, 0, 0, 0, 1)
        return "" if right else f"{message}: {dict(kinds)}, arrived {arrived} times"


def asked(faulty: FaultyFleets) -> set[str]:
    """The names of messages whose MAIL a member at fault has got."""
    commands = [command for upstream in faulty.at_fault.values() for command in upstream.commands]
    return {command[11:].partition("@")[0] for command in commands if command.startswith("MAIL FROM:<m")}


def account_for(gateway: Gateway, faulty: FaultyFleets, sent: list[Sent], way: Way) -> Accounts:
    """Everything is as it has to be."""
    given = asked(faulty)
    for message in sent:
        message.asked = message.name in given
    if way.spool:
        faulty.mend()
        wait_until(lambda: gateway.metric("spool_messages") == 0, lambda: _left(gateway), 6 * PATIENCE)
    found: list[Accounts] = []

    def wrong() -> list[str]:
        found[:] = [Accounts(gateway, faulty)]
        for message in sent:
            if message.told == "451" and found[0].of(message.name)["Unknown"]:
                message.told = "451?"
        return [text for message in sent if (text := found[0].wrong(message, way))]

    wait_until(lambda: not wrong(), lambda: f"as it has to be: {wrong()[:5]}")
    untrue = [message for message in sent if message.told not in told_by_table(message, way)]
    assert not untrue, untrue[:5]
    _counters_agree(gateway, found[0], sent, way)
    return found[0]


def _left(gateway: Gateway) -> str:
    return f"an empty spool: {gateway.metric('spool_messages')} left\n{gateway.diagnostics()[-2000:]}"


def _counters_agree(gateway: Gateway, accounts: Accounts, sent: list[Sent], way: Way) -> None:
    told = Counter(message.told for message in sent)

    def metric(name: str) -> float:
        return gateway.metric(f'messages_total{{disposition="{name}"}}')

    assert metric("relayed") + metric("spooled") == told["250"]
    assert metric("unknown") == told["451?"]
    assert metric("spooled") == (gateway.metric("spool_kept_total") if way.spool else 0)
    for kind in ("Reception", "Delivery", "TransientFailure", "Rejection", "Bounce"):
        assert gateway.metric(f'log_records_total{{type="{kind}"}}') == accounts.types[kind], kind


def measured(sent: list[Sent], accounts: Accounts) -> dict[str, Any]:
    """What a way has shown: replies, duplicates, and seconds lost against a sound fleet of the same size, by cell."""
    lost: dict[str, list[float]] = {}
    for alone in (True, False):
        mine = [message for message in sent if message.cell.alone is alone]
        usual = statistics.median([message.took for message in mine if message.cell.stage == SOUND])
        for message in mine:
            key = f"{'Alone' if alone else 'Beside'}|{message.cell.stage}|{message.cell.doing}"
            lost.setdefault(key, []).append(round(max(0.0, message.took - usual), 4))
    return {
        "messages": len(sent),
        "told": dict(Counter(message.told for message in sent)),
        "arrived_again": sum(number - 1 for number in accounts.arrived.values()),
        "unknown": sum(kinds["Unknown"] for kinds in accounts.kinds.values()),
        "lost": lost,
    }
