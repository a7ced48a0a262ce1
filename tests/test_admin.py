"""The admin process over real sockets: who may read what, and what is said about the other processes."""

from __future__ import annotations

import gzip
import json
import mmap
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway._fastpath import CidrSet, CounterPage
from gateway.admin import health
from gateway.admin import server as admin
from gateway.admin.context import AdminContext
from gateway.admin.processes import PolicyName
from gateway.config import HttpListener
from gateway.couriers.fleet.table import MemberTable
from gateway.metrics import readiness
from gateway.metrics.families import ProcessState
from gateway.service import child
from gateway.smtp.replies import Reason

LISTENERS = ["192.0.2.1:25", "192.0.2.1:587"]
ALL_OK = "OK\n192.0.2.1:25: ok\n192.0.2.1:587: ok"


class AdminProcess:
    """A real admin process with pages of a supervisor, of itself and of two workers."""

    def __init__(self, *trusted: tuple[str, ...]) -> None:
        size = metrics.page_size()
        memory = memoryview(mmap.mmap(-1, 4 * size))
        self.pages = [CounterPage(memory[size * i : size * (i + 1)]) for i in range(4)]
        for page, worker in zip(self.pages, (-1, -1, 0, 1), strict=True):
            metrics.claim(page, worker=worker, generation=1, now=time.monotonic())
            page.pid, page.state = os.getpid(), ProcessState.READY
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in trusted]
        self.ports = [each.getsockname()[1] for each in sockets]
        is_ready, ready = os.pipe()
        context = AdminContext(
            listeners=[
                (
                    HttpListener(
                        trusted_hosts=CidrSet(t), allowed_hosts=frozenset({"gw.example.com", "*.ops.example"})
                    ),
                    s,
                )
                for t, s in zip(trusted, sockets, strict=True)
            ],
            page=self.pages[1],
            hostnames=["gw1.example.com"],
            smtp=LISTENERS,
            pages=self.pages,
            enter=lambda state: os.close(ready) if state is ProcessState.READY else None,
            members=MemberTable(),
            names=lambda: LISTENERS,
            policy=lambda: PolicyName("init.lua", "0123456789abcdef"),
            log_dirs=lambda: ["/var/log/relay-gateway"],
            explain_refusal=lambda event: f"because <b>{event['session']}</b>",
            explain=lambda inquiry: inquiry,
        )
        self.pid = child.start(lambda: admin.run(context), "admin")
        for each in sockets:
            each.close()
        os.close(ready)
        os.read(is_ready, 1)
        os.close(is_ready)

    def get(self, path: str, method: str = "GET", listener: int = 0, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.ports[listener], timeout=20)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def status(self, path: str, **options: str) -> tuple[int, str]:
        response, body = self.get(path, **options)
        return response.status, body.decode().strip()

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def process() -> Iterator[AdminProcess]:
    running = AdminProcess(("127.0.0.1",), ("192.0.2.0/24",))
    yield running
    assert running.stop() == 0


@pytest.fixture(autouse=True)
def all_is_well(request):
    """Every test starts with living, ready processes."""
    if "process" in request.fixturenames:
        process = request.getfixturevalue("process")
        for page in process.pages:
            page.heartbeat, page.state, page.pid, page.generation = time.monotonic(), ProcessState.READY, os.getpid(), 1
            for listener in range(len(LISTENERS)):
                readiness.publish(page, listener, readiness.SERVED)


def test_metrics_are_the_sum_over_all_pages(process):
    slot = metrics.COMMANDS.slot("NOOP", "2xx")
    for page in process.pages:
        page.set(slot, 3)
    response, body = process.get("/metrics")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["relay_gateway_commands_total", "2xx", "NOOP"] == 12
    assert samples["relay_gateway_worker_memory_bytes", "0"] > 1_000_000


def test_openmetrics_is_given_to_who_asks_for_it(process):
    response, body = process.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert list(parse_openmetrics(body.decode()))


def test_metrics_are_compressed_for_who_asks_for_it(process):
    response, body = process.get("/metrics", **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b"# HELP relay_gateway_")


