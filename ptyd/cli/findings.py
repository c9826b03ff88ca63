"""What a doctor finds, and how it is told: one line a finding, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ptyd.cli.group import Settings
from ptyd.cli.output import printable, put, put_json


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Literal["ok", "warn", "fail"]
    what: str
    todo: str = ""


def put_findings(findings: Iterable[Finding], settings: Settings) -> int:
    """Write each as it is found; return the exit status, 1 when one is a failure."""
    failed = False
    for finding in findings:
        failed = failed or finding.level == "fail"
        if settings.json:
            put_json(finding._asdict())
        elif not settings.quiet or finding.level != "ok":
            todo = f"\n      {printable(finding.todo)}" if finding.todo else ""
            put(f"{finding.level:<5} {printable(finding.what)}{todo}")
    return int(failed)
