"""The load source's path for TLS and AUTH: the same plan over asyncio streams and Python's ssl.

It costs about ten times what the compiled source does per message (the result says how much), so the figure
to trust from such a run is the server's CPU per message, not the throughput. The open loop is there, with
latency from the scheduled time, for rates that leave this source idle most of the time.
"""

import asyncio
import base64
import contextlib
import random
import ssl
import time
from typing import Any

from ._load import body_hash, bucket, mark
from .histogram import Histogram
from .load import CONNECT_SECONDS, Plan, Progress, Run, Target, allow_descriptors
from .mix import Mix


class Refused(Exception):
    """A reply that ends the transaction; its argument is the code."""


class Conversation:
    """One SMTP connection."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self.target, self.plan = target, plan
        self.sent = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        return self._streams is not None

    async def open(self) -> None:
        """Connect, greet, and do STARTTLS and AUTH as the plan says.

        Raises OSError, EOFError or Refused.
        """
        self._streams = await asyncio.open_connection(self.target.host, self.target.port, limit=1 << 16)
        self.sent = 0
        await self.reply()
        await self.command(b"EHLO bench.example")
        if self.plan.tls:
            await self.command(b"STARTTLS")
            context = ssl.create_default_context()
            context.check_hostname = False  # a bench target's certificate is self-signed
            context.verify_mode = ssl.CERT_NONE
            await self._streams[1].start_tls(context)
            await self.command(b"EHLO bench.example")
        if self.plan.auth:
            user, password = self.plan.auth
            await self.command(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()))

    def write(self, *data: bytes) -> None:
        assert self._streams
        self._streams[1].writelines(data)

    async def reply(self) -> int:
        """The code of the next reply.

        Raises Refused for 4xx and 5xx, EOFError when the connection ended.
        """
        assert self._streams
        line = b"   -"
        while line[3:4] == b"-":
            line = await self._streams[0].readline()
            if not line.endswith(b"\n"):
                raise EOFError
        if int(line[:3]) >= 400:
            raise Refused(int(line[:3]))
        return int(line[:3])

    async def command(self, line: bytes) -> int:
        self.write(line + b"\r\n")
        return await self.reply()

    async def deliver(self, sender: bytes, recipients: list[bytes], content: list[bytes]) -> None:
        """One message, all of whose recipients have to be taken.

        Raises OSError, EOFError or Refused.
        """
        self.sent += 1
        commands = [b"MAIL FROM:<%b>" % sender, *(b"RCPT TO:<%b>" % r for r in recipients), b"DATA"]
        if self.plan.pipelining:
            self.write(*(command + b"\r\n" for command in commands))
            for _ in commands:
                await self.reply()
        else:
            for command in commands:
                await self.command(command)
        self.write(*content, b".\r\n")
        await self.reply()

    async def close(self) -> None:
        if self._streams:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


class SecureRun(Run):
    """A run through Python's ssl, with the same steps and the same result as the compiled one."""

    def __init__(self, target: Target, mix: Mix, plan: Plan) -> None:
        self.plan, self.mix = plan, mix
        self.id = random.SystemRandom().getrandbits(64)
        allow_descriptors(plan.connections + 64)
        self.conversations = [Conversation(target, plan) for _ in range(plan.connections)]
        self.hashes = [body_hash(content) for _, content in mix.contents]
        self.tally = dict.fromkeys(("sent", "acked", "refused", "lost", "unknown"), 0)
        self.refusals: dict[str, int] = {}
        self.latencies: dict[int, int] = {}
        self.recipients_acked = self.bytes_sent = self.connects = self.connect_failures = 0
        self.begun = self.ended = 0
        self.error: str | None = None
        self.runner = asyncio.Runner(loop_factory=_loop_factory())

    def __exit__(self, *_: object) -> None:
        self.runner.run(self._close_all())
        self.runner.close()

    def counts(self) -> dict[str, Any]:
        known = sum(self.tally[name] for name in ("acked", "refused", "lost", "unknown"))
        return self.tally | {"unfinished": self.tally["sent"] - known}

    def connect(self) -> int:
        if self.plan.per_connection == 1:
            return 0
        self.runner.run(asyncio.wait_for(self._open_all(), CONNECT_SECONDS))
        return sum(not conversation.is_open for conversation in self.conversations)

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        before = time.process_time()
        self.begun = self.ended = time.monotonic_ns()
        self.runner.run(self._send_all(progress))
        return self.result(time.process_time() - before)

    def result(self, cpu_seconds: float) -> dict[str, Any]:
        seconds = (self.ended - self.begun) / 1e9
        latency = Histogram(self.latencies)
        return self.counts() | {
            "run": f"{self.id:016x}",
            "recipients_acked": self.recipients_acked,
            "seconds": seconds,
            "messages_per_second": self.tally["acked"] / seconds if seconds else 0.0,
            "bytes_sent": self.bytes_sent,
            "connects": self.connects,
            "connect_failures": self.connect_failures,
            "error": self.error,
            "refusals": self.refusals,
            "latency_us": latency.summary(),
            "histogram": latency.to_json(),
            "source_us_per_message": 1e6 * cpu_seconds / max(1, self.tally["sent"]),
        }

    async def _open(self, conversation: Conversation) -> bool:
        self.connects += 1
        try:
            await conversation.open()
        except (OSError, EOFError, ssl.SSLError, Refused) as error:
            self.connect_failures += 1
            self.error = f"{type(error).__name__}: {error}"
            await conversation.close()
        return conversation.is_open

    async def _open_all(self) -> None:
        for conversation in self.conversations:
            await self._open(conversation)

    async def _close_all(self) -> None:
        await asyncio.gather(*(conversation.close() for conversation in self.conversations))

    async def _send_all(self, progress: Progress | None) -> None:
        tasks = [asyncio.create_task(self._converse(conversation)) for conversation in self.conversations]
        deadline = time.monotonic() + self.plan.seconds
        pending: set[asyncio.Task[None]] = set(tasks)
        while pending and time.monotonic() < deadline:
            _, pending = await asyncio.wait(pending, timeout=min(0.25, max(0.0, deadline - time.monotonic())))
            if progress:
                progress(self.counts())
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, conversation: Conversation) -> None:
        """Carry messages over one connection, reopened as the plan says, until all are sent."""
        failures = 0
        while self.tally["sent"] < self.plan.messages and failures < 10:
            number = self.tally["sent"]
            self.tally["sent"] += 1
            started = time.monotonic_ns()
            if self.plan.rate:
                started = self.begun + int(number * 1e9 / self.plan.rate)
                await asyncio.sleep(max(0, started - time.monotonic_ns()) / 1e9)
            outcome = "lost"
            if conversation.is_open or await self._open(conversation):
                outcome = await self._deliver(conversation, number)
            self.ended = time.monotonic_ns()
            self.tally[outcome] += 1
            if outcome == "acked":
                at = bucket(self.ended - started)
                self.latencies[at] = self.latencies.get(at, 0) + 1
            failures = failures + 1 if outcome == "lost" else 0
            if outcome != "acked" or (self.plan.per_connection and conversation.sent >= self.plan.per_connection):
                await conversation.close()

    async def _deliver(self, conversation: Conversation, number: int) -> str:
        mix = self.mix
        content = mix.order[number % len(mix.order)]
        sender, message = mix.contents[content]
        first = number * mix.per_message
        recipients = [mix.recipients[(first + i) % len(mix.recipients)] for i in range(mix.per_message)]
        try:
            await conversation.deliver(sender, recipients, [mark(self.id, number, self.hashes[content]), message])
        except Refused as refusal:
            code = str(refusal.args[0])
            self.refusals[code] = self.refusals.get(code, 0) + 1
            return "refused"
        except (OSError, EOFError, ssl.SSLError) as error:
            self.error = f"{type(error).__name__}: {error}"
            return "lost"
        self.recipients_acked += len(recipients)
        self.bytes_sent += len(message)
        return "acked"


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
