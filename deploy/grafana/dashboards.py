"""Writes the dashboards beside this file, for Grafana to import: `python deploy/grafana/dashboards.py`.

Plain values: every panel is a title, a unit and its queries. tests/test_grafana.py holds that the files are what this
makes, and that every query names metrics that exist and is one for Prometheus.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
OURS = 'job=~"$job",instance=~"$instance"'
P = "relay_gateway_"

Query = tuple[str, str]  # an expression and its legend
Panel = tuple[str, str, list[Query]]  # title, unit, queries


def rate(name: str, by: str, more: str = "") -> str:
    """Of a counter, summed up by labels."""
    return f"sum by ({by}) (rate({P}{name}{{{OURS}{more}}}[$__rate_interval]))"


def gauge(name: str, by: str = "instance", more: str = "") -> str:
    """Likewise of what goes up and down."""
    return f"sum by ({by}) ({P}{name}{{{OURS}{more}}})"


def quantile(name: str, share: float, by: str = "") -> str:
    """Of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', labels)})"


def durations(name: str) -> list[Query]:
    """Half of them, and nearly all."""
    return [(quantile(name, share), f"{share:.0%}") for share in (0.5, 0.99)]


EACH = "{{instance}} {{worker}}"
DASHBOARDS: dict[str, list[Panel]] = {
    "overview": [
        ("Messages", "ops", [(rate("messages_total", "disposition"), "{{disposition}}")]),
        ("Connections open", "short", [(gauge("listener_connections_open", "listener"), "{{listener}}")]),
        ("Connections", "ops", [(rate("listener_connections_opened_total", "listener"), "{{listener}}")]),
        ("Octets", "Bps", [(rate("received_bytes_total", "instance"), "received {{instance}}")]),
        ("What clients wait for", "s", durations("message_duration_seconds")),
        ("Limits in use", "percentunit", [
            (f"{gauge('listener_connections_open')} / {gauge('listener_connections_limit')}", "connections"),
            (f"{gauge('content_memory_bytes')} / {gauge('content_memory_limit_bytes')}", "contents"),
            (f"{gauge('log_backlog_records')} / {gauge('log_backlog_limit_records')}", "log records"),
        ]),
    ],
    "refusals": [
        ("By reason", "ops", [(rate("rejections_total", "reason"), "{{reason}}")]),
        ("By stage", "ops", [(rate("rejections_total", "stage"), "{{stage}}")]),
        ("Connections turned away", "ops", [(rate("connections_refused_total", "reason"), "{{reason}}")]),
        ("TLS handshakes that failed", "ops", [(rate("tls_handshake_failures_total", "cause"), "{{cause}}")]),
        ("AUTH", "ops", [(rate("auth_total", "result"), "{{result}}")]),
        ("Decisions", "ops", [(rate("decisions_total", "outcome"), "{{outcome}}")]),
    ],
    "fleet": [
        ("Hand-over takes", "s", durations("relay_duration_seconds")),
        ("Replies", "ops", [(rate("upstream_replies_total", "stage, reply"), "{{stage}} {{reply}}")]),
        ("Connections that failed", "ops", [(rate("upstream_connection_failures_total", "reason"), "{{reason}}")]),
        ("Connections open", "short", [(gauge("upstream_connections_open"), "{{instance}}")]),
        ("Messages that wait for a connection", "short", [(gauge("upstream_waiting"), "{{instance}}")]),
        ("In the spool", "short", [(gauge("spool_messages"), "{{instance}}")]),
        ("Octets handed over", "Bps", [(rate("sent_bytes_total", "instance"), "{{instance}}")]),
    ],
    "reports": [
        ("Bounces and complaints", "ops", [(rate("reports_total", "kind, action"), "{{kind}} {{action}}")]),
        ("How they were recognised", "ops", [(rate("reports_recognised_total", "how"), "{{how}}")]),
        ("Unreadable", "ops", [(rate("reports_unreadable_total", "reason"), "{{reason}}")]),
        ("Log records", "ops", [(rate("log_records_total", "type"), "{{type}}")]),
    ],
    "policy": [
        ("Handlers take, 99 %", "s", [(quantile("policy_event_duration_seconds", 0.99, "event"), "{{event}}")]),
        ("Calls", "ops", [(rate("policy_event_duration_seconds_count", "event"), "{{event}}")]),
        ("Errors", "ops", [(rate("policy_errors_total", "event"), "{{event}}")]),
        ("Cached decisions", "percentunit", [(
            f"{rate('decision_cache_hits_total', 'instance')} / ({rate('decision_cache_hits_total', 'instance')} + "
            f"{rate('decision_cache_misses_total', 'instance')})", "{{instance}}",
        )]),
        ("Reloads", "short", [(rate("policy_reloads_total", "result"), "{{result}}")]),
        ("Policies in force", "short", [(f"count by (hash) ({P}policy_info{{{OURS}}})", "{{hash}}")]),
    ],
    "workers": [
        ("Event loop lag", "s", [(gauge("worker_event_loop_lag_seconds", "instance, worker"), EACH)]),
        ("Memory", "bytes", [(gauge("worker_memory_bytes", "instance, worker"), EACH)]),
        ("Descriptors", "short", [(gauge("worker_descriptors_open", "instance, worker"), EACH)]),
        ("Processors", "short", [(f"rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval])", "{{instance}}")]),
        ("States", "short", [(gauge("workers", "state"), "{{state}}")]),
        ("Restarts", "short", [(f"increase({P}worker_restarts_total{{{OURS}}}[1h])", "{{instance}}")]),
    ],
}  # fmt: skip


def variable(name: str, query: str) -> dict[str, Any]:
    """What one picks above the panels."""
    return {
        "name": name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2,
        "multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def panel(number: int, title: str, unit: str, queries: list[Query]) -> dict[str, Any]:
    """Two beside each other."""
    return {
        "id": number + 1, "type": "timeseries", "title": title, "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": number % 2 * 12, "y": number // 2 * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(queries)
        ],
    }  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "uid": f"relay-gateway-{name}", "title": f"relay-gateway: {name}", "tags": ["relay-gateway"],
        "schemaVersion": 39, "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [
            {"name": "source", "type": "datasource", "query": "prometheus"},
            variable("job", f"label_values({P}build_info, job)"),
            variable("instance", f'label_values({P}build_info{{job=~"$job"}}, instance)'),
        ]},
        "panels": [panel(number, *each) for number, each in enumerate(DASHBOARDS[name])],
    }  # fmt: skip


def text(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / f"{each}.json").write_text(text(each), encoding="utf-8")
