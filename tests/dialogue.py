"""Scripted dialogues: reads `.smtp` files and plays them, in memory or over sockets against a running gateway.

policy NAME.lua          which policy of tests/dialogues; its globals are those of tests/gateway_process.py
client relay             the client's address is in 127.9.0.0/16; without this line it is in 127.8.0.0/16
C: line                  the client sends a line; consecutive ones are sent together
C| 'text\\n'              … or exactly these octets: a Python expression, a string of Latin-1
S: 250 2.1.0 ~regex      the server says this line; what follows a ~ is a regular expression for the rest of it
S: 250 ...               … or a reply of any number of lines with this code
TLS                      both go on under TLS
EOF C                    the client closes its side
CLOSED                   the server closes the connection
U< line, U> line         the upstream receives and answers; the greeting and EHLO go without saying
U< ...                   … receives any lines up to the next one that is named
EOF U                    the upstream closes the connection
L: {…}                   a record with these values is logged
L! {…}                   no record with these values is
M: name{label="x"} +1    a metric has grown by this much, summed over the labels that are not named
# comment                and blank lines; a comment may also follow one of the first three kinds of line
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.later import Later, answered
from gateway.logs.encoding import Record, to_json
from gateway.net.endpoints import Endpoints
from gateway.policy import events
from gateway.policy.engine import Policy
from gateway.policy.listener import TermsTable
from gateway.why.client import MemoryClient as InMemory
from gateway.why.client import MemoryCouriers, services_in_memory
from tests.gateway_process import PATIENCE, Gateway, wait_until
from tests.policy_tools import new_page, source_of

CLIENTS = {"stranger": "127.8.0.{}", "ours": "127.9.0.{}", "partner": "127.10.0.{}", "banned": "127.11.0.{}"}
STEP = re.compile(r"(C:|C\||S:|U<|U>|U\||L:|L!|M:|TLS|EOF C|EOF U|CLOSED)(?: (.*))?\Z")
GROWTH = re.compile(r"(\w+)(?:\{(.*)\})? \+(\d+)\Z")
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Dialogue:
    """One file. steps: (number of the line, kind, text)."""

    name: str
    policy: str = ""
    client: str = "stranger"
    only: str = ""
    steps: list[tuple[int, str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, root: Path) -> Dialogue:
        dialogue = cls(path.relative_to(root).with_suffix("").as_posix())
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith(("policy ", "client ", "only ")):
                word, value = line.partition("#")[0].split()
                setattr(dialogue, word, value)
                continue
            step = STEP.match(line)
            assert step, f"{path}:{number}: not understood: {line}"
            dialogue.steps.append((number, step[1], step[2] or ""))
        return dialogue

    @property
    def needs_sockets(self) -> bool:
        """Whether somebody but the client takes part."""
        return self.only == "sockets" or any(kind in ("U<", "U>", "U|", "EOF U") for _, kind, _ in self.steps)


class Client(Protocol):
    """The client's end, however it is connected."""

    def send(self, data: bytes) -> None: ...
    def read_line(self) -> str | None:
        """The next line of the server, None when it has closed."""

    def start_tls(self) -> None: ...
    def eof(self) -> None: ...
    def records(self) -> list[dict[str, Any]]: ...
    def metrics(self) -> Values: ...
    def wait(self, holds: Callable[[], bool], what: Callable[[], str]) -> None:
        """Waits for what happens on the other side."""


