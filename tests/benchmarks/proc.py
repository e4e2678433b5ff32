"""What processes cost, read from /proc: CPU, wakes, memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Totals of one process, all threads: CPU seconds and voluntary context switches."""

    cpu: float
    wakes: int


@dataclass(frozen=True)
class Cost:
    """Means over processes: CPU in ms per second, wakes per second, proportional set size in MB (10^6 bytes)."""

    cpu: float
    wakes: float
    memory: float


def usage(pid: int) -> Usage:
    """Totals so far; raises OSError when the process is gone."""
    # The name in parentheses may hold spaces: fields are counted from its end.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    wakes = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (thread / "status").read_text()
        except OSError:
            continue  # a thread that ended while we looked
        wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, wakes)


def memory_of(pid: int) -> dict[str, int]:
    """What `smaps_rollup` has, in bytes, by its names: `Pss`, `Private_Dirty` and so on."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) * 1024 for name, _, size in (line.partition(":") for line in lines)}


def memory(pid: int) -> int:
    """Proportional set size in bytes: private pages, and the process's share of those it shares."""
    return memory_of(pid)["Pss"]


async def measure(pids: Sequence[int], seconds: float, per: int | None = None) -> Cost:
    """Watch the processes for `seconds`; figures are per process, or divided by `per` (cameras) when given."""
    count = per or len(pids)
    before = [usage(pid) for pid in pids]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    after = [usage(pid) for pid in pids]
    elapsed = (time.monotonic() - began) * count
    cpu = sum(b.cpu - a.cpu for a, b in zip(before, after, strict=True))
    wakes = sum(b.wakes - a.wakes for a, b in zip(before, after, strict=True))
    return Cost(cpu * 1000 / elapsed, wakes / elapsed, fmean(map(memory, pids)) * len(pids) / count / 1e6)


def load() -> float:
    """The share (0..1) of this machine's CPU that is in use by anyone, over half a second."""

    def busy() -> tuple[int, int]:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    first = busy()
    time.sleep(0.5)
    last = busy()
    return (last[0] - first[0]) / max(1, last[1] - first[1])
