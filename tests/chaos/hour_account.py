"""What the hour is judged by: memory, log, Google's limits, and what each row did."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_common.simulation.google.quota import Limits, most_in_any
from tests.benchmarks.table import Report
from tests.chaos.hosted import Hosted

MAX_GROWTH: Final = 3.0
"""MB by which the supervisor's memory may differ from its size when it had settled."""
MAX_LOG: Final = 10.0
"""kB of log in a minute."""
SETTLE: Final = 180.0
"""Seconds after all cameras are live, or after a new supervisor's start, from which its memory is judged."""
_BASE: Final = 120.0
"""Seconds whose median is what memory is compared with."""


@dataclass(frozen=True)
class Told:
    """What became of one row."""

    row: str
    camera: str
    seconds: float
    """From the fault to the end of its effects; for the whole relay: from the end of its cause to all cameras live."""
    generates: int
    """Generate commands of all cameras meanwhile."""
    harm: dict[str, int]
    """What happened to other cameras meanwhile."""
    problem: str = ""


@dataclass(frozen=True)
class Memory:
    """The supervisor's memory in MB (10^6 bytes) at a time on the monotonic clock: resident, and its own part of it."""

    at: float
    pid: int
    resident: float
    own: float


def memory(pid: int) -> Memory:
    """The memory of a process now; raises OSError when it is gone."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {words[0]: int(words[1]) * 1024 / 1e6 for words in lines if words[0] in ("VmRSS:", "RssAnon:")}
    if len(found) < 2:
        raise OSError(f"process {pid} has ended")
    return Memory(time.monotonic(), pid, found["VmRSS:"], found["RssAnon:"])


@dataclass
class Account:
    """Everything that was measured."""

    began: float = field(default_factory=time.monotonic)
    settled: float = float("inf")
    """From when memory is judged."""
    memory: list[Memory] = field(default_factory=list)
    log: list[tuple[float, int]] = field(default_factory=list)
    """Bytes of log at a time."""
    rows: list[Told] = field(default_factory=list)

    def sample(self, relay: Hosted) -> None:
        """Note the memory and the log's size."""
        try:
            self.memory.append(memory(relay.pid))
        except OSError:
            return
        self.log.append((time.monotonic(), relay.log.stat().st_size))

    def minutes(self) -> list[float]:
        """kB of log in each whole minute since the start, interpolated between samples."""
        edges, found = [self.began], [0.0]
        for (t0, b0), (t1, b1) in zip([(self.began, 0), *self.log], self.log, strict=False):
            while t1 >= edges[-1] + 60.0 > t0:
                edges.append(edges[-1] + 60.0)
                found.append(b0 + (b1 - b0) * (edges[-1] - t0) / (t1 - t0))
        return [(after - before) / 1000 for before, after in itertools.pairwise(found)]

    def spans(self) -> list[tuple[float, list[Memory]]]:
        """Of each supervisor that ran long enough: its settled size in MB, and all its samples from then on."""
        spans = []
        for pid in dict.fromkeys(one.pid for one in self.memory):
            mine = [one for one in self.memory if one.pid == pid]
            since = max(self.settled, mine[0].at + SETTLE)
            judged = [one for one in mine if one.at >= since]
            base = [one.resident for one in judged if one.at < since + _BASE]
            if len(judged) > len(base) > 0:
                spans.append((statistics.median(base), judged))
        return spans


def limits_exceeded(google: dict[str, Any]) -> list[str]:
    """Google's limits on commands that were exceeded, in words, from the commands' own record."""
    limits, exceeded = Limits(), []
    if (most := google["most_in_any_minute"]) > limits.commands_per_minute:
        exceeded.append(f"{most} commands in a minute")
    times: dict[tuple[str, str], list[float]] = {}
    for one in google["commands"]:
        for key in ((one["device"], ""), (one["device"], one["command"])):
            times.setdefault(key, []).append(one["time"])
    for (device, command), of_it in times.items():
        checks = [(60.0, limits.device_command_per_minute)]
        if not command:
            checks = [(60.0, limits.device_per_minute), (3600.0, limits.device_per_hour)]
        for span, most in checks:
            if (found := most_in_any(of_it, span)) > most:
                exceeded.append(f"{found} {command or 'commands'} to {device} in {span:.0f} s")
    return exceeded


def judge(account: Account, relay: Hosted, report: Report) -> None:
    """Add the bars to `report`."""
    cameras, google = len(relay.sights), relay.google
    report.add("cameras live at the end", relay.live, "", least=cameras, note=f"of {cameras}")
    report.add("rows inflicted", len(account.rows), "")
    lasting = [told.row for told in account.rows if told.problem]
    report.add("rows after which it was not well in time", len(lasting), "", most=0, note="; ".join(lasting))
    refused = ", ".join(f"{count} × {name}" for name, count in google["refused"].items())
    report.add("calls over Google's limits", sum(google["refused"].values()), "", most=0, note=refused)
    exceeded = limits_exceeded(google)
    report.add("limits on commands exceeded", len(exceeded), "", most=0, note="; ".join(exceeded))
    report.add("most commands in any minute", google["most_in_any_minute"], "", most=Limits().commands_per_minute)
    spans = account.spans()
    report.add("supervisors whose memory was judged", len(spans), "", least=1)
    for base, samples in spans:
        sizes = [one.resident for one in samples]
        minutes = (samples[-1].at - samples[0].at) / 60
        note = f"{base:.1f} MB at first, {min(sizes):.1f} to {max(sizes):.1f}, {sizes[-1]:.1f} at last"
        worst = max(max(sizes) - base, base - min(sizes))
        report.add(f"change of the supervisor's memory in {minutes:.0f} min", worst, "MB", most=MAX_GROWTH, note=note)
    if log := account.minutes():
        over = sum(one > MAX_LOG for one in log)
        report.add("log, mean of all minutes", statistics.mean(log), "kB/min", most=MAX_LOG)
        report.add("log, worst minute", max(log), "kB", most=MAX_LOG, note=f"{over} of {len(log)} minutes over")
    commands = Counter(one["command"] for one in google["commands"])
    for name, count in sorted(commands.items()):
        failed = sum(one["command"] == name and one["status"] != 200 for one in google["commands"])
        report.add(f"{name} commands", count, "", note=f"{failed} failed")


def table(rows: Sequence[Told]) -> str:
    """The rows as Markdown, in the order in which they were inflicted."""
    lines = ["| row | camera | over after | Generates | harm to others |", "|---|---|---:|---:|---|"]
    for told in rows:
        harm = ", ".join(f"{count} {name}" for name, count in told.harm.items()) or "nothing"
        verdict = f" **{told.problem}**" if told.problem else ""
        lines.append(f"| {told.row}{verdict} | {told.camera} | {told.seconds:.1f} s | {told.generates} | {harm} |")
    return "\n".join(lines)