class Player:
    """Plays one dialogue. before: the metrics when the client was not yet connected."""

    def __init__(self, dialogue: Dialogue, client: Client, upstream: ScriptedUpstream | None, before: Values) -> None:
        self.dialogue, self.client, self.upstream, self._before = dialogue, client, upstream, before
        self._pending = b""

    def play(self) -> None:
        for number, kind, text in self.dialogue.steps:
            try:
                if kind in ("C:", "C|"):
                    self._pending += text.encode() + b"\r\n" if kind == "C:" else eval(text).encode("latin-1")
                    continue
                self._flush()
                self._step(kind, text)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{self.dialogue.name}.smtp:{number}: {kind} {text}\n{error}") from None
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            self.client.send(self._pending)
            self._pending = b""

    def _step(self, kind: str, text: str) -> None:
        if kind == "S:":
            self._server_says(text)
        elif kind == "TLS":
            self.client.start_tls()
        elif kind == "EOF C":
            self.client.eof()
        elif kind == "CLOSED":
            assert self.client.read_line() is None
        elif kind in ("U<", "U>", "U|", "EOF U"):
            assert self.upstream is not None
            upstream = self.upstream
            {"U<": upstream.expect, "U|": upstream.expect_exactly, "U>": upstream.say, "EOF U": upstream.close}[kind](
                text
            )
        elif kind == "M:":
            grown = GROWTH.match(text)
            assert grown, "a metric is NAME{LABELS} +N"
            name, labels = f"relay_gateway_{grown[1]}", frozenset(re.findall(r'(\w+)="([^"]*)"', grown[2] or ""))
            expected = total(self._before, name, labels) + int(grown[3])
            self.client.wait(lambda: total(self.client.metrics(), name, labels) == expected, lambda: "counted")
        else:
            wanted = json.loads(text)
            if kind == "L:":
                self.client.wait(lambda: any(covers(record, wanted) for record in self.client.records()), self._logged)
            else:
                assert not [record for record in self.client.records() if covers(record, wanted)]

    def _server_says(self, expected: str) -> None:
        line = self.client.read_line() or "(nothing: it closed)"
        if expected.endswith(" ..."):
            while line[:4] == expected[:3] + "-":
                line = self.client.read_line() or "(nothing: it closed)"
            assert line[:4] == expected[:4], f"it said: {line}"
            return
        prefix, tilde, pattern = expected.partition("~")
        matches = line.startswith(prefix) and re.search(pattern, line[len(prefix) :]) if tilde else line == expected
        assert matches, f"it said: {line}"

    def _logged(self) -> str:
        return "logged; there is:\n" + "\n".join(map(str, self.client.records()))


def total(values: Values, name: str, labels: frozenset[tuple[str, str]]) -> float:
    return sum(value for (one, with_labels), value in values.items() if one == name and labels <= with_labels)


def covers(found: Any, wanted: Any) -> bool:
    """Whether `found` has all that `wanted` has; strings that start with ~ are regular expressions."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and covers(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, str) and wanted.startswith("~"):
        return isinstance(found, str) and re.search(wanted[1:], found) is not None
    return type(found) is type(wanted) and bool(found == wanted)


def values_of(families: Iterable[Metric]) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


# --- in memory --------------------------------------------------------------------------------------------------------


class RecordsInMemory:
    """In the place of the LogWriter."""

    full = False

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def submit(self, record: Record, message: object = None) -> bool:
        self.records.append(json.loads(record.line(to_json(record.meta))))
        return True

    def durable(self) -> Later:
        return answered(True)


class MemoryClient:
    """A client whose portions, cut by `split`, go straight into a Reception, its `reception`. couriers: its mail's."""

    def __init__(
        self, policy: Policy, address: str, split: Callable[[bytes], Iterable[bytes]], page: CounterPage
    ) -> None:
        self._split, self._page, self._logs = split, page, RecordsInMemory()
        self.couriers = MemoryCouriers()
        self._said = b""
        services = services_in_memory(policy, page, self.couriers, self._logs, now_ns=lambda: 1_785_847_290_000_000_000)
        table = TermsTable(policy.config.listeners[0], offer_auth=events.AUTH_PLAIN in policy.handles)
        self._client = InMemory(services, table, Endpoints((address, 40_000), ("127.0.0.1", 25)))
        self.reception = self._client.reception

    def send(self, data: bytes) -> None:
        for portion in self._split(data):
            self._client.send(portion)
            self._hear()

    @property
    def wants_tls(self) -> bool:
        return self._client.wants_tls

    def _hear(self) -> None:
        self._said += self._client.received()

    def take(self) -> str:
        """Everything that was said and not read yet."""
        self._hear()
        said, self._said = self._said.decode(), b""
        return said

    def read_line(self) -> str | None:
        self._hear()
        line, _, self._said = self._said.partition(b"\r\n")
        assert line or self.reception.session.is_over(), "nothing was said"
        return line.decode() or None

    def start_tls(self) -> None:
        self._client.secure()

    def eof(self) -> None:
        pass

    def records(self) -> list[dict[str, Any]]:
        return self._logs.records

    def metrics(self) -> Values:
        return metrics_of(self._page)

    def wait(self, holds: Callable[[], bool], what: Callable[[], str]) -> None:
        assert holds(), f"not {what()}"


def metrics_of(page: CounterPage) -> Values:
    return values_of(metrics.collect([page], now=0.0))


