"""The same measurement with an earlier commit: built apart, run in turns with today's on the same simulators.

Two runs on one machine differ by what else it does at the time. In turns (A B A B) both get their share of that.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks import proc
from tests.benchmarks.cost import SETTLE, added_delay
from tests.benchmarks.stage import BenchError, Stage
from tests.benchmarks.table import Report

COMMIT: Final = "8e45027"
"""The last one without anything compiled: what the bars compare with."""
_BUILT: Final = Path(sys.prefix) / "earlier"
_ROOT: Final = Path(__file__).parents[2]
_SHARES: Final = {"added delay p50": 0.5, "added delay p99": 0.99}
DELAY_BARS: Final = dict.fromkeys(_SHARES, 1.10)


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
    """One row of the table for an earlier commit and for today's tree, in turns."""

    tree: Path
    title: str
    """What is measured, in words that follow the figure's name."""
    cameras: int
    seconds: float
    delay_seconds: float = 0.0
    """How long the added delay is measured; 0: it is not."""
    audio: bool = True
    bars: Mapping[str, float] = field(default_factory=dict)
    """The most that today's figure may be of the earlier one's, by the figure's name."""
    figures: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {"earlier": [], "today": []})
    """Of each run: CPU in ms/s and memory in MB a worker, added delay in ms."""

    async def measure(self, stage: Stage, report: Report, which: str) -> None:
        """One run of one of the two."""
        tree = self.tree if which == "earlier" else None
        async with stage.relay(self.cameras, audio=self.audio, tree=tree) as relay:
            await relay.until_live()
            await asyncio.sleep(SETTLE)
            cost = await proc.measure(list((await relay.pids()).values()), self.seconds)
            found = {"CPU": cost.cpu, "memory": cost.memory}
            if self.delay_seconds:
                delays, _ = await added_delay(stage, relay, self.delay_seconds)
                found |= {name: delays.quantile(share) * 1000 for name, share in _SHARES.items()}
        self.figures[which].append(found)
        text = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        report.progress(f"  {which}, run {len(self.figures[which])}: {text}")

    def compare(self, report: Report) -> None:
        """The median of the pairs' ratios for each figure, against its bar."""
        pairs = list(zip(self.figures["earlier"], self.figures["today"], strict=False))
        for name in pairs[0][0] if pairs else ():
            ratio = statistics.median(today[name] / earlier[name] for earlier, today in pairs)
            was, now = (statistics.median(run[name] for run in self.figures[which]) for which in ("earlier", "today"))
            note = f"{len(pairs)} pairs, medians {was:.2f} and {now:.2f}; earlier is {self.tree.name}"
            title = f"{name} of {self.title}, today / earlier"
            report.add(title, ratio, "×", most=self.bars.get(name), note=note)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        raise BenchError(f"{command[0]} failed: {(err or out).decode(errors='replace')[-300:]}")
    return out.decode()
