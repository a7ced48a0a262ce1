"""What is measured: every scenario with its contenders, and the targets that the gateway is held to.

Only data. Running them is run.py's work, judging them report.py's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Contender:
    """A server in a scenario: a peer with its knobs, under a label of its own."""

    label: str
    peer: str
    relays: bool = False
    workers: int = 1
    logs: bool = True
    quick: bool = True  # also in a quick run
    policy: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scenario:
    """One load, sent to each contender in turn.

    rate: messages per second in the open loop. share: open loop at this share of what the contender did in the closed
    loop. series and x: the growth curve that it is a point of. syscalls: count system calls in an extra, untimed
    repetition. corpus: messages are the files of tests/corpus.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    baseline: str = "smtp-sink"
    size: int = 1024
    recipients: int = 1
    domains: int = 1
    connections: int = 20
    per_connection: int = 0
    pipelining: bool = False
    tls: bool = False
    rate: float = 0.0
    share: float = 0.0
    corpus: bool = False
    syscalls: bool = False
    series: str = ""
    x: int = 0
    quick: bool = True


@dataclass(frozen=True)
class Target:
    """A figure of the gateway that has to be at most `bar`, and `aim` at best.

    kind "ratio": of `metric` to that of `other` in the same repetition; "difference": the same by subtraction; "tail":
    99.9th percentile ÷ median of the contender itself.
    """

    title: str
    scenario: str
    bar: float
    aim: float
    other: str = "smtp-sink"
    contender: str = "gateway"
    kind: str = "ratio"
    metric: str = "cpu_us"
    unit: str = field(default="", compare=False)


DIRECT = Contender("direct", "direct")
SMTP_SINK = Contender("smtp-sink", "smtp-sink")
ACCEPT = Contender("gateway", "gateway")
RELAY = Contender("gateway", "gateway", relays=True)
AIOSMTPD_DISCARD = Contender("aiosmtpd", "aiosmtpd-discard")
AIOSMTPD = Contender("aiosmtpd", "aiosmtpd", relays=True)
PROXY = Contender("postfix-proxy", "postfix-proxy", relays=True)
QUEUE = Contender("postfix-queue", "postfix-queue", relays=True)
EXIM = Contender("exim", "exim", relays=True)
OPENSMTPD = Contender("opensmtpd", "opensmtpd", relays=True)
HARAKA = Contender("haraka", "haraka", relays=True)
KUMOMTA = Contender("kumomta", "kumomta")
KUMOMTA_RELAY = Contender("kumomta", "kumomta", relays=True)


def _with(contender: Contender, label: str, workers: int = 1, logs: bool = True, **policy: str) -> Contender:
    variables = tuple((f"BENCH_{name.upper()}", value) for name, value in policy.items())
    return replace(contender, label=label, workers=workers, logs=logs, policy=variables)


REPORTS = _with(ACCEPT, "gateway", reports="1")
BY_BDAT = _with(RELAY, "gateway, BDAT", chunking="1")
TWO_WORKERS = _with(RELAY, "gateway, 2 workers", workers=2)
UNCACHED = _with(ACCEPT, "gateway, uncached", policy="uncached")
NO_HANDLER = _with(ACCEPT, "gateway, no handler", policy="none")
NO_LOGS = _with(ACCEPT, "gateway, no logs", logs=False)

_ACCEPTING = (DIRECT, SMTP_SINK, ACCEPT, AIOSMTPD_DISCARD, KUMOMTA)
_RELAYING = (DIRECT, SMTP_SINK, RELAY, AIOSMTPD, PROXY, QUEUE, EXIM, HARAKA, OPENSMTPD, KUMOMTA_RELAY)
_PROXYING = (DIRECT, SMTP_SINK, RELAY, PROXY)

COSTS: tuple[Scenario, ...] = (
    Scenario("accept-1k", "accept and discard, 1 KiB", _ACCEPTING, syscalls=True),
    Scenario("accept-10k", "accept and discard, 10 KiB", _ACCEPTING, size=10 << 10, quick=False),
    Scenario("accept-100k", "accept and discard, 100 KiB", _ACCEPTING, size=100 << 10, syscalls=True),
    Scenario("accept-5m", "accept and discard, 5 MiB", _ACCEPTING, size=5 << 20, connections=4, quick=False),
    Scenario("reconnect-1k", "accept, a connection per message, 1 KiB", _ACCEPTING, per_connection=1),
    Scenario("pipelined-1k", "accept, pipelined, 1 KiB", _ACCEPTING, pipelining=True, quick=False),
    Scenario("accept-1k-1", "accept, 1 connection, 1 KiB", _ACCEPTING, connections=1, quick=False),
    Scenario("accept-1k-1000", "accept, 1,000 connections, 1 KiB", _ACCEPTING, connections=1000, quick=False),
    Scenario("relay-1k", "accept and relay, 1 KiB", _RELAYING, syscalls=True),
    Scenario("relay-1k-1", "relay, 1 connection, 1 KiB", _PROXYING, connections=1),
    Scenario("relay-10k", "accept and relay, 10 KiB", _RELAYING, size=10 << 10, quick=False),
    Scenario("relay-100k", "accept and relay, 100 KiB", _PROXYING, size=100 << 10),
    Scenario("relay-5m", "accept and relay, 5 MiB", _PROXYING, size=5 << 20, connections=4, quick=False),
    Scenario("relay-1k-1000", "relay, 1,000 connections, 1 KiB", _PROXYING, connections=1000, quick=False),
    Scenario("chunking", "relay, 1 KiB; by DATA, and with its envelope as one BDAT", (SMTP_SINK, RELAY, BY_BDAT),
             quick=False),
    Scenario("reports", "bounces and complaints, logged and dropped", (SMTP_SINK, REPORTS), corpus=True),
    Scenario("tls-1k", "relay, TLS, kept connections, 1 KiB", (RELAY, PROXY), baseline="postfix-proxy", tls=True),
    Scenario("workers", "relay, 1 and 2 workers", (SMTP_SINK, RELAY, TWO_WORKERS), quick=False),
    Scenario("policy", "accept; decisions cached, uncached, no handler", (SMTP_SINK, ACCEPT, UNCACHED, NO_HANDLER),
             quick=False),
    Scenario("logs", "accept; records on and off", (SMTP_SINK, ACCEPT, NO_LOGS), quick=False),
)  # fmt: skip

