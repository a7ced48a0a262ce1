"""deploy/container: the Containerfile by its linter, the compose file against the commands and ports it names.

`make container` builds and runs the image, which takes minutes.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.test_docs import parser_of

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "container"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def last(instruction: str) -> str:
    """What the last one of these says, with its continuation lines."""
    found: str = re.findall(rf"^{instruction} ((?:.*\\\n)*.*)", CONTAINERFILE, re.MULTILINE)[-1]
    return found


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert set(PyCompose.from_yaml(text).to_dict()["services"]) == set(SERVICES)
    with pytest.raises(ValueError, match="read_onli"):
        PyCompose.from_yaml(text.replace("read_only", "read_onli"))


def test_hadolint_finds_nothing() -> None:
    command = [f"{sysconfig.get_path('scripts')}/hadolint", FOLDER / "Containerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_into_the_image_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    assert [name for line in copied for name in line.split() if not (ROOT / name).exists()] == []


def test_the_image_runs_as_the_kubernetes_manifests_and_the_compose_file_say_and_not_as_root() -> None:
    manifest = (ROOT / "deploy/kubernetes/base/relay-gateway.yaml").read_text()
    uid, gid = last("USER").split(":")
    assert f"runAsUser: {uid}" in manifest and f"runAsGroup: {gid}" in manifest
    assert f"uid={uid},gid={gid}" in SERVICES["gateway"]["tmpfs"][1]
    assert set(last("EXPOSE").split()) == set(re.findall(r"containerPort: (\d+)", manifest))
    for directory in re.findall(r"(?:RUNTIME|STATE)_DIRECTORY=(\S+)", CONTAINERFILE):
        assert f"mountPath: {directory} " in manifest
        assert any(directory in mount for mount in SERVICES["gateway"]["tmpfs"] + SERVICES["gateway"]["volumes"])


@pytest.mark.parametrize("arguments", [yaml.safe_load(last("CMD")), *(each["command"] for each in SERVICES.values())])
def test_the_commands_are_valid_ones(arguments: list[str]) -> None:
    parser_of(arguments[0]).parse_args(arguments[1:])


def test_nothing_in_the_compose_file_may_write_to_its_image_or_gain_rights() -> None:
    for service in SERVICES.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert (FOLDER / SERVICES["gateway"]["build"]["context"]).resolve() == ROOT