def test_metrics_are_refused_to_peers_outside_trusted_hosts_and_health_is_not(process):
    response, body = process.get("/metrics", listener=1)
    assert (response.status, body) == (403, b"127.0.0.1 is not in this listener's trusted_hosts\n")
    assert process.get("/healthz", listener=1)[0].status == 200
    assert process.get("/readyz", listener=1)[0].status == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1:8025",
            "[::1]:8025",
            "10.1.2.3",
            "localhost:8025",
            "LOCALHOST",
            "relay-gateway",
            "gw.example.com.",
        ),
        *(
            "gw1.example.com",
            "a.ops.example:80",
            "relay-gateway.mail.svc",
            "x.mail.svc.cluster.local",
            "gw.ec2.internal",
        ),
        os.uname().nodename,
    ],
)
def test_a_machine_is_asked_by_its_address_or_by_a_name_that_no_stranger_can_give_it(process, host):
    assert process.get("/metrics", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("rebound.attacker.test", "gw.example.com.attacker.test:8025", "127.0.0.1.attacker.test", "ops.example"),
        *("xops.example", "localhost.attacker.test", "a@gw.example.com", "1.2.3.4.5", "x.local", "*.ops.example.test"),
    ],
)
def test_by_any_other_name_nothing_is_shown_and_nothing_done(process, host):
    """DNS rebinding: a page of a stranger, whose name points here by now."""
    for asked in ("GET /", "GET /metrics", "HEAD /status", "GET /trace", "POST /explain"):
        method, path = asked.split()
        response, body = process.get(path, method, Host=host)
        assert (response.status, b"allowed_hosts" in body) == (421, method != "HEAD")
    assert process.get("/operator/fleet", "POST", Host=host)[0].status == 421
    assert process.get("/readyz", Host=host)[0].status == 200