_WAITING = (DIRECT, RELAY, BY_BDAT, PROXY, replace(AIOSMTPD, quick=False), replace(HARAKA, quick=False))

LATENCY: tuple[Scenario, ...] = (
    Scenario("idle-latency", "relay, idle machine: 200 messages a second", _WAITING, baseline="direct", rate=200,
             connections=4),
    Scenario("half-load", "relay, open loop at half of each one's maximum", (DIRECT, RELAY, PROXY), baseline="direct",
             share=0.5),
)  # fmt: skip


def _growth() -> Iterable[Scenario]:
    """The points of the growth curves."""
    relaying = (SMTP_SINK, RELAY)
    for n in (1, 10, 100, 1000, 10_000):
        # With 10,000 connections smtp-sink was seen to take no message in 20 s: no reference there.
        beside = SMTP_SINK if n <= 1000 else DIRECT
        yield Scenario(f"grow-connections-{n}", "relay, against open connections", (beside, RELAY), connections=n,
                       baseline=beside.label, series="connections", x=n, quick=n in (1, 100, 1000))  # fmt: skip
    for n in (1, 1000, 100_000, 1_000_000):
        deciding = (SMTP_SINK, _with(ACCEPT, "gateway", domains=str(n)))
        yield Scenario(f"grow-domains-{n}", "accept, against listener domains", deciding, domains=n,
                       series="listener domains", x=n, quick=n <= 100_000)  # fmt: skip
    for n in (1, 1000, 100_000, 1_000_000):
        deciding = (SMTP_SINK, _with(ACCEPT, "gateway", cidrs=str(n)))
        yield Scenario(f"grow-cidrs-{n}", "accept, against prefixes in relay_hosts", deciding,
                       series="prefixes in relay_hosts", x=n, quick=n <= 100_000)  # fmt: skip
    for n in (1, 10, 100, 1024, 5120):
        yield Scenario(f"grow-size-{n}", "relay, against message size", relaying, size=n << 10, connections=4,
                       series="KiB per message", x=n, quick=n <= 100)  # fmt: skip
    for n in (1, 10, 100, 1000):
        yield Scenario(f"grow-recipients-{n}", "relay, against recipients", relaying, recipients=n,
                       series="recipients per message", x=n, quick=n <= 100)  # fmt: skip


SCENARIOS: tuple[Scenario, ...] = (*COSTS, *LATENCY, *_growth())

# Why the gateway's cost grows, where it does: shown beside the curves.
EXPLANATIONS = {
    "connections": "A connection's sockets and session are touched once per message: the more of them there are, the "
    "fewer are still in the processor's caches.",
    "listener domains": "A worker keeps a bounded number of decisions. Recipients here are spread evenly over all "
    "domains, which no cache survives: beyond its size every message asks Lua, and that is the step in the curve.",
    "prefixes in relay_hosts": "The set is asked once per connection, not per message.",
    "KiB per message": "Octets are copied in and out of the kernel, and looked at once.",
    "recipients per message": "Each recipient is a command, a decision, a reply, a record, and all of that again on "
    "the way to the fleet; the part that belongs to the message is shared by all of them.",
}

TARGETS: tuple[Target, ...] = (
    Target("accept and discard, 1 KiB ÷ smtp-sink", "accept-1k", 1.5, 1.0),
    Target("accept and discard, 100 KiB ÷ smtp-sink", "accept-100k", 0.4, 0.25),
    Target("a connection per message, 1 KiB ÷ smtp-sink", "reconnect-1k", 1.5, 1.0),
    Target("accept and relay, 1 KiB ÷ smtp-sink accepting", "relay-1k", 3.0, 2.0),
    Target("accept and relay, 1 KiB ÷ Postfix before-queue proxy", "relay-1k", 1 / 4, 1 / 7, "postfix-proxy"),
    Target("accept and relay, 1 KiB ÷ Haraka smtp_forward", "relay-1k", 1 / 10, 1 / 15, "haraka"),
    Target("relay, 100 KiB ÷ Postfix before-queue proxy", "relay-100k", 1 / 4, 1 / 8, "postfix-proxy"),
    Target("latency added by the relay, idle machine, one message after the other, median", "relay-1k-1", 300, 150,
           "direct", kind="difference", metric="p50", unit="µs"),
    Target("latency added by the relay, idle machine, 200 a second, median", "idle-latency", 300, 150, "direct",
           kind="difference", metric="p50", unit="µs"),
    Target("half load: 99.9th percentile ÷ median", "half-load", 20, 8, "gateway", kind="tail"),
    Target("TLS, 1 KiB ÷ Postfix smtpd", "tls-1k", 1 / 2, 1 / 4, "postfix-proxy"),
    Target("reports logged and dropped ÷ smtp-sink", "reports", 4.0, 2.0),
)  # fmt: skip
