"""deploy/kubernetes: valid for Kubernetes' own schemas, the chart and what kustomize uses the same, the policy good."""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import cli
from gateway.init import replaced
from tests.programs import program
from tests.test_docs import parser_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kubernetes_validate

FOLDER = Path(__file__).parent.parent / "deploy" / "kubernetes"
RENDERED = ("base/relay-gateway.yaml", "components/autoscaling/horizontalpodautoscaler.yaml",
            "components/monitoring/servicemonitor.yaml")  # fmt: skip
VERSION = "1.31"  # the oldest that is tried; the newest is the schemas' own
EVERYTHING = ("--set", "serviceMonitor.enabled=true,autoscaling.enabled=true")


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def by_name(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in documents(text)}


def written() -> dict[tuple[str, str], dict[str, Any]]:
    """All that kustomize uses."""
    return {name: each for file in RENDERED for name, each in by_name((FOLDER / file).read_text()).items()}


def helm(*arguments: str) -> str:
    return said(program("helm"), *arguments)


def kustomize(*arguments: str) -> str:
    return said(program("kustomize"), *arguments)


def said(*command: str) -> str:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pod() -> dict[str, Any]:
    found: dict[str, Any] = written()["StatefulSet", "relay-gateway"]["spec"]["template"]["spec"]
    return found


def test_every_resource_is_valid_by_the_schemas_of_the_oldest_and_the_newest_kubernetes() -> None:
    kinds = set()
    for (kind, _), resource in written().items():
        kinds.add(kind)
        if kind != "ServiceMonitor":  # the operator's own
            for version in (VERSION, kubernetes_validate.latest_version()):
                kubernetes_validate.validate(resource, version, strict=True)
    assert {"StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler", "ServiceMonitor"} < kinds


def test_the_container_is_started_as_the_service_is_and_ends_within_its_grace() -> None:
    (container,) = pod()["containers"]
    command, *arguments = container["args"]
    options = parser_of(command).parse_args(arguments)
    slept = re.search(
        r"relay-gateway drain && exec sleep (\d+)", container["lifecycle"]["preStop"]["exec"]["command"][2]
    )
    assert slept
    assert int(slept[1]) + options.drain_timeout + 12 < pod()["terminationGracePeriodSeconds"]
    assert (
        int(slept[1])
        > 2 * container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    )
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod()["securityContext"]["runAsNonRoot"]


def addresses() -> Iterator[str]:
    for port in pod()["containers"][0]["ports"]:
        yield f"0.0.0.0:{port['containerPort']}"


def test_the_policy_is_good_and_listens_at_the_ports_of_the_container(tmp_path: Path) -> None:
    text = written()["ConfigMap", "relay-gateway-policy"]["data"]["init.lua"]
    assert all(f"listen = '{address}'" in text for address in addresses())
    policy = tmp_path / "init.lua"
    policy.write_text(replaced(text, {"/var/lib/relay-gateway": str(tmp_path)}))
    assert cli.main(["check", "--strict", "--fleet", "mta:2525", str(policy)]) == 0


def test_helm_makes_the_same_of_the_chart() -> None:
    """deploy/kubernetes/render.sh wrote what is compared."""
    plain = by_name(helm("template", "relay-gateway", "chart"))
    everything = by_name(helm("template", "relay-gateway", "chart", *EVERYTHING))
    assert {**everything, **plain} == written()
    assert "replicas" not in everything["StatefulSet", "relay-gateway"]["spec"]
    helm("lint", "--strict", "chart")


@pytest.mark.parametrize(
    "values",
    [
        "service.type=LoadBalancer",
        "fleet=",
        "policy.existing=mine",
        "networkPolicy.enabled=false",
        "storage.className=x",
    ],
)
def test_other_values_make_valid_resources_too(values: str) -> None:
    for resource in documents(helm("template", "another", "chart", "--set", values)):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
        assert resource["metadata"]["name"].startswith("another")


def test_kustomize_makes_the_same_of_base_and_components(tmp_path: Path) -> None:
    base = by_name(kustomize("build", "base"))
    assert base == by_name((FOLDER / RENDERED[0]).read_text())
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    copied = tmp_path / "kubernetes"
    copied.symlink_to(FOLDER)
    (overlay / "kustomization.yaml").write_text(
        "resources: [../kubernetes/base]\ncomponents: [../kubernetes/components/monitoring, "
        "../kubernetes/components/autoscaling]\n"
        "images: [{name: registry.example/relay-gateway, newName: x, newTag: '1'}]\n"
    )
    whole = by_name(kustomize("build", "--load-restrictor", "LoadRestrictionsNone", str(overlay)))
    assert whole.keys() == written().keys()
    stateful = whole["StatefulSet", "relay-gateway"]["spec"]
    assert "replicas" not in stateful
    assert stateful["template"]["spec"]["containers"][0]["image"] == "x:1"
