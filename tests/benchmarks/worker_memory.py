"""What workers hold in memory, with a setting as it is and otherwise, in turns on the same cameras.

Most of a worker's memory is shared with the fork server until someone writes to a page: one worker says little.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from tests.benchmarks import proc
from tests.benchmarks.stage import Stage
from tests.benchmarks.table import Report

SETTLE: Final = 30.0
"""Seconds between the last camera's coming live and the look: histories are full, nearly every path has run."""
AS_IT_IS: Final = "as it is"


async def measure_memory(
    stage: Stage, report: Report, cameras: int, *, rounds: int, settings: Sequence[str] = (), settle: float = SETTLE
) -> None:
    """PSS, private memory and threads a worker: as it is, and with each of `settings` (`section.key=value`)."""
    variants: dict[str, dict[str, Any]] = {AS_IT_IS: {}, **{setting: _document(setting) for setting in settings}}
    found: dict[str, list[dict[str, float]]] = {title: [] for title in variants}
    for _ in range(rounds):
        for title, document in variants.items():
            async with stage.relay(cameras, sections=document) as relay:
                await relay.until_live()
                await asyncio.sleep(settle)
                looked = [looked_at(pid) for pid in (await relay.pids()).values()]
            found[title].append({name: fmean(one[name] for one in looked) for name in looked[0]})
            text = ", ".join(f"{name} {value:.2f}" for name, value in found[title][-1].items())
            report.progress(f"  {title}, run {len(found[title])}: {text}")
    for title, runs in found.items():
        where = f"{cameras} cameras, CPython {platform.python_version()}, {title}"
        note = f"median of {rounds}"
        for name, unit in (("PSS", "MB"), ("private", "MB"), ("threads", "")):
            report.add(f"{name} per worker, {where}", statistics.median(run[name] for run in runs), unit, note=note)


def looked_at(pid: int) -> dict[str, float]:
    """PSS and private memory in MB (10^6 bytes), and threads."""
    held = proc.memory_of(pid)
    private = held["Private_Clean"] + held["Private_Dirty"]
    return {
        "PSS": held["Pss"] / 1e6,
        "private": private / 1e6,
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
    }


def _document(setting: str) -> dict[str, Any]:
    """`section.key=value` as a configuration has it; the value is a text."""
    key, _, value = setting.partition("=")
    made: Any = value
    for name in reversed(key.split(".")):
        made = {name: made}
    assert isinstance(made, Mapping), f"{setting} is not section.key=value"
    return dict(made)
