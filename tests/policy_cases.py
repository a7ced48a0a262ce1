"""Policies in files beside what is expected of them (corpus/policies/README.md): read, checked, and talked to."""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway_process import PATIENCE, Gateway

MESSAGE = "Subject: x\r\n\r\nx\r\n"


@dataclass(frozen=True)
class PolicyCase:
    """One policy. expected: what its JSON file says."""

    name: str
    text: str
    files: dict[str, str]
    expected: dict[str, Any]

    def put(self, folder: Path, port: int) -> Path:
        """Writes it out, to listen on a port; returns the path of the policy."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {**self.files, f"{self.name}.lua": self.text}.items():
            (folder / name).write_text(text.replace("2525", str(port)))
        return folder / f"{self.name}.lua"


def cases_in(folder: Path) -> list[PolicyCase]:
    """All of a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        text = path.with_suffix(".lua").read_text()
        found.append(PolicyCase(path.stem, text, told.get("files", {}), told["expected"]))
    return found


def checked(policy: Path, *options: str) -> tuple[int, str]:
    """The exit status of `check`, run beside the policy, and what it prints."""
    command = [sys.executable, "-m", "gateway", "check", *options, policy.name]
    done = subprocess.run(command, cwd=policy.parent, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout + done.stderr


def differences(case: PolicyCase, status: int, said: str) -> list[str]:
    """How the outcome of `check` differs from what is expected."""
    expected = case.expected
    found = [] if status == expected["check"] else [f"exit status {status}, expected {expected['check']}: {said}"]
    found += [f"does not say {wanted!r}: {said}" for wanted in expected.get("says", ()) if not re.search(wanted, said)]
    found += [f"says {unwanted!r}: {said}" for unwanted in expected.get("says_not", ()) if re.search(unwanted, said)]
    lines = Counter(re.findall(r"(?m)^(\S+?:\d+): ", said))
    most = expected.get("problems_per_line", len(lines) + 1)
    return found + [f"{line} is reported {count} times: {said}" for line, count in lines.items() if count > most]


def decided(
    gateway: Gateway, sender: str, recipient: str, data: str = MESSAGE, auth: tuple[str, str] | None = None
) -> str:
    """What one message is answered in the end: the stage, code and text. auth: a name and a password, under TLS."""
    with smtplib.SMTP(*gateway.address, "client.example", PATIENCE) as client:
        client.ehlo()
        if auth is not None:
            client.starttls()
            client.ehlo()
            try:
                client.login(*auth, initial_response_ok=True)
            except smtplib.SMTPAuthenticationError as refusal:
                return f"AUTH {refusal.smtp_code} {refusal.smtp_error!r}"
        for stage, code, text in (
            ("MAIL", *client.docmd(f"MAIL FROM:{sender}")),
            ("RCPT", *client.docmd(f"RCPT TO:<{recipient}>")),
        ):
            if code != 250:
                return f"{stage} {code} {text.decode()}"
        code, text = client.data(data)
    return f"DATA {code} {text.decode()}"


def answers(gateway: Gateway, one: dict[str, Any]) -> bool:
    """Whether one of `replies` is given."""
    data = {"data": one["data"]} if "data" in one else {}
    answer = decided(gateway, one["from"], one["to"], auth=one.get("auth"), **data)
    print(f"{one}: {answer}")
    return re.fullmatch(one["reply"], answer, re.DOTALL) is not None
