"""One finding of a check."""

from __future__ import annotations

import enum
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

    def line(self) -> str:
        """Text for a terminal; the remedy is on a separate line."""
        text = f"{_MARKS[self.verdict]} {self.part}: {self.text}"
        return f"{text}\n    → {self.remedy}" if self.remedy else text


def ok(part: str, text: str) -> Finding:
    """All is well."""
    return Finding(part, Grade.OK, text)


def warn(part: str, text: str, remedy: str = "") -> Finding:
    """It will work but needs attention, or it could not be tested."""
    return Finding(part, Grade.WARNING, text, remedy)


def failed(part: str, text: str, remedy: str = "") -> Finding:
    """It will not work."""
    return Finding(part, Grade.FAILED, text, remedy)
