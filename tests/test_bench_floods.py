"""What `bench floods` tells is what its floods and the good client did. Nothing here asserts a speed."""

import argparse
import json
from pathlib import Path

import pytest
from relay_gateway_bench import floods
from relay_gateway_bench.cli import add_arguments, run


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_the_good_client_and_each_flood_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "floods.json"
    only = [word for name in ("drip", "auth") for word in ("--only", name)]
    code = main(["floods", *only, "--sessions", "3", "--rate", "40", "--seconds", "0.5", "--json", str(file)])
    found = json.loads(file.read_text())["floods"]
    assert list(found) == ["drip", "auth"]
    for flood in found.values():
        assert flood["sessions"] == 3
        assert flood["did"]["connections"] >= 3
        assert flood["alone"]["per_second"] > 0
        assert flood["beside"]["refused"] == 0
    assert code == (0 if all(flood["holds"] for flood in found.values()) else 1)
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]] == ["drip", "auth"]


def test_a_flood_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no flood is called flod; there are idle, "):
        floods.measured(floods.Measure(only=("flod",)))


@pytest.mark.parametrize(
    ("throughput", "p99", "holds"), [(100.0, 3.0, True), (90.0, 1.0, True), (89.0, 1.0, False), (100.0, 3.1, False)]
)
def test_the_bars_are_nine_tenths_and_three_times(throughput: float, p99: float, holds: bool) -> None:
    told = {"alone": {"per_second": 100.0, "p99_ms": 1.0}, "beside": {"per_second": throughput, "p99_ms": p99}}
    assert floods._ratios(told)["holds"] is holds
