"""Every metric of the gateway: its name, help, closed label values, and its words in a process's CounterPage.

A family is declared here once. Hot code takes its slots at import (`MAIL_OK = COMMANDS.slot("MAIL", "2xx")`) and
bumps them with `page.add(MAIL_OK)`. Every series exists from the start, at zero. What a family is (how its words
become samples) is in gateway/metrics/families.py; docs/metrics.md tells an operator what each one means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from platform import python_version

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from gateway import __version__
from gateway._fastpath import RECOGNISED, UNREADABLE_REASONS, CounterPage
from gateway.arena import PARTS
from gateway.config import RECORD_TYPES
from gateway.metrics.families import (
    Counter,
    Gauge,
    Histogram,
    Layout,
    NamedCounter,
    NamedGauge,
    NamedSlots,
    ProcessState,
    WorkerGauge,
    newest_workers,
)
from gateway.metrics.stages import CONNECTION_REASONS, REFUSED_AT
from gateway.smtp.foreign import KINDS
from gateway.smtp.replies import Reason

LAYOUT = Layout(prefix="relay_gateway_")

# --- label values -----------------------------------------------------------------------------------------------------

VERBS = (
    *("EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP"),
    *("STARTTLS", "AUTH", "QUIT", "XCLIENT"),
    "END-OF-DATA",  # the reply to the final dot
    "other",
)
REPLY_CLASSES = ("2xx", "3xx", "4xx", "5xx")
EVENTS = (
    "get_listener_domain",
    "smtp_server_get_dynamic_parameters",
    "smtp_server_connection_accepted",
    "smtp_server_auth_plain",
    "smtp_server_ehlo",
    "smtp_server_mail_from",
    "smtp_server_rcpt_to",
    "smtp_server_data",
    "smtp_server_split_transaction",
    "smtp_server_message_received",
    "smtp_server_rewrite_response",
    "shutdown_logging",
    "get_queue_config",
    "get_egress_path_config",
    "filter_event",  # whatever name `configure_local_logs` gives it
)
REPORT_KINDS = ("oob", "arf")

_SENSELESS = (
    ("introduction", "3xx"),
    ("introduction", "invalid"),
    *((stage, "3xx") for stage in ("mail", "rcpt", "end_of_data")),
    ("data", "2xx"),
    ("rset", "invalid"),
)
# … and which classes of replies a command can get.
_NO_ANSWER_2XX = ("DATA", "EXPN", "other")
_ANSWER_3XX = ("DATA", "AUTH")
_ANSWER_4XX = (
    "EHLO",
    "HELO",
    "MAIL",
    "RCPT",
    "END-OF-DATA",
    "AUTH",
    "XCLIENT",
)  # where the policy has a say, or the fleet


def _can_be_answered(verb: str, reply: str) -> bool:
    return {"2xx": verb not in _NO_ANSWER_2XX, "3xx": verb in _ANSWER_3XX, "4xx": verb in _ANSWER_4XX}.get(reply, True)


_10_US_TO_1_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1.0)
_100_US_TO_5_MIN = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 300)
_500_NS_TO_10_MS = (5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2)

# --- clients ----------------------------------------------------------------------------------------------------------

CONNECTIONS_OPENED = Counter(LAYOUT, "connections_opened_total", "Client connections accepted, refused ones included")
CONNECTIONS_GONE = Counter(
    LAYOUT, "connections_gone_total", "Client connections that their peers had reset before they were accepted"
)
CONNECTIONS_OPEN = Gauge(LAYOUT, "connections_open", "Client connections open now")
CONNECTIONS_REFUSED = Counter(
    LAYOUT,
    "connections_refused_total",
    "Client connections turned away before the banner",
    reason=CONNECTION_REASONS,
)
PROXY_RESULTS = ("client", "proxy", "missing", "malformed", "late", "closed", "untrusted")
PROXY_HEADERS = Counter(
    LAYOUT,
    "proxy_headers_total",
    "Connections that were to begin with a PROXY header, by what it named or why there was none",
    result=PROXY_RESULTS,
)
MOST_LISTENERS = 64  # that are told apart: of further ones readiness is not told, and their counts are one
LISTENER_OPENED = NamedCounter(
    LAYOUT,
    "listener_connections_opened_total",
    "Client connections accepted at a listener, refused ones included",
    "listener",
    MOST_LISTENERS,
)
LISTENER_REFUSED = NamedCounter(
    LAYOUT,
    "listener_connections_refused_total",
    "Client connections turned away at a listener before the banner",
    "listener",
    MOST_LISTENERS,
)
LISTENER_MESSAGES = NamedCounter(
    LAYOUT, "listener_messages_total", "Messages received completely at a listener", "listener", MOST_LISTENERS
)
LISTENER_OPEN = NamedGauge(
    LAYOUT, "listener_connections_open", "Client connections open now at a listener", "listener", MOST_LISTENERS
)
LISTENER_LIMIT = NamedGauge(
    LAYOUT, "listener_connections_limit", "Client connections a listener may have open", "listener", MOST_LISTENERS
)
OTHER_PROTOCOLS = Counter(
    LAYOUT, "other_protocols_total", "Connections ended because the client speaks something else", protocol=KINDS
)
ACCEPT_FAILURES = Counter(
    LAYOUT, "accept_failures_total", "Seconds in which a listener accepted nothing for want of descriptors or memory"
)
LIMIT_CELLS_SHARED = Counter(
    LAYOUT, "limit_cells_shared_total", "Times that somebody's use of a limit was counted together with others'"
)
TLS_RESUMED = Counter(
    LAYOUT, "tls_resumed_total", "TLS handshakes with clients that resumed an earlier session, in any worker"
)
TLS_HANDSHAKES = Counter(LAYOUT, "tls_handshakes_total", "TLS handshakes with clients", result=("ok", "failed"))
TLS_CAUSES = ("timeout", "lost", "no_tls", "version", "cipher", "certificate", "local", "other")
TLS_FAILURES = Counter(
    LAYOUT, "tls_handshake_failures_total", "TLS handshakes with clients that failed, by why", cause=TLS_CAUSES
)
CERTIFICATE_EXPIRY = WorkerGauge(
    LAYOUT, "tls_certificate_expiry_timestamp_seconds", "When the first of the listeners' certificates expires"
)
AUTH = Counter(LAYOUT, "auth_total", "AUTH attempts that reached a verdict", result=("accepted", "refused", "error"))
COMMANDS = Counter(
    LAYOUT,
    "commands_total",
    "SMTP commands answered, by class of the reply",
    _can_be_answered,
    verb=VERBS,
    reply=REPLY_CLASSES,
)

# --- messages ---------------------------------------------------------------------------------------------------------

MESSAGES = Counter(
    LAYOUT,
    "messages_total",
    "Messages received completely, by what became of them",
    disposition=("relayed", "spooled", "refused", "report_logged", "discarded", "unknown"),
)
RECEIVED_BYTES = Counter(LAYOUT, "received_bytes_total", "Octets of messages received completely")
SENT_BYTES = Counter(LAYOUT, "sent_bytes_total", "Octets of messages handed over, added headers included")
REJECTIONS = Counter(
    LAYOUT,
    "rejections_total",
    "Replies 4xx and 5xx to clients",
    lambda stage, reason: reason in REFUSED_AT[stage],
    stage=tuple(REFUSED_AT),
    reason=tuple(Reason),
)
REJECTIONS_LEFT_OUT = Counter(
    LAYOUT, "rejections_without_record_total", "Refusals that have no record of their own: their session has many alike"
)
NOTIFICATIONS = Counter(
    LAYOUT,
    "notifications_total",
    "Senders to be told what became of their recipients, by what became of that",
    result=("sent", "spooled", "failed", "null_sender", "record", "unwanted"),
)
MESSAGE_DURATION = Histogram(
    LAYOUT, "message_duration_seconds", "From a message's final dot to the reply to it", _100_US_TO_5_MIN
)

# --- contents ---------------------------------------------------------------------------------------------------------

CONTENT_MEMORY = Gauge(LAYOUT, "content_memory_bytes", "Octets of message contents in memory")
CONTENT_MEMORY_LIMIT = Gauge(LAYOUT, "content_memory_limit_bytes", "What these may be: --content-memory, per worker")
CONTENT_FILES = Gauge(LAYOUT, "content_files", "Message contents that have a temporary file")
CONTENT_FILE_BYTES = Gauge(LAYOUT, "content_file_bytes", "Octets of message contents in temporary files")
CONTENT_WRITTEN = Counter(LAYOUT, "content_written_total", "Message contents that went to a temporary file")
CONTENT_FAILURES = Counter(LAYOUT, "content_failures_total", "Message contents whose temporary file failed")
CONTENT_WAITING = Gauge(
    LAYOUT, "content_waiting", "Clients in the middle of a content that wait for their turn or room"
)

# --- policy -----------------------------------------------------------------------------------------------------------

DECISIONS = Counter(
    LAYOUT,
    "decisions_total",
    "Relay decisions for recipients, by outcome and by where the answer came from",
    lambda outcome, source: source == "lua" or outcome != "error",  # what is in the cache does not fail
    outcome=("relay", "report_only", "denied", "error"),
    source=("cache", "lua"),
)
POLICY_EVENT_DURATION = Histogram(
    LAYOUT, "policy_event_duration_seconds", "Time a Lua event handler took", _10_US_TO_1_S, event=EVENTS
)
POLICY_ERRORS = Counter(LAYOUT, "policy_errors_total", "Lua errors in event handlers", event=EVENTS)
POLICY_REJECTS = Counter(LAYOUT, "policy_rejects_total", "kumo.reject and kumo.disconnect raised", event=EVENTS)
LUA_STATES_REPLACED = Counter(
    LAYOUT, "lua_states_replaced_total", "Lua states given up because they kept memory beyond a handler's limit"
)
THROTTLE_FALLBACKS = Counter(
    LAYOUT,
    "throttle_fallbacks_total",
    "Throttles that Redis did not answer for, so that this machine counted by itself",
    cause=("timeout", "error"),
)
DECISION_CACHE_HITS = Counter(LAYOUT, "decision_cache_hits_total", "get_listener_domain answered from the cache")
DECISION_CACHE_MISSES = Counter(LAYOUT, "decision_cache_misses_total", "get_listener_domain that had to run")
DECISION_CACHE_EVICTIONS = Counter(LAYOUT, "decision_cache_evictions_total", "Cached decisions dropped for room")
DECISION_CACHE_MISMATCHES = Counter(
    LAYOUT, "decision_cache_mismatches_total", "Sampled hits whose second evaluation differed"
)
DECISION_CACHE_ENTRIES = Gauge(LAYOUT, "decision_cache_entries", "Decisions in the caches now")

# --- upstream ---------------------------------------------------------------------------------------------------------

UPSTREAM_OPENED = Counter(LAYOUT, "upstream_connections_opened_total", "Connections to the fleet established")
UPSTREAM_OPEN = Gauge(LAYOUT, "upstream_connections_open", "Connections to the fleet open now")
UPSTREAM_FAILURES = Counter(
    LAYOUT,
    "upstream_connection_failures_total",
    "Connections to the fleet that failed",
    reason=("resolve", "connect", "timeout", "tls", "auth", "greeting", "protocol", "lost", "prohibited"),
)
UPSTREAM_REPLIES = Counter(
    LAYOUT,
    "upstream_replies_total",
    "Replies of the fleet, by class",
    # where a class makes no sense it counts as "invalid"; nobody looks at what is wrong with the answer to RSET
    lambda stage, reply: (stage, reply) not in _SENSELESS,
    stage=("greeting", "ehlo", "starttls", "auth", "introduction", "mail", "rcpt", "data", "end_of_data", "rset"),
    reply=(*REPLY_CLASSES, "invalid"),
)
RELAY_DURATION = Histogram(
    LAYOUT, "relay_duration_seconds", "From handing a message to the relay to knowing its outcome", _100_US_TO_5_MIN
)
UPSTREAM_WAITING = Gauge(LAYOUT, "upstream_waiting", "Transactions waiting for a connection to the fleet")

# --- spool ------------------------------------------------------------------------------------------------------------

REDELIVERED = ("delivered", "deferred", "unreachable", "unknown", "refused", "expired", "failed")
SPOOL_MESSAGES = Gauge(LAYOUT, "spool_messages", "Messages in the spool")
SPOOL_BYTES = Gauge(LAYOUT, "spool_bytes", "Octets of their contents")
SPOOL_OLDEST = WorkerGauge(LAYOUT, "spool_oldest_age_seconds", "Since the oldest message in the worker's spool arrived")
SPOOL_KEPT = Counter(LAYOUT, "spool_kept_total", "Messages that were put into the spool")
SPOOL_REDELIVERIES = Counter(
    LAYOUT, "spool_redeliveries_total", "Attempts to deliver recipients out of the spool", result=REDELIVERED
)
SPOOL_COMMIT_DURATION = Histogram(
    LAYOUT,
    "spool_commit_duration_seconds",
    "Time that a transaction of the spool took, its sync included",
    _100_US_TO_5_MIN,
)
SPOOL_FAILURES = Counter(LAYOUT, "spool_failures_total", "Messages that the spool could not take")
SPOOL_DAMAGED = Counter(LAYOUT, "spool_damaged_total", "Messages and files of the spool that were found damaged")

# --- log records ------------------------------------------------------------------------------------------------------

LOG_RECORDS = Counter(LAYOUT, "log_records_total", "Log records submitted", type=RECORD_TYPES)
LOG_BACKLOG = Gauge(LAYOUT, "log_backlog_records", "Log records not yet written")
LOG_BACKLOG_LIMIT = Gauge(LAYOUT, "log_backlog_limit_records", "Log records that may wait before clients have to")
LOG_FAILURES = Counter(LAYOUT, "log_failures_total", "Attempts to write log records that failed")
LOG_LOST = Counter(LAYOUT, "log_lost_records_total", "Log records given up")

# --- shipping ---------------------------------------------------------------------------------------------------------

MOST_SHIPMENTS = 16  # that are told apart: the counts of further ones are one


def _shipped(name: str, help_text: str) -> NamedCounter:
    return NamedCounter(LAYOUT, f"ship_{name}", help_text, "shipment", MOST_SHIPMENTS)


def _shipping(name: str, help_text: str) -> NamedGauge:
    return NamedGauge(LAYOUT, f"ship_{name}", help_text, "shipment", MOST_SHIPMENTS)


SHIP_SENT = _shipped("sent_records_total", "Log records given to the sink, repetitions included")
SHIP_RETRIED = _shipped("retried_records_total", "Log records given to the sink once more")
SHIP_ACKNOWLEDGED = _shipped("acknowledged_records_total", "Log records that the sink has")
SHIP_REFUSED = _shipped("refused_records_total", "Log records that the sink refused, and that were set aside")
SHIP_UNWANTED = _shipped("unwanted_records_total", "Log records that the shipment does not want")
SHIP_FAILURES = _shipped("failures_total", "Attempts to bring a batch to the sink that failed")
SHIP_DROPPED_SEGMENTS = _shipped("dropped_segments_total", "Segments given up because too much was waiting")
SHIP_DROPPED_BYTES = _shipped("dropped_bytes_total", "Octets of these segments")
SHIP_LAG_SECONDS = _shipping("lag_seconds", "Age of the oldest record read and not acknowledged")
SHIP_LAG_RECORDS = _shipping("lag_records", "Log records read and not acknowledged")
SHIP_LAG_BYTES = _shipping("lag_bytes", "Octets of segments not yet read, and of records read and not yet sent")
SHIP_HELD_SEGMENTS = _shipping("held_segments", "Segments that are not shipped to their ends")
SHIP_HELD_BYTES = _shipping("held_bytes", "Octets of these segments")
SHIP_HELD_LIMIT = _shipping("held_limit_bytes", "Octets at which the oldest of them are given up; 0 for never")

# --- reports ----------------------------------------------------------------------------------------------------------

REPORTS = Counter(
    LAYOUT,
    "reports_total",
    "Bounces (oob) and complaints (arf) recognised",
    kind=REPORT_KINDS,
    action=("ignored", "logged_and_relayed", "logged_and_dropped"),
)
REPORT_PARSE = Counter(
    LAYOUT,
    "report_parse_total",
    "Reports read, by whether every field could be interpreted",
    kind=REPORT_KINDS,
    result=("ok", "partial"),
)
REPORTS_RECOGNISED = Counter(
    LAYOUT,
    "reports_recognised_total",
    "Reports recognised, by how: by the letter of the RFCs, or by what",
    how=RECOGNISED,
)
REPORTS_UNREADABLE = Counter(
    LAYOUT,
    "reports_unreadable_total",
    "Messages that claim to be reports and cannot be read, by what is wrong with them",
    reason=UNREADABLE_REASONS,
)
REPORT_BYTES = Counter(LAYOUT, "report_bytes_total", "Octets of the messages recognised as reports")
REPORT_SCAN_DURATION = Histogram(
    LAYOUT, "report_scan_duration_seconds", "Time to scan a message that might be a report", _500_NS_TO_10_MS
)

# --- processes --------------------------------------------------------------------------------------------------------

WORKER_RESTARTS = Counter(LAYOUT, "worker_restarts_total", "Workers that died and were replaced")
WORKER_LAST_RESTART = Gauge(
    LAYOUT, "worker_last_restart_timestamp_seconds", "When a worker died last, in seconds since 1970; 0 for never"
)
POLICY_RELOADS = Counter(LAYOUT, "policy_reloads_total", "Reloads of the policy", result=("ok", "failed"))
OPERATOR_REQUESTS = Counter(
    LAYOUT, "operator_requests_total", "Changes that were asked for over HTTP", result=("done", "failed", "refused")
)
POLICY_EPOCH = Gauge(LAYOUT, "policy_epoch", "Number of the policy in force; 1 for the first")
POLICY_LAST_LOAD = Gauge(
    LAYOUT, "policy_last_load_timestamp_seconds", "When the policy came into force, in seconds since 1970"
)
POLICY_LAST_FAILURE = Gauge(
    LAYOUT, "policy_last_failure_timestamp_seconds", "When a reload failed last, in seconds since 1970; 0 for never"
)
EVENT_LOOP_LAG = WorkerGauge(LAYOUT, "worker_event_loop_lag_seconds", "How late the worker's last timer was")
HEARTBEAT_AGE = WorkerGauge(LAYOUT, "worker_heartbeat_age_seconds", "Since the worker's event loop last ran a timer")
WORKER_MEMORY = WorkerGauge(LAYOUT, "worker_memory_bytes", "Resident memory of the worker")
WORKER_DESCRIPTORS = WorkerGauge(LAYOUT, "worker_descriptors_open", "File descriptors that the worker has open")
WORKER_DESCRIPTOR_LIMIT = WorkerGauge(LAYOUT, "worker_descriptors_limit", "File descriptors that the worker may open")

# --- no metrics -------------------------------------------------------------------------------------------------------

NOWHERE = LAYOUT.reserve(1)  # counts what cannot occur, so that the hot path need not ask
ADMISSION = LAYOUT.reserve(MOST_LISTENERS)  # what a worker would answer to a new connection: metrics/readiness.py
WINDOW = LAYOUT.reserve(1)  # at which socket one can look on in a worker: service/window.py

# The two families that come from elsewhere than a page's words: (name, help, labels).
WORKERS = (LAYOUT.prefix + "workers", "Worker processes, by what they are doing", ("state",))
BUILD = (LAYOUT.prefix + "build", "Version of the gateway and of Python", ("version", "python"))


def page_size() -> int:
    """Octets of one CounterPage."""
    return LAYOUT.page_size


def claim(page: CounterPage, *, worker: int, generation: int, now: float) -> None:
    """Give a free page to a process about to start; its counters go on from where the last owner left them.

    worker: the slot number, -1 for a process that is no worker. now: CLOCK_MONOTONIC seconds.
    """
    page.worker, page.generation, page.state, page.heartbeat = worker, generation, ProcessState.STARTING, now


def release(page: CounterPage) -> None:
    """Take the page of a process that ended back: its counters stay, its gauges count no more."""
    page.pid = 0
    page.state = ProcessState.STARTING
    LAYOUT.clear_reserved(page)
    for family in LAYOUT.families:
        family.forget(page)


def layout_digest() -> str:
    """What tells whether another program's pages mean the same."""
    families = [(type(each).__name__, each.name, each.slots, getattr(each, "bounds", ())) for each in LAYOUT.families]
    return sha256(repr((families, ADMISSION, WINDOW, page_size(), PARTS)).encode()).hexdigest()