def play_in_memory(dialogue: Dialogue, policy: str, split: Callable[[bytes], Iterable[bytes]]) -> None:
    """policy: the text, with values for the globals."""
    page = new_page()
    loaded = Policy.load(source_of(policy), page=page)
    before = metrics_of(page)
    Player(dialogue, MemoryClient(loaded, CLIENTS[dialogue.client].format(1), split, page), None, before).play()


# --- over sockets -----------------------------------------------------------------------------------------------------


class Lines:
    """A blocking socket, read line by line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        sock.settimeout(PATIENCE)

    def read(self) -> str | None:
        """A line without its CRLF; None when the other side has closed."""
        while b"\r\n" not in self._buffer:
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode()

    def read_exactly(self, octets: int) -> bytes:
        while len(self._buffer) < octets:
            self._buffer += self.sock.recv(65_536) or b"(closed)".ljust(octets)
        data, self._buffer = self._buffer[:octets], self._buffer[octets:]
        return data


class SocketClient:
    """A client of a running gateway."""

    def __init__(self, gateway: Gateway, address: str) -> None:
        self._gateway, self._address = gateway, address
        self._lines = Lines(socket.create_connection(gateway.address, PATIENCE, source_address=(address, 0)))

    def send(self, data: bytes) -> None:
        self._lines.sock.sendall(data)

    def read_line(self) -> str | None:
        return self._lines.read()

    def start_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._lines = Lines(context.wrap_socket(self._lines.sock))

    def eof(self) -> None:
        self._lines.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._lines.sock.close()

    def records(self) -> list[dict[str, Any]]:
        """Those of this client, those of its messages, and where the policy logs `received_from`, those about it."""
        records = self._gateway.records()
        own = [record for record in records if self._address in (_peer(record), _received_from(record))]
        ids = {record["id"] for record in own if record["id"]}
        return [record for record in records if record in own or record["id"] in ids]

    def metrics(self) -> Values:
        return metrics_page(self._gateway)

    def wait(self, holds: Callable[[], bool], what: Callable[[], str]) -> None:
        wait_until(holds, what)


def _peer(record: dict[str, Any]) -> str:
    return record["peer_address"]["addr"] if record["peer_address"] else ""


def _received_from(record: dict[str, Any]) -> str:
    return record["meta"].get("received_from", "").partition(":")[0]


def metrics_page(gateway: Gateway) -> Values:
    return values_of(text_string_to_metric_families(gateway.get("/metrics")[1]))


class ScriptedUpstream:
    """The member of the fleet that a dialogue writes lines for."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE)
        self._lines: Lines | None = None
        self._skipping = False
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def expect(self, text: str) -> None:
        if text == "...":
            self._skipping = True
            return
        line = self._connection().read()
        while self._skipping and line != text:
            assert line is not None, f"closed before it said {text}"
            line = self._connection().read()
        self._skipping = False
        assert line is not None, "it was closed"
        prefix, tilde, pattern = text.partition("~")
        matches = line.startswith(prefix) and re.search(pattern, line[len(prefix) :]) if tilde else line == text
        assert matches, f"upstream received: {line}"

    def expect_exactly(self, text: str) -> None:
        expected = eval(text).encode("latin-1")
        received = self._connection().read_exactly(len(expected))
        assert received == expected, f"upstream received: {received!r}"

    def say(self, text: str) -> None:
        self._connection().sock.sendall(text.encode() + b"\r\n")

    def _connection(self) -> Lines:
        if self._lines is None:
            self._lines = Lines(self._listening.accept()[0])
            self.say("220 fleet.example ESMTP")
            assert (self._lines.read() or "").startswith("EHLO ")
            self.say("250-fleet.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 10000000")
        return self._lines

    def close(self, _: str = "") -> None:
        if self._lines is not None:
            self._lines.sock.close()
            self._lines = None

    def stop(self) -> None:
        self.close()
        self._listening.close()


def play_over_sockets(dialogue: Dialogue, gateway: Gateway, upstream: ScriptedUpstream, number: int) -> None:
    """number: 1 to 254, of this dialogue; its client has an address of its own, so that its records are known."""
    before = metrics_page(gateway)
    client = SocketClient(gateway, CLIENTS[dialogue.client].format(number))
    try:
        Player(dialogue, client, upstream, before).play()
    finally:
        client.close()
        upstream.close()
