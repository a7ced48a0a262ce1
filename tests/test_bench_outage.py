"""`bench outage` and `bench silent` tell what happened to all messages. Nothing here asserts a speed."""

import argparse
import json
from pathlib import Path

import pytest
from relay_gateway_bench import silent
from relay_gateway_bench.cli import add_arguments, run


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_of_an_outage_every_message_is_accounted_for(tmp_path: Path, capsys) -> None:
    file = tmp_path / "outage.json"
    words = ["--rate", "50", "--octets", "1KiB", "--usual", "0.6", "--away", "1", "--clients", "5"]
    code = main(["outage", *words, "--json", str(file)])
    found = json.loads(file.read_text())
    assert list(found["parts"]) == ["usual", "away", "back", "after"]
    assert found["parts"]["away"]["acked"] > 0
    assert found["arrived"] >= found["acked"] > 0
    assert found["refused"] == 0
    assert found["drained_seconds"] is not None
    assert code == (0 if found["holds"] else 1)
    assert f"{found['acked']} answered 250" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("per_second", "worst", "refused", "holds"),
    [
        (950, 20.0, 0, True),
        (900, 9999.0, 0, True),
        (890, 20.0, 0, False),
        (950, 10_001.0, 0, False),
        (950, 20.0, 1, False),
    ],
)
def test_beside_a_silent_member_nine_tenths_are_kept_and_nobody_waits_for_its_time_out(
    per_second: int, worst: float, refused: int, holds: bool
) -> None:
    alone = {"per_second": 1000, "p99_ms": 1.0, "max_ms": 9.0, "refused": 0}
    beside = {"per_second": per_second, "p99_ms": 1.0, "max_ms": worst, "refused": refused}
    rounds = [{"alone": alone, "beside": beside}]
    result = silent._compared(rounds) | {"rounds": rounds}
    assert result["holds"] is holds
    assert silent.table(result).splitlines()[2] == f"| 1 | 1000 | 1.0 | 9.0 | {per_second} | 1.0 | {worst} |"
