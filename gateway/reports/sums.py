"""Many messages in few lines: how many reports there are of which kind, from which mailers, for which reasons."""

import re
from collections import Counter
from typing import Any

from gateway._fastpath import Report
from gateway.reports.fields import clean, typed

JSON = dict[str, Any]
MOST = 20  # lines for each of mailer and reason

# What tells a mailer in the header section of its notification, or in the fields of its status part.
_MAILERS = (
    ("Google", re.compile(r"mx\.google\.com|googlemail\.com", re.IGNORECASE)),
    ("Exchange", re.compile(r"\bx-ms-exchange|\.outlook\.com\b|resolver\.\w+\.|\bx-display-name\b", re.IGNORECASE)),
    ("Postfix", re.compile(r"\bx-postfix|\bpostfix program\b", re.IGNORECASE)),
    ("Exim", re.compile(r"\bx-failed-recipients\b|\bx-exim\b", re.IGNORECASE)),
    ("qmail", re.compile(r"\bqmail\b", re.IGNORECASE)),
    ("Sendmail", re.compile(r"returned mail: see transcript|\bx-unix\b", re.IGNORECASE)),
    ("Domino", re.compile(r"\bx-notes\b", re.IGNORECASE)),
)
_TELLING = ("from", "subject", "message-id", "x-failed-recipients", "x-mailer", "x-ms-exchange-", "user-agent")


def mailer(report: Report, message: bytes) -> str:
    """Who made a report: a mailer's name, else the domain of the reporting MTA; of a complaint, its User-Agent."""
    if report.kind == "arf":
        agent = (report.feedback or {}).get("user-agent", [""])[0]
        return clean(agent.partition("/")[0].strip()) or "unknown"
    fields = report.header_fields(message, _TELLING)
    groups = [report.per_message or {}, *(report.per_recipient or [])[:1]]
    told = "\n".join(
        f"{name}: {value}" for name, value in [*fields, *(item for group in groups for item in group.items())]
    )
    for name, mark in _MAILERS:
        if mark.search(told[:16384]):
            return name
    if report.how == "qsbmf":
        return "qmail"
    host = typed((report.per_message or {}).get("reporting-mta", ""))[1].split()
    return clean(".".join(host[0].lower().rstrip(".").split(".")[-2:])) if host else "unknown"


class Sums:
    """Adds up what `command.row` says of messages."""

    def __init__(self) -> None:
        self.messages = 0
        self._counts: dict[str, Counter[str]] = {"kind": Counter(), "mailer": Counter(), "reason": Counter()}

    def add(self, row: JSON, made_by: str | None) -> None:
        """made_by: see `mailer`; None for what is no report."""
        self.messages += 1
        kind = "unreadable" if "unreadable" in row else row["class"]
        self._counts["kind"][f"{kind}, inferred" if row.get("inferred") else kind] += 1
        if made_by is not None:
            self._counts["mailer"][made_by] += 1
        self._counts["reason"].update(self._reasons(row))

    @staticmethod
    def _reasons(row: JSON) -> list[str]:
        if row["class"] == "dsn":
            return [f"{each['action']} {each['status'] or each['code']}" for each in row["recipients"]] or [
                "no failure"
            ]
        if row["class"] == "arf":
            return [row["arf"]["feedback-type"][0].lower()]
        return [row["unreadable"]] if "unreadable" in row else []

    def as_json(self) -> JSON:
        return {"messages": self.messages} | {name: dict(counts.most_common()) for name, counts in self._counts.items()}

    def text(self) -> str:
        lines = [f"{self.messages} messages"]
        for name, counts in self._counts.items():
            for what, count in counts.most_common(MOST):
                lines.append(f"  {name:<7} {count:>7}  {what}")
            if rest := sum(counts.values()) - sum(count for _, count in counts.most_common(MOST)):
                lines.append(f"  {name:<7} {rest:>7}  others")
        return "\n".join(lines)
