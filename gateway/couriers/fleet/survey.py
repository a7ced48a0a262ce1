"""A survey of the members: what all workers' rows say of each, as one line, for /metrics and `relay-gateway fleet`.

Reads the table of gateway/couriers/fleet/table.py; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.couriers.fleet.health import Health, MemberState, later
from gateway.couriers.fleet.table import RESULTS, STAGES, MemberTable
from gateway.metrics import LAYOUT

STATES = (*(state.name.lower() for state in MemberState), "drained")
SERVING = ("unknown", "up", "on_trial")  # those of them in which it gets messages
_PREFIX = LAYOUT.prefix + "upstream_member_"
STATE = (_PREFIX + "state", "Members of the fleet, 1 at the state that each is in", ("member", "state"))
CONNECTIONS = (_PREFIX + "connections", "Connections to a member, those being opened included", ("member",))
IN_FLIGHT = (_PREFIX + "transactions_in_flight", "Transactions under way to a member", ("member",))
TRANSACTIONS = (_PREFIX + "transactions_total", "Transactions with a member, by result", ("member", "result"))
DURATION = (_PREFIX + "delivery_seconds_total", "Time that the transactions delivered to a member took", ("member",))
FAILURES = (_PREFIX + "failures_total", "Failures of a member, by what was due then", ("member", "stage"))


@dataclass(slots=True)
class MemberSurvey:
    """One member. key: its place in the table. results, failures: by RESULTS and STAGES. seconds: of the delivered.

    group, weight, zone: as the policy has them.
    """

    key: int
    name: str = ""
    health: Health = field(default_factory=Health)
    drained: bool = False
    connections: int = 0
    busy: int = 0
    results: list[int] = field(default_factory=lambda: [0] * len(RESULTS))
    seconds: float = 0.0
    failures: list[int] = field(default_factory=lambda: [0] * len(STAGES))
    group: int = 1
    weight: int = 1
    zone: str = ""

    @property
    def state(self) -> str:
        """One of STATES."""
        return "drained" if self.drained else self.health.state.name.lower()


def survey(table: MemberTable, now: float) -> list[MemberSurvey]:
    """All members that workers know, by name. now: CLOCK_MONOTONIC seconds."""
    found: dict[int, MemberSurvey] = {}
    for first, key in table.members():
        member = found.setdefault(key, MemberSurvey(key))
        member.name = table.name(first) or member.name
        member.health = later(member.health, table.health(first))
        group, weight, zone = table.described(first)
        if weight:  # the supervisor's row does not say
            member.group, member.weight, member.zone = group, weight, zone
        connections, busy, _, drained = table.load(first)
        member.drained |= drained
        if table.is_at_work(first, now):
            member.connections += connections
            member.busy += busy
        results, seconds, failures = table.counts(first)
        member.results = [one + other for one, other in zip(member.results, results, strict=True)]
        member.seconds += seconds
        member.failures = [one + other for one, other in zip(member.failures, failures, strict=True)]
    return sorted(found.values(), key=lambda member: member.name)


def families(members: list[MemberSurvey]) -> Iterator[Metric]:
    """As metrics; members of one name are one."""
    by_name: dict[str, list[MemberSurvey]] = {}
    for member in members:
        by_name.setdefault(member.name, []).append(member)
    states, connections, busy = (GaugeMetricFamily(n, h, labels=ls) for n, h, ls in (STATE, CONNECTIONS, IN_FLIGHT))
    results, seconds, failures = (
        CounterMetricFamily(n, h, labels=ls) for n, h, ls in (TRANSACTIONS, DURATION, FAILURES)
    )
    for name, same in by_name.items():
        for state in STATES:
            states.add_metric((name, state), sum(member.state == state for member in same))
        connections.add_metric((name,), sum(member.connections for member in same))
        busy.add_metric((name,), sum(member.busy for member in same))
        seconds.add_metric((name,), sum(member.seconds for member in same))
        for place, result in enumerate(RESULTS):
            results.add_metric((name, result), sum(member.results[place] for member in same))
        for place, stage in enumerate(STAGES):
            failures.add_metric((name, stage), sum(member.failures[place] for member in same))
    yield from (states, connections, busy, results, seconds, failures)


def lines(members: list[MemberSurvey], now: float) -> list[str]:
    """As a table for people; with group, zone and weight where they are no equals."""
    equals = all((member.group, member.weight, member.zone) == (1, 1, "") for member in members)
    terms = () if equals else ("group", "zone", "weight")
    rows: list[tuple[str, ...]] = [
        ("member", *terms, "state", "for", "connections", "in flight", *RESULTS, "mean s", "failures")
    ]
    for member in members:
        health = member.health
        since = "" if health.admits and not health.failures else f"{max(0.0, now - health.since):.0f} s"
        mean = f"{member.seconds / member.results[0]:.3f}" if member.results[0] else ""
        failures = " ".join(f"{stage}:{n}" for stage, n in zip(STAGES, member.failures, strict=True) if n)
        counts = (str(each) for each in (member.connections, member.busy, *member.results))
        place = () if equals else (str(member.group), member.zone or "-", str(member.weight))
        rows.append((member.name, *place, member.state, since, *counts, mean, failures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
