"""Members that are processes are killed and started again under load, all of them go away and come back, and name
servers fall silent: no message is lost, and one that arrives twice is one whose outcome was unknown.

Clients do as they are told: who gets 4xx sends the message again. FAULTS=all (`make faults`) goes on for a minute each,
with one, two and eight members, and tells tests/fault_report.py what it cost.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault_accounts import Client
from tests.fault_report import note
from tests.gateway_process import INIT, PATIENCE, Gateway, Sink, wait_until
from tests.outside import NameServer
from tests.ports import free_port

ALL = os.environ.get("FAULTS") == "all"
CLIENTS = 8
AGAIN = 0.2  # seconds until a client that was told 4xx comes back
BODY = b"hello\r\n" * 100
POLICY = """
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { MEMBERS } } }, retry_interval = '1 second' }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { enable_tls = 'Disabled', data_dot_timeout = '10 seconds' }
end)
"""
SPOOL = "  kumo.define_spool { name = 'data', path = SPOOL, min_free_space = 0, min_free_inodes = 0 }\nend)"


@dataclass(frozen=True)
class Way:
    """members: how many there are. spool: the gateway has one. kills: one is killed and started again so many times."""

    members: int = 2
    workers: int = 1
    spool: bool = False
    kills: int = 4


KILLED, AWAY, NAMELESS = [Way()], [], []
if ALL:
    KILLED = [
        Way(1, 1, False, 40),
        Way(2, 1, False, 40),
        Way(2, 2, True, 40),
        Way(8, 2, False, 40),
        Way(8, 1, True, 40),
        Way(1, 2, True, 40),
    ]
    AWAY = [Way(1, 2, False), Way(2, 1, True), Way(8, 2, True)]
    NAMELESS = [Way(2, 1, False), Way(2, 2, True)]


class Clients:
    """They send one message after the other, each until it is taken. lost: seconds from the first attempt to that."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.taken: list[str] = []
        self.lost: list[float] = []
        self.told: Counter[str] = Counter()
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, place: int) -> None:
        number = 0
        with closing(Client(self._address)) as client:
            while not self._over.is_set():
                number += 1
                name, began = f"m{place}-{number}", time.monotonic()
                content = f"X-Name: {name}\r\n\r\n".encode() + BODY
                while (code := client.send("a@x.example", f"{name}@y.example", content)) != "250":
                    self.told[code] += 1
                    time.sleep(AGAIN)
                self.told[code] += 1
                self.lost.append(round(time.monotonic() - began, 4))
                self.taken.append(name)

    def go_on(self, number: int) -> None:
        """Wait until so many more messages are taken."""
        before = len(self.taken)
        wait_until(lambda: len(self.taken) >= before + number, lambda: f"taken: {self.told}", 4 * PATIENCE)

    def stop(self) -> None:
        """No more messages; those under way are sent."""
        self._over.set()
        for thread in self._threads:
            thread.join(4 * PATIENCE)


