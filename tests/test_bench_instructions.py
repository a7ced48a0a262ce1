"""No kernel costs more instructions than it did: the one comparison of costs that can fail a build.

Instructions are counted by valgrind, so neither a slow machine nor a busy one matters. bench/instructions.json has the
baseline; `relay-gateway bench instructions --update` stores a new one.
"""

from __future__ import annotations

from argparse import Namespace

import pytest
from relay_gateway_bench import instructions


@pytest.mark.timeout(900)
def test_no_kernel_costs_more_instructions_than_its_baseline_allows():
    if reason := instructions.missing():
        pytest.skip(reason)
    counts = instructions.measured(list(instructions.KERNELS))
    assert instructions.worse(counts, instructions.stored()) == []


def test_only_more_than_the_tolerance_is_worse():
    assert instructions.worse({"a": 104, "b": 106, "c": 10, "new": 1}, {"a": 100, "b": 100, "c": 100}) == [
        "b: 106 instructions, 100 before"
    ]


def test_every_kernel_has_a_baseline():
    if not instructions.stored():
        pytest.skip(f"no baseline for {instructions.combination()}")
    assert set(instructions.stored()) == set(instructions.KERNELS)


@pytest.mark.parametrize("valgrind", [None, "/usr/bin/valgrind"])
def test_what_cannot_be_compared_is_said_loudly(monkeypatch, capsys, tmp_path, valgrind):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: valgrind)
    monkeypatch.setattr(instructions, "BASELINE", tmp_path / "none.json")
    assert instructions.missing()
    assert instructions.run(Namespace(update=False, only="")) == 0
    assert "SKIPPED" in capsys.readouterr().err
