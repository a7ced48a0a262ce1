"""deploy/grafana: the dashboards are what their script makes; every query is one for Prometheus, of what there is."""

from __future__ import annotations

import json
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.ports import free_port
from tests.programs import program
from tests.test_prometheus_rules import METRIC, declared

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana"
SCRIPT = runpy.run_path(str(FOLDER / "dashboards.py"))
FILES = sorted(FOLDER.glob("*.json"))


def queries(path: Path) -> list[str]:
    found = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*") for expr in found]


def test_the_files_are_what_the_script_makes():
    assert {path.stem: path.read_text() for path in FILES} == {
        name: SCRIPT["text"](name) for name in SCRIPT["DASHBOARDS"]
    }


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


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Prometheus]:
    program("prometheus")
    gateway = Gateway(tmp_path / "gateway", INIT + TO_MAILDIR, "--workers", "1")
    prometheus = None
    try:
        prometheus = Prometheus(tmp_path, gateway.announced()["http"][0])
        yield prometheus
    finally:
        if prometheus is not None:
            prometheus.stop()
        gateway.kill()


def test_a_real_prometheus_scrapes_a_gateway_and_answers_every_query(scraped):
    wait_until(lambda: scraped.ask("count_over_time(relay_gateway_build_info[1m]) > 2"), "three scrapes")
    silent = [query for path in FILES for query in queries(path) if not scraped.ask(query)]
    assert [query for query in silent if "quantile" not in query and "cache" not in query] == []
