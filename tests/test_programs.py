"""Programs that tests use: one table says what they must be able to do, and what is missing is said."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import programs

ROOT = Path(__file__).parent.parent


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory that is the whole PATH: it has the table's programs, which are able, and what a script needs."""
    for tool in ("sh", "dirname", "mktemp", "tail", "rm"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/nowhere")
    for name in ("perl", *programs.table()):
        put(tmp_path, name, "exit 0")
    put(tmp_path, "id", "echo 0")
    put(tmp_path, "debconf-set-selections", "exit 0")
    put(tmp_path, "apt-get", f'echo "$@" >>{tmp_path}/asked')
    return tmp_path


def installing(machine: Path) -> tuple[str, str]:
    """What deploy/test-packages.sh says, and what it asked of apt-get."""
    done = subprocess.run(
        [ROOT / "deploy/test-packages.sh"], env={"PATH": str(machine)}, capture_output=True, text=True, check=True
    )
    asked = machine / "asked"
    return done.stdout + done.stderr, asked.read_text() if asked.exists() else ""


def hide(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    monkeypatch.setattr(programs, "ENVIRONMENT", {"PATH": str(machine)})
    monkeypatch.setattr(programs, "why_not", programs.why_not.__wrapped__)


def test_where_every_program_is_able_nothing_is_installed_or_skipped(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    hide(monkeypatch, machine)
    assert [programs.why_not(name) for name in programs.table()] == [None] * len(programs.table())
    assert installing(machine) == ("", "")


def test_a_program_without_its_ability_is_mended_and_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    put(machine, "perl", "exit 2")
    hide(monkeypatch, machine)
    with pytest.raises(pytest.skip.Exception, match=r"NOT CHECKED: swaks is here, but not with TLS: .*Net::SSLeay"):
        programs.program("swaks")
    said, asked = installing(machine)
    assert said == "installing Debian packages for the tests: swaks libnet-ssleay-perl\n"
    assert asked.splitlines()[1] == "-qq install -y --no-install-recommends swaks libnet-ssleay-perl"


def test_a_program_that_is_not_there_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    (machine / "zstd").unlink()
    hide(monkeypatch, machine)
    assert programs.why_not("zstd") == "NOT CHECKED: zstd is not installed (Debian: zstd)"
    assert installing(machine)[0] == "installing Debian packages for the tests: zstd\n"


def test_what_debian_does_not_have_is_skipped_and_not_asked_for(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    (machine / "helm").unlink()
    hide(monkeypatch, machine)
    assert programs.why_not("helm") == "NOT CHECKED: helm is not installed (go:helm.sh/helm/v3/cmd/helm)"
    assert installing(machine) == ("", "")


def test_nothing_is_installed_by_anybody_but_root_and_that_is_said(machine: Path) -> None:
    (machine / "curl").unlink()
    put(machine, "id", "echo 1000")
    said, asked = installing(machine)
    assert said.startswith("not root, so not installing Debian packages for the tests: curl")
    assert asked == ""


def test_an_installation_that_fails_is_said_with_its_reason(machine: Path) -> None:
    (machine / "curl").unlink()
    put(machine, "apt-get", "echo 'E: no such mirror' >&2; exit 100")
    said, _ = installing(machine)
    assert "E: no such mirror" in said
    assert "will be skipped" in said


def test_tests_use_programs_of_the_table_alone() -> None:
    used = {
        name for path in ROOT.glob("tests/test_*.py") for name in re.findall(r'program\("([^"]+)"\)', path.read_text())
    }
    assert used == set(programs.table())
