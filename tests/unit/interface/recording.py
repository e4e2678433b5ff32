"""What was recorded, and what to say about a difference."""

from __future__ import annotations

import difflib
from pathlib import Path

from tests.unit.interface.surfaces import SURFACES

RECORDED = Path(__file__).parent / "recorded"
AGAIN = "python -m tests.unit.interface --record"


def record() -> None:
    """Write down what every surface is now."""
    RECORDED.mkdir(exist_ok=True)
    for name, collect in SURFACES.items():
        (RECORDED / f"{name}.txt").write_text("\n".join(collect()) + "\n")


def difference(name: str) -> str:
    """How a surface differs from what was recorded, and what to do; "" when it does not."""
    before = (RECORDED / f"{name}.txt").read_text().splitlines()
    now = SURFACES[name]()
    lines = list(difflib.unified_diff(before, now, "recorded", "now", lineterm="", n=1))
    if not lines:
        return ""
    gone = any(line.startswith("-") for line in lines[2:])
    return "\n".join(
        [
            f"What programs read has changed ({name}):",
            *lines,
            "Something that was there is gone or different, and whoever reads it breaks: that is not allowed."
            if gone
            else "Something was added: that is allowed when it comes last and, if a program may leave it out, has a "
            "default.",
            f"If that is what you want, record it in the same commit: {AGAIN}",
        ]
    )
