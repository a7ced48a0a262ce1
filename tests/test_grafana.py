"""deploy/grafana: the dashboards are what their script makes; every query is one for Prometheus, of what there is."""

from __future__ import annotations

import json
import runpy
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_UPSTREAMS, Gateway, wait_until
from tests.ports import free_port
from tests.programs import program
from tests.test_check import certificate
from tests.test_prometheus_rules import METRIC, declared

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana"
FILES = sorted(FOLDER.glob("*.json"))


def queries(path: Path) -> list[str]:
    found = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*") for expr in found]


def test_the_files_are_what_the_script_makes():
    pytest.importorskip("grafana_foundation_sdk")
    script = runpy.run_path(str(FOLDER / "dashboards.py"))
    made = {name: script["text"](name) for name in script["DASHBOARDS"]}
    assert {path.stem: path.read_text() for path in FILES} == made


def test_pictures_of_dashboards_have_each_panel_with_its_lines_named(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent / "site"))
    drawn = runpy.run_path(str(FOLDER.parent / "site/dashboards.py"))

    class Answers:
        def between(self, expression: str, start: float) -> list[dict[str, Any]]:
            return [{"metric": {"member": "mta1:25"}, "values": [(start, "1"), (start + 60, "2"), (start + 90, "NaN")]}]

    fleet = json.loads((FOLDER / "fleet.json").read_text())
    page = drawn["page"](fleet, Answers(), 1000.0)
    assert [f">{panel['title']}</text>" in page for panel in fleet["panels"]] == [True] * len(fleet["panels"])
    assert ">mta1:25</text>" in page and "nan" not in page.lower()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_query_names_metrics_that_exist(path):
    named = {name for query in queries(path) for name in METRIC.findall(query)}
    assert named
    assert named - declared() == set()


def test_every_query_is_one_for_prometheus(tmp_path):
    rules = [
        {"record": f"query:{number}", "expr": query}
        for number, query in enumerate(query for path in FILES for query in queries(path))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


SHARES_OF_NOTHING = ("quantile", "cache", "delivery_seconds")  # NaN while nothing happens


class Prometheus:
    """A real one, which scrapes a gateway every second."""

    def __init__(self, folder: Path, target: str) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        job = {"job_name": "relay-gateway", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({"scrape_configs": [job]}))
        command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        self._log = open(folder / "log", "wb")  # noqa: SIM115 - closed when stopped
        self._process = subprocess.Popen([*command, f"--web.listen-address={self._address}"], stderr=self._log)

    def ask(self, query: str) -> list[Any] | None:
        """The answer; None while it does not answer yet. Fails for what is no query."""
        address = f"http://{self._address}/api/v1/query?{urlencode({'query': query})}"
        try:
            with urlopen(address, timeout=PATIENCE) as answer:
                found: list[Any] = json.load(answer)["data"]["result"]
                return found
        except HTTPError as error:
            with error:
                assert error.code == 503, (query, error.read())  # it starts
        except URLError as error:
            assert isinstance(error.reason, ConnectionRefusedError), error
        return None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


OF_EVERYTHING = """
  require('gateway').ship { name = 'out', max_held = 1000000, sink = { files = { directory = LOGS .. '-copy' } } }
end)
"""
LISTENER = "kumo.start_esmtp_listener { listen = LISTEN, "


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Prometheus]:
    """It scrapes a gateway with a member, a certificate and a shipment: there is something of everything."""
    program("prometheus")
    for name, octets in zip(("cert", "key"), certificate("gw.example", 60), strict=True):
        (tmp_path / name).write_bytes(octets)
    keys = f"tls_certificate = '{tmp_path}/cert', tls_private_key = '{tmp_path}/key', "
    policy = (
        INIT.replace("end)\n", OF_EVERYTHING).replace(LISTENER, LISTENER + keys).replace("{} }", "{ '127.0.0.1' } }")
    )
    upstream = f"127.0.0.1:{free_port()}"
    gateway = Gateway(tmp_path / "gateway", policy + TO_UPSTREAMS, "--workers", "1", upstreams=[upstream])
    prometheus = None
    try:
        with gateway.smtp() as client, suppress(smtplib.SMTPException):  # the member is away, and known from now on
            client.sendmail("a@sender.example", "b@far.example", "Subject: one\n\n")
        prometheus = Prometheus(tmp_path, gateway.announced()["http"][0])
        yield prometheus
    finally:
        if prometheus is not None:
            prometheus.stop()
        gateway.kill()


def test_a_real_prometheus_scrapes_a_gateway_and_answers_every_query(scraped):
    wait_until(lambda: scraped.ask("count_over_time(relay_gateway_build_info[1m]) > 2"), "three scrapes")
    silent = [query for path in FILES for query in queries(path) if not scraped.ask(query)]
    assert [query for query in silent if not any(part in query for part in SHARES_OF_NOTHING)] == []
