"""Writes the dashboards beside this file, for Grafana to import: `python deploy/grafana/dashboards.py`.

Every panel is a title, a unit and its queries; Grafana's foundation SDK makes dashboards of them. tests/test_grafana.py
holds that the files are what this makes, and that every query names metrics that exist and is one for Prometheus.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.common import VizTooltipOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
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


DELIVERED = ',result="delivered"'
LIMITS = (
    ',reason=~"peer_connections|connection_rate|message_rate|recipient_rate|octet_rate|auth_rate|too_many_connections"'
)
EACH = "{{instance}} {{worker}}"
DASHBOARDS: dict[str, list[Panel]] = {
    "overview": [
        ("Messages", "ops", [(rate("messages_total", "disposition"), "{{disposition}}")]),
        ("Connections open", "short", [(gauge("listener_connections_open", "listener"), "{{listener}}")]),
        ("Connections", "ops", [(rate("listener_connections_opened_total", "listener"), "{{listener}}")]),
        ("Messages by listener", "ops", [(rate("listener_messages_total", "listener"), "{{listener}}")]),
        ("Octets", "Bps", [(rate("received_bytes_total", "instance"), "received {{instance}}")]),
        ("What clients wait for", "s", durations("message_duration_seconds")),
        ("Limits in use", "percentunit", [
            (f"{gauge('listener_connections_open')} / {gauge('listener_connections_limit')}", "connections"),
            (f"{gauge('content_memory_bytes')} / {gauge('content_memory_limit_bytes')}", "contents"),
            (f"{gauge('log_backlog_records')} / {gauge('log_backlog_limit_records')}", "log records"),
        ]),
    ],
    "limits": [
        ("Clients that meet a limit", "ops", [(rate("rejections_total", "reason", LIMITS), "{{reason}}")]),
        ("Connections in use", "percentunit", [(
            f"{gauge('listener_connections_open', 'instance, listener')} / "
            f"({gauge('listener_connections_limit', 'instance, listener')} > 0)", "{{instance}} {{listener}}",
        )]),
        ("Descriptors in use", "percentunit", [(
            f"{gauge('worker_descriptors_open', 'instance, worker')} / "
            f"({gauge('worker_descriptors_limit', 'instance, worker')} > 0)", EACH,
        )]),
        ("Memory in use", "percentunit", [(
            f"sum by (instance) (process_resident_memory_bytes{{{OURS}}}) / {gauge('memory_limit_bytes')}",
            "{{instance}}",
        )]),
        ("Contents in files", "bytes", [(gauge("content_file_bytes"), "{{instance}}")]),
        ("Clients that wait for room", "short", [(gauge("content_waiting"), "{{instance}}")]),
        ("Uses counted together", "ops", [(rate("limit_cells_shared_total", "instance"), "{{instance}}")]),
        ("Throttles without Redis", "ops", [(rate("throttle_fallbacks_total", "cause"), "{{cause}}")]),
        ("Days until a certificate expires", "short", [(
            f"(min by (instance) ({P}tls_certificate_expiry_timestamp_seconds{{{OURS}}} > 0) - time()) / 86400",
            "{{instance}}",
        )]),
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
        ("Octets handed over", "Bps", [(rate("sent_bytes_total", "instance"), "{{instance}}")]),
        ("Members by state", "short", [(f"{gauge('upstream_member_state', 'state')} > 0", "{{state}}")]),
        ("Members that are down", "short", [
            (gauge("upstream_member_state", "member", ',state=~"down|suspect"'), "{{member}}"),
        ]),
        ("Transactions by member", "ops", [
            (rate("upstream_member_transactions_total", "member, result"), "{{member}} {{result}}"),
        ]),
        ("A delivery takes, by member", "s", [(
            f"{rate('upstream_member_delivery_seconds_total', 'member')} / "
            f"{rate('upstream_member_transactions_total', 'member', DELIVERED)}", "{{member}}",
        )]),
        ("Connections by member", "short", [(gauge("upstream_member_connections", "member"), "{{member}}")]),
        ("Failures by member", "ops", [
            (rate("upstream_member_failures_total", "member, stage"), "{{member}} {{stage}}"),
        ]),
    ],
    "spool": [
        ("Messages in the spool", "short", [(gauge("spool_messages"), "{{instance}}")]),
        ("Octets in the spool", "bytes", [(gauge("spool_bytes"), "{{instance}}")]),
        ("The oldest", "s", [(f"max by (instance) ({P}spool_oldest_age_seconds{{{OURS}}})", "{{instance}}")]),
        ("Put into it", "ops", [(rate("spool_kept_total", "instance"), "{{instance}}")]),
        ("Deliveries out of it", "ops", [(rate("spool_redeliveries_total", "result"), "{{result}}")]),
        ("A sync takes", "s", durations("spool_commit_duration_seconds")),
        ("Not taken, damaged", "ops", [
            (rate("spool_failures_total", "instance"), "not taken {{instance}}"),
            (rate("spool_damaged_total", "instance"), "damaged {{instance}}"),
        ]),
    ],
    "shipping": [
        ("Records acknowledged", "ops", [(rate("ship_acknowledged_records_total", "shipment"), "{{shipment}}")]),
        ("Sent again", "ops", [(rate("ship_retried_records_total", "shipment"), "{{shipment}}")]),
        ("Behind", "s", [(gauge("ship_lag_seconds", "instance, shipment"), "{{instance}} {{shipment}}")]),
        ("Octets behind", "bytes", [(gauge("ship_lag_bytes", "instance, shipment"), "{{instance}} {{shipment}}")]),
        ("Segments held, of the limit", "percentunit", [(
            f"{gauge('ship_held_bytes', 'instance, shipment')} / "
            f"({gauge('ship_held_limit_bytes', 'instance, shipment')} > 0)", "{{instance}} {{shipment}}",
        )]),
        ("Failures", "ops", [(rate("ship_failures_total", "shipment"), "{{shipment}}")]),
        ("Refused, given up", "ops", [
            (rate("ship_refused_records_total", "shipment"), "records refused {{shipment}}"),
            (rate("ship_dropped_segments_total", "shipment"), "segments given up {{shipment}}"),
        ]),
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


def variable(name: str, query: str) -> build.QueryVariable:
    """What one picks above the panels."""
    every = VariableOption(selected=True, text="All", value="$__all")
    made = build.QueryVariable(name).datasource(SOURCE).query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.multi(True).include_all(True).current(every)


def panel(title: str, unit: str, queries: list[Query]) -> TimeSeries:
    """Half as wide as the dashboard."""
    tooltip = VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    made = TimeSeries().title(title).unit(unit).min(0).tooltip(tooltip).datasource(SOURCE).height(8).span(12)
    for place, (expression, legend) in enumerate(queries):
        made.with_target(Dataquery().ref_id(chr(65 + place)).datasource(SOURCE).expr(expression).legend_format(legend))
    return made


def dashboard(name: str) -> build.Dashboard:
    """As Grafana imports it."""
    made = build.Dashboard(f"relay-gateway: {name}").uid(f"relay-gateway-{name}").tags(["relay-gateway"])
    made.editable().refresh("30s").time("now-3h", "now")
    made.with_variable(build.DatasourceVariable("source").type("prometheus"))
    made.with_variable(variable("job", f"label_values({P}build_info, job)"))
    made.with_variable(variable("instance", f'label_values({P}build_info{{job=~"$job"}}, instance)'))
    for number, each in enumerate(DASHBOARDS[name], 1):
        made.with_panel(panel(*each).id(number))
    return made


def text(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name).build(), cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / f"{each}.json").write_text(text(each), encoding="utf-8")
