"""The same measurement with an earlier commit: built apart, run in turns with today's on the same simulators.

Two runs on one machine differ by what else it does at the time. In turns (A B A B) both get their share of that.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.cost import SETTLE, added_delay
from tests.benchmarks.stage import BenchError, Stage
from tests.benchmarks.table import Report

MOST: Final = 1.10
"""Bar: today's p50 and p99 as multiples of the earlier commit's."""
_BUILT: Final = Path(sys.prefix) / "earlier"
_ROOT: Final = Path(__file__).parents[2]
_SHARES: Final = (0.5, 0.99)


async def build(commit: str) -> Path:
    """The source tree of `commit`, with its own locked packages in `.venv`; built once, then kept."""
    full = await _run("git", "-C", str(_ROOT), "rev-parse", "--verify", f"{commit}^{{commit}}")
    tree = _BUILT / full.strip()[:12]
    if not (tree / ".venv" / "installed").exists():
        tree.mkdir(parents=True, exist_ok=True)
        await _run("sh", "-c", 'git -C "$0" archive "$1" | tar -x -C "$2"', str(_ROOT), full.strip(), str(tree))
        await _run("make", "-C", str(tree), f"PYTHON={sys.executable}", "VENV=.venv", ".venv/installed")
    return tree


@dataclass
class Paired:
    """Added delay of an earlier commit and of today's tree, in turns. Milliseconds, a figure for each run."""

    tree: Path
    cameras: int
    seconds: float
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"earlier": [], "today": []})

    async def measure(self, stage: Stage, report: Report, which: str) -> None:
        """One run of one of the two."""
        tree = self.tree if which == "earlier" else None
        async with stage.relay(self.cameras, tree=tree) as relay:
            await relay.until_live()
            await asyncio.sleep(SETTLE)
            delays, packets = await added_delay(stage, relay, self.seconds)
        p50, p99 = (delays.quantile(share) * 1000 for share in _SHARES)
        self.figures[which].append((p50, p99))
        run = len(self.figures[which])
        for name, value in (("p50", p50), ("p99", p99)):
            report.add(f"added delay {name}, {which}, run {run}", value, "ms", note=f"{packets} packets")

    def compare(self, report: Report) -> None:
        """Medians over the runs of each, and their ratios against the bar."""
        if not all(self.figures.values()):
            return
        for index, name in enumerate(("p50", "p99")):
            earlier, today = (
                statistics.median(run[index] for run in self.figures[which]) for which in ("earlier", "today")
            )
            note = f"medians {earlier:.3f} and {today:.3f} ms; earlier is {self.tree.name}"
            report.add(f"added delay {name}, today / earlier", today / earlier, "×", most=MOST, note=note)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        raise BenchError(f"{command[0]} failed: {(err or out).decode(errors='replace')[-300:]}")
    return out.decode()
