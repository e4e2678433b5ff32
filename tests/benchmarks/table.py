"""The rows of the benchmark, as a table to read and as JSON to keep."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure; `most` and `least` are its bar, None when it has none. `value` None: it could not be measured."""

    name: str
    value: float | None
    unit: str
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def bar(self) -> str:
        """The bar in words; empty when there is none."""
        if self.most is not None:
            return f"≤ {self.most:g}" if self.most else "0"
        return f"≥ {self.least:g}" if self.least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar. What could not be measured is not met."""
        if self.most is None and self.least is None:
            return None if self.value is not None else False
        if self.value is None:
            return False
        return self.value <= self.most if self.most is not None else self.value >= (self.least or 0.0)

    def document(self) -> dict[str, Any]:
        """The row as bench.json holds it."""
        value = None if self.value is None else round(self.value, 4)
        return {"name": self.name, "value": value, "unit": self.unit, "bar": self.bar, "met": self.met}


@dataclass
class Report:
    """Rows in the order in which they were measured; progress goes to standard error."""

    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(
        self,
        name: str,
        value: float | None,
        unit: str,
        *,
        most: float | None = None,
        least: float | None = None,
        note: str = "",
    ) -> None:
        """Add a row, and say so."""
        row = Row(name, value, unit, most, least, note)
        self.rows.append(row)
        self.progress(f"  {name}: {_figure(row)} {note}".rstrip())

    def failed(self, part: str, error: BaseException) -> None:
        """Add a row for a part that ended early."""
        text = " ".join(str(error).split()) or type(error).__name__
        self.add(part, None, "", note=f"failed: {text[:240]}")

    def value(self, name: str) -> float | None:
        """The figure of an earlier row."""
        return next((row.value for row in self.rows if row.name == name), None)

    def ratio(self, name: str, ours: str, theirs: str, *, most: float | None = None) -> None:
        """Add the ratio of two earlier rows, if both were measured."""
        numerator, denominator = self.value(ours), self.value(theirs)
        if numerator is not None and denominator:
            self.add(name, numerator / denominator, "×", most=most)

    def progress(self, text: str) -> None:
        """One line for who waits."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", file=sys.stderr, flush=True)

    def write(self, path: Path) -> None:
        """Write bench.json."""
        path.write_text(json.dumps([row.document() for row in self.rows], indent=1, ensure_ascii=False) + "\n")


def render(rows: Iterable[Row]) -> str:
    """The table as Markdown."""
    head = ("what", "figure", "bar", "met", "")
    met = {True: "yes", False: "NO", None: ""}
    cells = [head, *((row.name, _figure(row), row.bar, met[row.met], row.note) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _figure(row: Row) -> str:
    if row.value is None:
        return "-"
    digits = 0 if row.value == int(row.value) or abs(row.value) >= 100 else 2 if abs(row.value) < 10 else 1
    return f"{row.value:.{digits}f} {row.unit}".rstrip()
