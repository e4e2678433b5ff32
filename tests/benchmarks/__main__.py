"""`python -m tests.benchmarks`: measure the relay against its bars, print the table, write bench.json.

It needs the machine for itself. Everything stays on loopback, but for the packages that `--peers` installs. A part
that fails is a row that says why; the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.benchmarks import control_plane, peers, proc
from tests.benchmarks.cost import cpu_row, measure_cost, measure_cpu
from tests.benchmarks.kills import measure_kills
from tests.benchmarks.stage import Stage, stage
from tests.benchmarks.table import Report, render
from tests.benchmarks.weather import measure_bursts, measure_loss

CAMERAS: Final = (1, 5, 10, 20)
PEER_RATIO: Final = 0.6
_PART_TIMEOUT: Final = 240.0

Part = tuple[str, Callable[[], Awaitable[None]]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--cameras", default=",".join(map(str, CAMERAS)), help="numbers of cameras, as 1,5,10,20")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each CPU measurement")
    parser.add_argument("--delay-seconds", type=float, default=8.0, help="length of each delay measurement")
    parser.add_argument("--parts", default="cost,kills,weather,plain,control", help="which parts to run")
    parser.add_argument("--peers", action="store_true", help="also go2rtc and FFmpeg (downloaded), at the most cameras")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the rows are written")
    return parser.parse_args()


async def run(options: argparse.Namespace, report: Report) -> None:
    """All parts that were asked for."""
    numbers = [int(number) for number in options.cameras.split(",")]
    wanted = set(options.parts.split(","))
    async with stage(max(numbers)) as world:
        report.progress(f"simulators run; the machine is {proc.load():.0%} busy without us")
        for title, part in plan(world, report, numbers, wanted, options):
            report.progress(title)
            try:
                await asyncio.wait_for(part(), _PART_TIMEOUT)
            except Exception as error:
                report.failed(title, error)
    if "control" in wanted:
        for measure in (control_plane.measure_cold_start, control_plane.measure_day, control_plane.measure_faulty_day):
            report.progress(measure.__doc__ or "")
            measure(report)


def plan(
    world: Stage, report: Report, numbers: list[int], wanted: set[str], options: argparse.Namespace
) -> list[Part]:
    """The parts that move media, in order."""
    seconds, most = options.seconds, max(numbers)
    few = min(5, most)
    parts: list[Part] = []
    if "cost" in wanted:
        for number in numbers:
            work = functools.partial(measure_cost, world, report, number, seconds, options.delay_seconds)
            parts.append((f"cost and delay, {number} cameras", work))
    if "kills" in wanted:
        parts.append(("kill -9", lambda: measure_kills(world, report, few)))
    if "weather" in wanted:
        parts.append(("bursts", lambda: measure_bursts(world, report, seconds)))
        parts.append(("loss", lambda: measure_loss(world, report, seconds)))
    if "plain" in wanted:
        at = most if options.peers else few
        parts.append((f"av and aiortc, {at} cameras", lambda: peers.measure(world, report, peers.PLAIN, at, seconds)))
        parts.append(("", lambda: ratio(report, "plain av and aiortc", peers.PLAIN.row(at), cpu_row(at))))
    if options.peers:
        video = functools.partial(measure_cpu, world, report, most, seconds, audio=False)
        go2rtc, ffmpeg = peers.GO2RTC.row(most), peers.FFMPEG.row(most)
        parts += [
            (f"video only, {most} cameras", video),
            (f"go2rtc, {most} cameras", lambda: peers.measure(world, report, peers.GO2RTC, most, seconds)),
            (f"FFmpeg, {most} cameras", lambda: peers.measure(world, report, peers.FFMPEG, most, seconds)),
            ("", lambda: ratio(report, "go2rtc (video only)", go2rtc, cpu_row(most, audio=False), PEER_RATIO)),
            ("", lambda: ratio(report, "FFmpeg (the whole job)", ffmpeg, cpu_row(most), PEER_RATIO)),
        ]
    return [(title or "ratio", part) for title, part in parts]


async def ratio(report: Report, peer: str, theirs: str, ours: str, most: float | None = None) -> None:
    """The relay's CPU as a share of a peer's."""
    report.ratio(f"CPU as a share of {peer}", ours, theirs, most=most)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    os.environ.pop("RELAY_REQUIRE_BROWSER", None)
    report = Report()
    try:
        asyncio.run(run(options, report))
    finally:
        report.write(options.json)
        print(render(report.rows))
    missed = [row.name for row in report.rows if row.met is False]
    print(f"\n{len(missed)} bars missed: {'; '.join(missed)}" if missed else "\nevery bar that was measured is met")


if __name__ == "__main__":
    main()
