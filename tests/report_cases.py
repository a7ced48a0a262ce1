"""The cases of tests/corpus/reports/cases: messages with what is to become of them (README.md there)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "corpus" / "reports" / "cases"


@dataclass(frozen=True)
class Case:
    """One message and what is expected of it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def message(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def expected(self) -> dict[str, Any]:
        return json.loads(self.path.with_suffix(".json").read_text())

    @property
    def sender(self) -> str:
        """The reverse-path, without brackets."""
        return self.expected["reverse_path"].strip("<>")

    @property
    def listed(self) -> bool:
        return bool(self.expected.get("listed_sender"))


def cases() -> list[Case]:
    return [Case(path) for path in sorted(CASES.glob("*.eml"))]


def differences(expected: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the OOB or Feedback records of a case."""
    wanted = {"dsn": "OOB", "arf": "Feedback", "other": None}[expected["kind"]]
    if {record["type"] for record in records} != ({wanted} if wanted else set()):
        return [f"records {[record['type'] for record in records]}, expected {wanted}"]
    if wanted is None:
        return []
    pairs = _bounces(expected, records) if wanted == "OOB" else _complaint(expected, records)
    if "inferred" in expected:
        pairs.append(("inferred", [record.get("inferred", False) for record in records], expected["inferred"]))
    wrong = []
    for name, found, right in pairs:
        each = right if isinstance(right, list) else [right] * len(found)
        if found != each:
            wrong.append(f"{name}: {found}, expected {each}")
    return wrong


def _bounces(expected: dict[str, Any], records: list[dict[str, Any]]) -> list[tuple[str, list[Any], Any]]:
    found = {
        "action": [record["action"] for record in records],
        "code": [record["response"]["code"] for record in records],
        "content": [record["response"]["content"] for record in records],
        "status": [_enhanced(record) for record in records],
        "reporting_mta": [record["peer_address"]["name"] for record in records],
        "final_recipients": [record.get("final_recipient") for record in records],
        "original": ["original_headers" in record for record in records],
    }
    pairs: list[tuple[str, list[Any], Any]] = [
        ("recipients", [record["recipient"] for record in records], expected["recipients"] or [""]),
        *((name, values, expected[name]) for name, values in found.items() if name in expected),
    ]
    if "status_one_of" in expected:
        pairs.append(("status_one_of", [value in expected["status_one_of"] for value in found["status"]], True))
    if "content_contains" in expected:
        pairs.append(("content", [expected["content_contains"] in value for value in found["content"]], True))
    return pairs


def _enhanced(record: dict[str, Any]) -> str | None:
    code = record["response"]["enhanced_code"]
    return code and ".".join(str(code[part]) for part in ("class", "subject", "detail"))


def _complaint(expected: dict[str, Any], records: list[dict[str, Any]]) -> list[tuple[str, list[Any], Any]]:
    keys = {"original_rcpt_to": "original_rcpto_to"}  # KumoMTA's spelling
    names = ("feedback_type", "original_rcpt_to", "original_mail_from", "source_ip", "reported_domain")
    fields = {name: expected[name] for name in names if name in expected} | expected.get("fields", {})
    report = records[0]["feedback_report"]
    return [(name, [report.get(keys.get(name, name))], [value]) for name, value in fields.items()]