def totals(pages: Sequence[CounterPage]) -> dict[str, dict[str, list[float]]]:
    """All that has been counted, by family and series, for a program with another layout."""
    return {family.name: found for family in LAYOUT.families if (found := family.totals(pages))}


def restore(page: CounterPage, counted: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Go on counting from what another program's `totals` gave."""
    for family in LAYOUT.families:
        family.restore(page, counted.get(family.name, {}))


class Surroundings:
    """What the pages do not say. Each method has a value for who knows nothing."""

    def listeners(self) -> Sequence[str]:
        """Names by place, see gateway/metrics/listeners.py."""
        return ()

    def shipments(self) -> Sequence[str]:
        """Likewise, see gateway/metrics/shipments.py."""
        return ()

    def memory(self, pid: int) -> int:
        """Resident octets of a process."""
        return 0

    def descriptors(self, pid: int) -> tuple[int, int]:
        """How many a process has open, and may have."""
        return 0, 0

    def others(self) -> Iterator[Metric]:
        """Families of their own."""
        yield from ()


NOTHING_KNOWN = Surroundings()


def collect(
    pages: Sequence[CounterPage], *, now: float, surroundings: Surroundings = NOTHING_KNOWN
) -> Iterator[Metric]:
    """All families with their values, in order of declaration. now: CLOCK_MONOTONIC seconds."""
    workers = newest_workers(pages)
    names = {"listener": surroundings.listeners(), "shipment": surroundings.shipments()}
    descriptors = {page.worker: surroundings.descriptors(page.pid) for page in workers}
    for family in LAYOUT.families:
        if family is HEARTBEAT_AGE:
            yield HEARTBEAT_AGE.labelled({page.worker: max(0.0, now - page.heartbeat) for page in workers})
        elif family is WORKER_MEMORY:
            yield WORKER_MEMORY.labelled({page.worker: surroundings.memory(page.pid) for page in workers})
        elif family is WORKER_DESCRIPTORS:
            yield WORKER_DESCRIPTORS.labelled({worker: is_open for worker, (is_open, _) in descriptors.items()})
        elif family is WORKER_DESCRIPTOR_LIMIT:
            yield WORKER_DESCRIPTOR_LIMIT.labelled({worker: limit for worker, (_, limit) in descriptors.items()})
        elif isinstance(family, NamedSlots):
            yield family.named(pages, names[family.labels[0]])
        else:
            yield family.collect(pages)
    name, help_text, labels = WORKERS
    states = GaugeMetricFamily(name, help_text, labels=labels)
    for state in ProcessState:
        alive = [page for page in pages if page.pid and page.worker >= 0 and page.state == state]
        states.add_metric((state.name.lower(),), len(alive))
    yield states
    name, help_text, _ = BUILD
    yield InfoMetricFamily(name, help_text, value={"version": __version__, "python": python_version()})
    yield from surroundings.others()
