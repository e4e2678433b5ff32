"""The measured fault matrix as a table for people."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any


def table(outcomes: list[Any], killed: dict[str, Any] | None, witness: dict[str, Any]) -> str:
    """Markdown, one line per fault."""
    load, _, _ = os.getloadavg()
    lines = [
        f"Measured on {datetime.date.today()}: {platform.system()} {platform.release()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load {load:.1f}; {witness['seconds']:.0f} s in all.",
        "",
        "| fault | the viewer sees | no packet for | back after (limit) | Generate | others lost |",
        "|---|---|---:|---:|---:|---|",
    ]
    for one in outcomes:
        told = f", reason told after {one.degraded_after:.1f} s" if one.degraded_after is not None else ""
        others = ", ".join(f"{count} {name}" for name, count in one.witness.items()) or "nothing"
        verdict = f" **{one.problem}**" if one.problem else ""
        lines.append(
            f"| {one.row}{verdict} | {one.sees}{told} | {one.dark:.1f} s | {one.seconds:.1f} s ({one.limit:.0f}) "
            f"| {one.generates} | {others} |"
        )
    if killed is not None:
        lost = sum(track["lost"] for track in killed["tracks"])
        lines.append(
            f"| supervisor SIGKILL | nothing ({lost} packets lost of all cameras) | 0.0 s | workers adopted "
            f"{killed['adopted']:.1f} s after the next one serves (8) | {len(killed['commands']) - 2} | nothing |"
        )
    return "\n".join(lines) + "\n"
