"""One finding of a check."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import click
import msgspec


class Grade(enum.Enum):
    """Result of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


_MARKS: Final = {
    Grade.OK: click.style("✓", fg="green"),
    Grade.WARNING: click.style("!", fg="yellow"),
    Grade.FAILED: click.style("✗", fg="red"),
}


class Finding(msgspec.Struct, frozen=True):
    """What was checked, the result, an explanation, and what to do about it."""

    part: str
    verdict: Grade
    text: str
    remedy: str = ""
    account: str = ""
    """Which of several accounts it is about, as in the status; empty where there is but one, or it is about all."""

    def line(self) -> str:
        """Text for a terminal; the remedy is on a separate line."""
        whose = f" of {self.account}" if self.account else ""
        text = f"{_MARKS[self.verdict]} {self.part}{whose}: {self.text}"
        return f"{text}\n    → {self.remedy}" if self.remedy else text


def of_account(findings: Iterable[Finding], account: str) -> list[Finding]:
    """The same, as being about one of several accounts; "": there is but one."""
    return [msgspec.structs.replace(finding, account=account) for finding in findings]


def ok(part: str, text: str) -> Finding:
    """All is well."""
    return Finding(part, Grade.OK, text)


def warn(part: str, text: str, remedy: str = "") -> Finding:
    """It will work but needs attention, or it could not be tested."""
    return Finding(part, Grade.WARNING, text, remedy)


def failed(part: str, text: str, remedy: str = "") -> Finding:
    """It will not work."""
    return Finding(part, Grade.FAILED, text, remedy)
