"""deploy/prometheus: every rule names metrics that exist, every alert fires at what it is for and not at a healthy
service, and has a runbook. `promtool test rules` evaluates them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import metrics
from gateway.admin.processes import PolicyName, System
from gateway.couriers.fleet.table import SIZE as SIZE_OF_MEMBERS
from gateway.couriers.fleet.table import MemberTable
from tests.programs import program
from tests.test_metrics import new_page

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy" / "prometheus" / "relay-gateway.rules.yml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
METRIC = re.compile(r"\b(?:relay_gateway|process)_\w+")

# What makes each alert fire: series without the prefix and the labels of the target, in promtool's notation, a value a
# minute. Those that rise are counters.
RISING, HIGH = "0+100x120", "1000x120"
P99 = {"0.1": "0x120", "300.0": RISING, "+Inf": RISING}


# What an operator looks at beside an alert: their "alert on" has no bound that is right for everybody.
LOOKED_AT = {
    *("connections_opened_total", "connections_open", "content_file_bytes", "spool_bytes", "spool_kept_total"),
    *("decisions_total", "decision_cache_misses_total", "decision_cache_evictions_total", "policy_reloads_total"),
    *("upstream_connections_opened_total", "upstream_connections_open", "upstream_member_connections"),
    *("upstream_member_failures_total", "ship_lag_bytes", "reports_recognised_total", "worker_memory_bytes"),
}


def slow(name: str, labels: str = "") -> dict[str, str]:
    return {f'{name}_bucket{{{labels}le="{le}"}}': values for le, values in P99.items()}


FIRING: dict[str, dict[str, str]] = {
    "RelayGatewayDown": {"up": "0x120"},
    "RelayGatewayNoWorkerReady": {'workers{state="ready"}': "0x120"},
    "RelayGatewayWorkersMissing": {'workers{state="ready"}': "4x60 3x60"},
    "RelayGatewayWorkerRestarts": {"worker_restarts_total": RISING},
    "RelayGatewayEventLoopLag": {'worker_event_loop_lag_seconds{worker="1"}': HIGH},
    "RelayGatewayHeartbeatOld": {'worker_heartbeat_age_seconds{worker="1"}': HIGH},
    "RelayGatewayConnectionsNearLimit": {
        'listener_connections_open{listener="a"}': "90x120",
        'listener_connections_limit{listener="a"}': "100x120",
    },
    "RelayGatewayConnectionsRefused": {'connections_refused_total{reason="storage"}': RISING},
    "RelayGatewayAcceptFailures": {"accept_failures_total": RISING},
    "RelayGatewayConnectionsReset": {"connections_gone_total": "0+6000x120"},
    "RelayGatewayProxyHeaders": {'proxy_headers_total{result="missing"}': RISING},
    "RelayGatewayOtherProtocols": {'other_protocols_total{protocol="tls"}': RISING},
    "RelayGatewayLimitsMet": {'rejections_total{stage="mail",reason="message_rate"}': RISING},
    "RelayGatewayLimitCellsShared": {"limit_cells_shared_total": RISING},
    "RelayGatewayThrottlesAlone": {'throttle_fallbacks_total{cause="timeout"}': RISING},
    "RelayGatewayDescriptorsNearLimit": {
        'worker_descriptors_open{worker="0"}': "95x120",
        'worker_descriptors_limit{worker="0"}': "100x120",
    },
    "RelayGatewayMemoryNearLimit": {"process_resident_memory_bytes": "95x120", "memory_limit_bytes": "100x120"},
    "RelayGatewayContentMemoryFull": {"content_memory_bytes": "95x120", "content_memory_limit_bytes": "100x120"},
    "RelayGatewayContentFailures": {"content_failures_total": RISING},
    "RelayGatewayContentsWait": {"content_waiting": HIGH},
    "RelayGatewayTlsFailing": {
        'tls_handshakes_total{result="failed"}': "0+50x120",
        'tls_handshakes_total{result="ok"}': RISING,
    },
    "RelayGatewayTlsOwnFault": {'tls_handshake_failures_total{cause="local"}': RISING},
    "RelayGatewayCertificateExpires": {'tls_certificate_expiry_timestamp_seconds{worker="0"}': "1000000x120"},
    "RelayGatewayCertificateExpired": {'tls_certificate_expiry_timestamp_seconds{worker="0"}': "10x120"},
    "RelayGatewayPasswordGuessing": {'auth_total{result="refused"}': RISING},
    "RelayGatewayAuthErrors": {'auth_total{result="error"}': RISING},
    "RelayGatewayOutcomeUnknown": {'messages_total{disposition="unknown"}': RISING},
    "RelayGatewayManyRefused": {
        'messages_total{disposition="refused"}': "0+50x120",
        'messages_total{disposition="relayed"}': RISING,
    },
    "RelayGatewayOwnErrors": {'rejections_total{stage="mail",reason="policy_error"}': RISING},
    "RelayGatewayStorage": {'rejections_total{stage="connect",reason="storage"}': RISING},
    "RelayGatewayFleetRefuses": {'rejections_total{stage="data",reason="upstream_lost"}': RISING},
    "RelayGatewayFleetConnectionsFail": {'upstream_connection_failures_total{reason="connect"}': RISING},
    "RelayGatewayMemberDown": {'upstream_member_state{member="mta1",state="down"}': "1x120"},
    "RelayGatewayNoMember": {
        'upstream_member_state{member="mta1",state="drained"}': "1x120",
        'upstream_member_state{member="mta1",state="up"}': "0x120",
    },
    "RelayGatewayMemberFails": {
        'upstream_member_transactions_total{member="mta1",result="failed"}': "0+50x120",
        'upstream_member_transactions_total{member="mta1",result="delivered"}': RISING,
    },
    "RelayGatewayMemberSlow": {
        'upstream_member_delivery_seconds_total{member="mta1"}': "0+1000x120",
        'upstream_member_transactions_total{member="mta1",result="delivered"}': RISING,
    },
    "RelayGatewayMemberDrained": {'upstream_member_state{member="mta1",state="drained"}': "1x120"},
    "RelayGatewayFleetNonsense": {'upstream_replies_total{stage="mail",reply="invalid"}': RISING},
    "RelayGatewayFleetBusy": {"upstream_waiting": HIGH},
    "RelayGatewaySlowFleet": slow("relay_duration_seconds"),
    "RelayGatewaySlowReplies": slow("message_duration_seconds"),
    "RelayGatewayNotificationsFail": {'notifications_total{result="failed"}': RISING},
    "RelayGatewaySpoolGrows": {"spool_messages": HIGH},
    "RelayGatewaySpoolOld": {'spool_oldest_age_seconds{worker="0"}': "30000x120"},
    "RelayGatewaySpoolExpires": {'spool_redeliveries_total{result="expired"}': RISING},
    "RelayGatewaySpoolFails": {"spool_failures_total": RISING},
    "RelayGatewaySpoolDamaged": {"spool_damaged_total": RISING},
    "RelayGatewaySpoolSlow": slow("spool_commit_duration_seconds"),
    "RelayGatewayPolicyErrors": {'policy_errors_total{event="filter_event"}': RISING},
    "RelayGatewayPolicySlow": slow("policy_event_duration_seconds", 'event="filter_event",'),
    "RelayGatewayLuaStatesReplaced": {"lua_states_replaced_total": RISING},
    "RelayGatewayCacheMismatch": {"decision_cache_mismatches_total": RISING},
    "RelayGatewayReloadFailed": {
        "policy_last_failure_timestamp_seconds": "20x120",
        "policy_last_load_timestamp_seconds": "10x120",
    },
    "RelayGatewayPoliciesDiffer": {
        'policy_info{file="a",hash="1",instance="one"}': "1x120",
        'policy_info{file="a",hash="2",instance="two"}': "1x120",
    },
    "RelayGatewayLogBacklog": {"log_backlog_records": "60x120", "log_backlog_limit_records": "100x120"},
    "RelayGatewayLogFailures": {"log_failures_total": RISING},
    "RelayGatewayLogLost": {"log_lost_records_total": RISING},
    "RelayGatewayShippingBehind": {'ship_lag_seconds{shipment="out"}': HIGH},
    "RelayGatewayShippingFails": {
        'ship_failures_total{shipment="out"}': RISING,
        'ship_acknowledged_records_total{shipment="out"}': "7x120",
    },
    "RelayGatewayShippingRepeats": {
        'ship_retried_records_total{shipment="out"}': "0+50x120",
        'ship_sent_records_total{shipment="out"}': RISING,
    },
    "RelayGatewayShippingDrops": {'ship_dropped_segments_total{shipment="out"}': RISING},
    "RelayGatewayShippingRefused": {'ship_refused_records_total{shipment="out"}': RISING},
    "RelayGatewayShippingNearBound": {
        'ship_held_bytes{shipment="out"}': "80x120",
        'ship_held_limit_bytes{shipment="out"}': "100x120",
    },
    "RelayGatewayUnreadableReports": {'reports_unreadable_total{reason="no_parts"}': RISING},
    "RelayGatewayComplaints": {'reports_total{kind="arf",action="ignored"}': "0x60 0+100x60"},
    "RelayGatewayAbuse": {"rejections_without_record_total": "0+200x120"},
}


def series(name: str, instance: str = "healthy") -> str:
    """With the prefix and the labels that a scrape adds."""
    prefix = "" if name == "up" or name.startswith("process_") else metrics.LAYOUT.prefix
    bare, _, labels = name.rstrip("}").partition("{")
    added = 'job="relay-gateway"' + ("" if "instance=" in labels else f',instance="{instance}"')
    return f"{prefix}{bare}{{{added}{',' if labels else ''}{labels}}}"


def declared() -> set[str]:
    page = new_page(pid=os.getpid())
    members = MemberTable(memoryview(bytearray(SIZE_OF_MEMBERS)), 1)
    members.enter("10.0.0.1", 25, "mta1")
    system = System([page], lambda: ["192.0.2.1:25"], PolicyName("init.lua", "0"), members, lambda: ["out"])
    return {
        sample.name for family in metrics.collect([page], now=0.0, surroundings=system) for sample in family.samples
    }


def test_rules_name_metrics_that_exist():
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    named = {name for group in GROUPS for rule in group["rules"] for name in METRIC.findall(rule["expr"])}
    assert named - declared() == set()
    assert len(recorded) == len({name for name in recorded if name.startswith("instance:relay_gateway_")}) > 5


def test_every_alert_has_its_runbook_and_the_other_way_round():
    titles = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert titles == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_what_the_documentation_says_to_alert_on_has_an_alert():
    row = re.compile(r"^\| `(\w+)(?:\{[a-z,]+\})?` \| \w+ \| .* \| ([^|]*) \|$", re.MULTILINE)
    wanted = {name for name, when in row.findall((ROOT / "docs" / "metrics.md").read_text()) if when != "–"}
    alerted = {name for rule in ALERTS.values() for name in METRIC.findall(rule["expr"])}
    silent = {name for name in wanted if not alerted & {f"relay_gateway_{name}", f"relay_gateway_{name}_bucket"}}
    assert silent == LOOKED_AT


def test_every_alert_has_a_case_here():
    assert set(FIRING) == set(ALERTS)


def healthy() -> list[dict[str, Any]]:
    """A service that relays: every series of a page, the few that move in health moving."""
    moving = {
        'messages_total{disposition="relayed"}': RISING,
        'workers{state="ready"}': "4x120",
        'connections_refused_total{reason="peer_connections"}': RISING,  # one client, that sends too much
        "up": "1x120",
        "memory_limit_bytes": HIGH,
        "process_resident_memory_bytes": "10x120",
        'policy_info{file="a",hash="1"}': "1x120",
        "log_backlog_limit_records": HIGH,
        "policy_last_load_timestamp_seconds": HIGH,
        'listener_connections_limit{listener="a"}': HIGH,
        'worker_descriptors_limit{worker="0"}': HIGH,
        'tls_certificate_expiry_timestamp_seconds{worker="0"}': "3000000x120",
        'upstream_member_state{member="mta1",state="up"}': "1x120",
    }
    named = {series(name): values for name, values in moving.items()}
    for cases in FIRING.values():
        for name in cases:
            if series(name) not in named and "instance=" not in name:
                named[series(name)] = "0x120"
    return [{"series": name, "values": values} for name, values in named.items()]


def question(selector: str, answer: int) -> dict[str, Any]:
    """How many alerts fire in the end."""
    return {
        "expr": f"count(count by (alertname) (ALERTS{{{selector}alertstate='firing'}}))",
        "eval_time": "115m",
        "exp_samples": [{"labels": "{}", "value": answer}] if answer else [],
    }


def test_every_alert_fires_at_what_it_is_for_and_none_at_a_healthy_service(tmp_path):
    given = [
        {"series": series(name, alert), "values": values}
        for alert, cases in FIRING.items()
        for name, values in cases.items()
    ]
    cases = [
        {"input_series": healthy(), "promql_expr_test": [question("", 0)]},
        {"input_series": given, "promql_expr_test": [question(f"alertname='{name}',", 1) for name in ALERTS]},
    ]
    file = tmp_path / "tests.yml"
    tests = {"rule_files": [str(RULES)], "tests": [{"interval": "1m", **each} for each in cases]}
    file.write_text(json.dumps(tests))  # which is YAML
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus.yml"])
def test_the_configuration_is_one(name):
    done = subprocess.run(
        [program("promtool"), "check", "config", RULES.with_name(name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