class Fleet:
    """A gateway, the sinks behind it, and clients."""

    def __init__(self, folder: Path, way: Way, names: list[str], *under: str) -> None:
        """names: of the members; under: a command that runs the gateway's."""
        self.way = way
        self.sinks: list[Sink] = []
        ports = [free_port() for _ in names]
        self.sinks += [Sink(folder / f"sink{n}", f"127.0.0.1:{port}") for n, port in enumerate(ports)]
        members = ", ".join(f"'{name}:{port}'" for name, port in zip(names, ports, strict=True))
        # a client keeps its connection for as long as it takes
        opened = INIT.replace(
            "relay_hosts = {}", "relay_hosts = { '127.0.0.1' }, max_messages_per_connection = 1000000"
        )
        if way.spool:
            opened = opened.rstrip().removesuffix("end)") + SPOOL
        policy = f"SPOOL = '{folder}/spool' {opened}{POLICY.replace('MEMBERS', members)}"
        self.gateway = Gateway(folder / "gateway", policy, "--workers", str(way.workers), under=under)
        self.clients = Clients(self.gateway.address)

    def account_for(self) -> dict[str, object]:
        """Everything that was taken has arrived, and what arrived again was unknown once."""
        self.clients.stop()
        if self.way.spool:
            wait_until(lambda: self.gateway.metric("spool_messages") == 0, "an empty spool", 4 * PATIENCE)
        taken = Counter(self.clients.taken)
        wait_until(lambda: self._records("Reception") == taken, "a record of each message")
        wait_until(lambda: self._records("Delivery") == taken, "a record of each delivery")
        arrived = self._arrived()
        assert set(taken) <= set(arrived), sorted(set(taken) - set(arrived))[:5]
        unknown = self._records("TransientFailure", "outcome_unknown")
        again = {name: times - 1 for name, times in arrived.items() if times > 1}
        assert all(times <= unknown[name] for name, times in again.items()), (again, unknown)
        self._counters_agree()
        return {
            "messages": len(self.clients.taken),
            "told": dict(self.clients.told),
            "arrived_again": sum(again.values()),
            "unknown": sum(unknown.values()),
        }

    def _arrived(self) -> Counter[str]:
        mails = [mail for sink in self.sinks for mail in sink.mails()]
        assert all(mail.endswith(BODY) for mail in mails)
        return Counter(re.findall(r"^X-Name: (\S+)\r?$", b"".join(mails).decode(), re.MULTILINE))

    def _records(self, kind: str, reason: str | None = None) -> Counter[str]:
        return Counter(
            record["recipient"].partition("@")[0]
            for record in self.gateway.records()
            if record["type"] == kind and reason in (None, record.get("reason"))
        )

    def _counters_agree(self) -> None:
        gateway, told = self.gateway, self.clients.told
        dispositions = {
            name: gateway.metric(f'messages_total{{disposition="{name}"}}')
            for name in ("relayed", "spooled", "unknown")
        }
        assert dispositions["relayed"] + dispositions["spooled"] == told["250"]
        assert dispositions["unknown"] == (
            0 if self.way.spool else sum(self._records("TransientFailure", "outcome_unknown").values())
        )
        for kind in ("Reception", "Delivery", "TransientFailure"):
            assert gateway.metric(f'log_records_total{{type="{kind}"}}') == sum(self._records(kind).values())

    def close(self) -> None:
        """Ends all of it."""
        self.clients.stop()
        self.gateway.kill()
        for sink in self.sinks:
            sink.kill()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """fleet(way, names, *under) starts one that does not outlive the test."""
    made: list[Fleet] = []

    def begin(way: Way, names: list[str], *under: str) -> Fleet:
        made.append(Fleet(tmp_path, way, names, *under))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def told(name: str, fleet: Fleet, usual: list[float]) -> None:
    """Account for everything, and note what it cost against the messages before."""
    found = fleet.account_for()
    median = sorted(usual)[len(usual) // 2]
    lost = [round(max(0.0, seconds - median), 4) for seconds in fleet.clients.lost[len(usual) :]]
    heading = "Alone" if fleet.way.members == 1 else "Beside"
    if ALL:
        note(f"{name} {fleet.way}", {**found, "lost": {f"{heading}|*|{name}{' (spool)' * fleet.way.spool}": lost}})


@pytest.mark.timeout(600 if ALL else 120)
@pytest.mark.parametrize("way", KILLED, ids=str)
def test_members_that_are_killed_under_load_lose_nothing(way: Way, fleet) -> None:
    running = fleet(way, ["127.0.0.1"] * way.members)
    clients, chance = running.clients, random.Random(1)
    clients.go_on(CLIENTS)
    usual = clients.lost.copy()
    for _ in range(way.kills):
        sink = chance.choice(running.sinks)
        sink.kill()
        if way.spool or way.members > 1:
            clients.go_on(CLIENTS)
        sink.start()
        clients.go_on(chance.randrange(1, 20))
    told("killed and started again", running, usual)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", AWAY, ids=str)
def test_a_minute_without_any_member_loses_nothing(way: Way, fleet) -> None:
    running = fleet(way, ["127.0.0.1"] * way.members)
    running.clients.go_on(200)
    usual = running.clients.lost.copy()
    for sink in running.sinks:
        sink.kill()
    time.sleep(60)
    for sink in running.sinks:
        sink.start()
    running.clients.go_on(200)
    told("all away for a minute", running, usual)


@contextmanager
def name_servers(folder: Path, names: list[str]) -> Iterator[tuple[NameServer, list[str]]]:
    """A name server that knows these, and a command to run others with it as the only one."""
    server = NameServer({(name, "A"): ["1 127.0.0.1"] for name in names})
    configuration = folder / "resolv.conf"
    configuration.write_text(f"nameserver {server.address}\n")
    mounted = f'mount --bind {configuration} /etc/resolv.conf && exec "$@"'
    under = ["unshare", "--mount", "sh", "-c", mounted, "sh"]
    try:
        yield server, under
    finally:
        server.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", NAMELESS, ids=str)
def test_members_stay_known_while_name_servers_are_gone(way: Way, fleet, tmp_path: Path) -> None:
    names = [f"mta{number}.fleet.example" for number in range(way.members)]
    with name_servers(tmp_path, names) as (server, under):
        if subprocess.run([*under, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("no mounts of our own here")
        running = fleet(way, names, *under)
        running.clients.go_on(200)
        usual = running.clients.lost.copy()
        server.fails = True
        began = time.monotonic()
        while time.monotonic() < began + 30:
            for connection in running.sinks:  # so that names are asked for: each is started again
                connection.kill()
                connection.start()
            running.clients.go_on(200)
        server.fails = False
        running.clients.go_on(200)
        told("no name server answers", running, usual)