OTHER_SITES = [
    {"Origin": "http://attacker.test"}, {"Origin": "null"}, {"Origin": "http://6.6.6.6:8025"}, {"Origin": "http://["},
    {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_pages_of_other_sites_can_have_nothing_done(process, headers):
    for path in ("/explain", "/operator/fleet", "/operator/spool"):
        response, body = process.get(path, "POST", Host="127.0.0.1:8025", **headers)
        assert (response.status, body) == (403, b"not for pages of other sites\n")


@pytest.mark.parametrize(
    "own",
    [
        *(
            {"Origin": "http://127.0.0.1:8025"},
            {"Origin": "https://gw.example.com"},
            {"Origin": "https://a.ops.example:444"},
        ),
        *({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}),
    ],
)
def test_its_own_page_and_one_behind_a_proxy_that_is_allowed_can(process, own):
    assert process.get("/explain", "POST", Host="127.0.0.1:8025", **own)[0].status == 200


def test_the_forms_of_the_status_page_may_say_whose_they_are(process):
    """With the policy "no-referrer" their Origin would be "null", as a stranger's can be."""
    assert process.get("/")[0].headers["Referrer-Policy"] == "same-origin"


def test_a_link_from_another_site_may_be_followed_and_nothing_else_read_for_it(process):
    another = {"Sec-Fetch-Site": "cross-site"}
    assert process.get("/", **another, **{"Sec-Fetch-Mode": "navigate"})[0].status == 200
    for mode in ("no-cors", "cors"):
        assert process.get("/status", **another, **{"Sec-Fetch-Mode": mode})[0].status == 403


def test_only_get_and_head_are_answered(process):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response, _ = process.get("/metrics", method)
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")
    response, body = process.get("/metrics", "HEAD")
    assert (response.status, body) == (200, b"")


def test_an_unknown_path_is_404_and_no_answer_names_the_software_beneath(process):
    response, _ = process.get("/api/admin/bump-config-epoch")
    assert (response.status, response.headers["Server"]) == (404, "relay-gateway")


def test_the_index_links_every_endpoint(process):
    _, body = process.get("/", listener=1)
    for path in admin.ENDPOINTS:
        assert f'href="{path}"'.encode() in body
        if path != "/trace":  # which does not end
            assert process.get(path)[0].status == 200


def test_healthy_and_ready_while_a_worker_is(process):
    process.pages[2].state = ProcessState.STARTING
    assert process.status("/healthz") == (200, "OK")
    assert process.status("/readyz") == process.status("/api/check-liveness/v1") == (200, ALL_OK)


def test_not_ready_while_all_workers_start_or_drain(process):
    def not_ready(why: str) -> tuple[int, str]:
        return 503, "\n".join([why, *(f"{listener}: {why}" for listener in LISTENERS)])

    process.pages[2].state = process.pages[3].state = ProcessState.STARTING
    assert process.status("/readyz") == not_ready("no worker is ready yet")
    process.pages[2].state = process.pages[3].state = ProcessState.DRAINING
    assert process.status("/readyz") == not_ready("shutting down")
    assert process.status("/api/check-liveness/v1") == not_ready("shutting down")
    assert process.status("/healthz") == (200, "OK")


def test_not_ready_while_the_supervisor_is_about_to_stop(process):
    process.pages[0].state = ProcessState.DRAINING
    assert process.status("/readyz")[0] == 503
    assert process.status("/readyz")[1].startswith("shutting down")


def test_a_listener_is_ready_while_one_worker_would_serve_there(process):
    readiness.publish(process.pages[2], 1, Reason.TOO_MANY_CONNECTIONS)
    assert process.status("/readyz") == (200, ALL_OK)
    readiness.publish(process.pages[3], 1, Reason.STORAGE)
    told = "not every listener takes connections\n192.0.2.1:25: ok\n192.0.2.1:587: storage, too_many_connections"
    assert process.status("/readyz") == (503, told)
    process.pages[2].heartbeat -= 60  # stuck: what it said last is worth nothing
    assert process.status("/readyz")[1].endswith("192.0.2.1:587: storage")
    process.pages[2].heartbeat, process.pages[2].generation = time.monotonic(), 2  # a younger one has taken over
    assert process.status("/readyz") == (200, ALL_OK)


def test_one_listener_can_be_asked_about(process):
    for page in process.pages[2:]:
        readiness.publish(page, 1, Reason.STORAGE)
    assert process.status("/readyz?listener=192.0.2.1:25") == (200, "OK\n192.0.2.1:25: ok")
    assert process.status("/readyz?listener=192.0.2.1:587")[0] == 503
    assert process.status("/readyz?listener=192.0.2.1:26")[0] == 404


def test_readiness_is_json_for_who_asks_for_it(process):
    for page in process.pages[2:]:
        readiness.publish(page, 0, readiness.NO_DESCRIPTORS)
    response, body = process.get("/readyz", Accept="application/json")
    assert response.status == 503
    listeners = {"192.0.2.1:25": "no_descriptors", "192.0.2.1:587": "ok"}
    assert json.loads(body) == {"ready": False, "problem": None, "listeners": listeners}


def test_a_worker_that_ended_says_nothing_any_more(process):
    metrics.release(process.pages[2])
    assert readiness.published(process.pages[2], 0) == ""


def test_not_healthy_without_a_worker_that_responds(process):
    process.pages[2].heartbeat -= 60
    assert process.status("/healthz") == (200, "OK")
    process.pages[3].pid = 0
    assert process.status("/healthz") == (503, "no worker responds")
    assert process.status("/readyz")[1].startswith("no worker responds\n")


def test_not_healthy_when_the_supervisor_is_stuck(process):
    process.pages[0].heartbeat -= 60
    assert process.status("/healthz") == (503, "the supervisor does not respond")


def test_the_memory_of_a_process_that_is_gone_is_nothing():
    assert health.resident_memory(2**22 + 1) == 0


def test_its_own_heartbeat_goes_on_and_term_ends_it_with_an_open_connection():
    process = AdminProcess(("127.0.0.1",))
    process.pages[1].heartbeat = 0.0
    with socket.create_connection(("127.0.0.1", process.ports[0])):
        deadline = time.monotonic() + 20
        while not process.pages[1].heartbeat:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.stop() == 0


def test_who_connected_before_the_port_was_anothers_is_answered_and_not_kept(monkeypatch):
    monkeypatch.setattr(admin, "LAST_REQUESTS", 20.0)
    process = AdminProcess(("127.0.0.1",))
    fresh, kept = (HTTPConnection("127.0.0.1", process.ports[0], timeout=20) for _ in range(2))
    fresh.connect()
    kept.request("GET", "/healthz")
    response = kept.getresponse()
    assert not response.will_close
    response.read()
    os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    with suppress(ConnectionError):  # once nobody listens there
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", process.ports[0])).close()
            time.sleep(0.01)
    for connection in (fresh, kept):
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert (response.status, response.will_close) == (200, True)
        response.read()
        connection.close()
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 0
