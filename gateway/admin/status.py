"""What happens now, as one JSON object: what the status page, `relay-gateway status` and `top` show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from gateway import __version__, metrics
from gateway.admin.health import Readiness
from gateway.admin.history import History, quantile
from gateway.metrics.families import Histogram

RECENT = 10.0  # seconds that rates are of
MOST_REASONS = 12
MOST_HANDLERS = 8
_PREFIX = metrics.LAYOUT.prefix

Status = dict[str, Any]


def status_of(
    history: History,
    families: Iterable[Metric],
    readiness: Readiness,
    *,
    refused: Sequence[Mapping[str, Any]],
    now: float,
) -> Status:
    """families: of a scrape, just made. refused: the last refusals, as /trace/recent tells them. now: seconds since
    1970.
    """
    known = {family.name: family for family in families}
    return {
        "version": __version__,
        "time": now,
        "uptime": max(0.0, now - (_value(known, "process_start_time_seconds") or now)),
        "ready": readiness.as_json(),
        "policy": _policy(known),
        "rates": _rates(history),
        "messages": {
            values[0]: history.last.counts[metrics.MESSAGES.name, *values] for values in metrics.MESSAGES.slots
        },
        "durations": {
            "message": _duration(history, metrics.MESSAGE_DURATION),
            "relay": _duration(history, metrics.RELAY_DURATION),
        },
        "refusals": _refusals(history),
        "handlers": _handlers(history),
        "limits": _limits(known),
        "listeners": _by_label(known, "listener", f"{_PREFIX}listener_"),
        "members": _members(known),
        "workers": _workers(known),
        "upstream": {
            "open": _value(known, f"{_PREFIX}upstream_connections_open"),
            "waiting": _value(known, f"{_PREFIX}upstream_waiting"),
        },
        "spool": {
            name.removeprefix(f"{_PREFIX}spool_"): _value(known, name)
            for name, family in known.items()
            if name.startswith(f"{_PREFIX}spool_") and family.type == "gauge" and family.samples
        },
        "refused": [dict(event) for event in refused],
    }


def _value(known: Mapping[str, Metric], name: str) -> float | None:
    """The sum of a family's samples; None where there is no such family."""
    family = known.get(name)
    return None if family is None else sum(sample.value for sample in family.samples)


def _policy(known: Mapping[str, Metric]) -> Status:
    info = known[f"{_PREFIX}policy"].samples[0].labels
    names = {"epoch": "policy_epoch", "loaded": "policy_last_load_timestamp_seconds"}
    names["failed"] = "policy_last_failure_timestamp_seconds"
    return {**info, **{key: _value(known, _PREFIX + name) for key, name in names.items()}}


def _rates(history: History) -> Status:
    """A second, over the last ten."""
    messages = history.rates(metrics.MESSAGES, RECENT)
    return {
        "connections": sum(history.rates(metrics.CONNECTIONS_OPENED, RECENT).values()),
        "messages": sum(messages.values()),
        **{values[0]: rate for values, rate in messages.items()},
        "octets": sum(history.rates(metrics.RECEIVED_BYTES, RECENT).values()),
        "refusals": sum(history.rates(metrics.REJECTIONS, RECENT).values()),
    }


def _refusals(history: History) -> list[Status]:
    """By stage and reason: in the last minute, and in all."""
    counted = history.counted(metrics.REJECTIONS)
    found: list[Status] = [
        {
            "stage": stage,
            "reason": reason,
            "minute": counted[stage, reason],
            "total": history.last.counts[metrics.REJECTIONS.name, stage, reason],
        }
        for stage, reason in metrics.REJECTIONS.slots
    ]
    found = [each for each in found if each["total"]]
    return sorted(found, key=lambda each: (-each["minute"], -each["total"]))[:MOST_REASONS]


def _duration(history: History, family: Histogram, *values: str) -> Status:
    """Of the last minute; quantiles are upper bounds of buckets, None for none and for beyond all."""
    *buckets, total = history.observed(family, *values)
    calls = sum(buckets)
    ends = {name: quantile(family.bounds, buckets, share) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"calls": calls, "mean": total / calls if calls else None} | {
        name: end if end != float("inf") else None for name, end in ends.items()
    }


def _handlers(history: History) -> list[Status]:
    """The events whose handlers were called, those that took the most time first."""
    events = [values[0] for values in metrics.POLICY_EVENT_DURATION.slots]
    found: list[Status] = [
        {"event": event, **_duration(history, metrics.POLICY_EVENT_DURATION, event)} for event in events
    ]
    called = [each for each in found if each["calls"]]
    return sorted(called, key=lambda each: -each["calls"] * each["mean"])[:MOST_HANDLERS]


def _limits(known: Mapping[str, Metric]) -> list[Status]:
    """What there is of something limited, and the limit."""
    pairs = (
        ("connections", "listener_connections_open", "listener_connections_limit"),
        ("descriptors", "process_open_fds", "process_max_fds"),
        ("memory", "process_resident_memory_bytes", "memory_limit_bytes"),
        ("contents in memory", "content_memory_bytes", "content_memory_limit_bytes"),
        ("log records waiting", "log_backlog_records", "log_backlog_limit_records"),
    )
    found = []
    for what, name, limit in pairs:
        used, most = (_value(known, each if each in known else _PREFIX + each) for each in (name, limit))
        if used is not None and most:
            found.append({"what": what, "used": used, "limit": most})
    return found


def _by_label(known: Mapping[str, Metric], label: str, prefix: str) -> list[Status]:
    """One entry for each value of a label: whatever there is of it."""
    found: dict[str, Status] = {}
    for name, family in known.items():
        for sample in family.samples if name.startswith(prefix) and family.type in ("gauge", "counter") else ():
            if set(sample.labels) == {label} and not sample.name.endswith("_created"):
                entry = found.setdefault(sample.labels[label], {label: sample.labels[label]})
                entry[name.removeprefix(prefix).removeprefix(f"{label}_")] = sample.value
    return list(found.values())


def _members(known: Mapping[str, Metric]) -> list[Status]:
    """Likewise; of what has another label the name of the state, and the numbers by that label's values."""
    prefix = f"{_PREFIX}upstream_member_"
    found = {each["member"]: each for each in _by_label(known, "member", prefix)}
    for name, family in known.items():
        for sample in family.samples if name.startswith(prefix) else ():
            entry = found.setdefault(sample.labels.get("member", ""), {"member": sample.labels.get("member", "")})
            if "state" in sample.labels and sample.value:
                entry["state"] = sample.labels["state"]
            elif "result" in sample.labels and sample.name.endswith("_total"):
                entry[sample.labels["result"]] = sample.value
    return list(found.values())


def _workers(known: Mapping[str, Metric]) -> Status:
    states = {sample.labels["state"]: sample.value for sample in known[f"{_PREFIX}workers"].samples}
    each = _by_label(known, "worker", f"{_PREFIX}worker_")
    return {"states": states, "each": each, "restarts": _value(known, f"{_PREFIX}worker_restarts")}
