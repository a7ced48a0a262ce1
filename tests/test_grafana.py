"""deploy/grafana: the dashboards are what their script makes; every query is one for Prometheus, of what there is."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path

import pytest

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
