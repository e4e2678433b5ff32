"""`python -m tests.benchmarks`: measure the relay against its targets, print the table, write bench.json.

It needs the machine for itself. Everything stays on loopback, but for the packages that `--peers` installs. A part
that fails is a row that says why; the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks import control_plane, peers, proc
from tests.benchmarks.cost import DRIBBLE, cpu_row, measure_cost, measure_cpu
from tests.benchmarks.demo import measure_demo
from tests.benchmarks.earlier import COMMIT, DELAY_BARS, Paired, build
from tests.benchmarks.kills import measure_kills
from tests.benchmarks.local import measure_held, measure_joins, measure_local
from tests.benchmarks.many_renditions import measure_many
from tests.benchmarks.peers import FFMPEG, GO2RTC, PLAIN, measure_peer
from tests.benchmarks.renditions import measure_renditions
from tests.benchmarks.sfu_seat import measure_seat
from tests.benchmarks.soak import measure_soak
from tests.benchmarks.stage import BenchError, Stage, stage
from tests.benchmarks.table import Report, render
from tests.benchmarks.weather import measure_bursts, measure_loss
from tests.benchmarks.worker_memory import measure_memory

ALL: Final = "cost,kills,weather,plain,control,paired"
CAMERAS: Final = (1, 5, 10, 20)
_PART_TIMEOUT: Final = 240.0

_FEW: Final = 5
"""Cameras for parts that need not be measured with many."""

Part = tuple[str, Callable[[Stage], Awaitable[None]]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--cameras", default=",".join(map(str, CAMERAS)), help="numbers of cameras, as 1,5,10,20")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each CPU measurement")
    parser.add_argument("--delay-seconds", type=float, default=8.0, help="length of each delay measurement")
    parts = (
        "which parts to run; soak and seat (Chromium as SFU), eleven minutes each, demo (its sound in Chromium), one "
        "minute, local (viewers without the SFU, beside go2rtc), three minutes, renditions (small pictures), twelve "
        "minutes, held (its memory), two minutes, and memory (of workers, with --setting in turns), a minute a run, "
        "only run when they are named"
    )
    parser.add_argument("--parts", help=parts)
    parser.add_argument("--soak-seconds", type=float, default=600.0, help="length of the soak")
    parser.add_argument("--seat-seconds", type=float, default=60.0, help="length of each row of the seat")
    parser.add_argument("--demo-seconds", type=float, default=40.0, help="how long to listen to the demo")
    against = f"the earlier commit of the part paired (default: {COMMIT}); nothing else, unless parts are named"
    parser.add_argument("--against", metavar="COMMIT", help=against)
    paths = ("auto", "compiled", "python")
    parser.add_argument("--data-path", choices=paths, default="auto", help="what today's workers use")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="of the parts paired, memory and renditions: how often each of the two is measured",
    )
    setting = "of the part memory: measured otherwise as well, as workers.immortal_objects=off (may be repeated)"
    parser.add_argument("--setting", metavar="SECTION.KEY=VALUE", action="append", default=[], help=setting)
    parser.add_argument("--peers", action="store_true", help="also go2rtc and FFmpeg (downloaded), at the most cameras")
    parser.add_argument("--dribble", action="store_true", help="cameras write one packet at a time, not one frame")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the rows are written")
    options = parser.parse_args()
    if options.parts is None:
        options.parts = "paired" if options.against else ALL
    options.against = options.against or COMMIT
    return options


async def run(options: argparse.Namespace, report: Report) -> None:
    """Run all requested parts; after a failed one the simulators are restarted."""
    numbers = [int(number) for number in options.cameras.split(",")]
    wanted = set(options.parts.split(","))
    report.progress(f"the machine is {proc.load():.0%} busy without us")
    paired = await in_turns(options, report, max(numbers)) if "paired" in wanted else {}
    habits: tuple[tuple[dict[str, bool], list[Part]], ...] = (
        ({"dribble": options.dribble}, plan(report, numbers, wanted, options)),
        ({"dribble": True}, dribbling(report, max(numbers), options) if "cost" in wanted else []),
    )
    await run_parts(options, report, [*habits, *turns(options, report, paired)])
    peers.compare(report, max(numbers) if options.peers else min(_FEW, max(numbers)), cpu_row)
    for row in paired.values():
        row.compare(report)
    if "demo" in wanted:
        await measure_demo(report, options.demo_seconds)
    if "renditions" in wanted:
        await measure_renditions(report, options.seconds, options.rounds)
        await measure_many(report)
    if "held" in wanted:
        await measure_held(report)
    if "seat" in wanted:
        await measure_seat(report, options.seat_seconds)
    if "control" in wanted:
        for measure in (control_plane.measure_cold_start, control_plane.measure_day, control_plane.measure_faulty_day):
            report.progress(measure.__name__.replace("_", " "))
            measure(report)


async def run_parts(
    options: argparse.Namespace, report: Report, groups: Sequence[tuple[dict[str, bool], list[Part]]]
) -> None:
    """Run the parts of each group on simulators with the group's habits; after a failed one they are restarted."""
    most = max(int(number) for number in options.cameras.split(","))
    for habits, parts in groups:
        while parts:
            async with stage(most, data_path=options.data_path, **habits) as world:
                while parts:
                    title, part = parts.pop(0)
                    report.progress(title)
                    try:
                        await asyncio.wait_for(part(world), _PART_TIMEOUT + extra(title, options))
                    except Exception as error:
                        report.failed(title, error)
                        break


def extra(title: str, options: argparse.Namespace) -> float:
    """Seconds that this part may take beyond what every part may."""
    if title.startswith("memory"):
        return float(options.rounds * (1 + len(options.setting)) * 120.0)
    return float(options.soak_seconds) if "soak" in title else 0.0


async def in_turns(options: argparse.Namespace, report: Report, most: int) -> dict[str, Paired]:
    """The rows that are compared with an earlier commit, by the habit of their cameras; none where it is not there."""
    report.progress(f"building {options.against}")
    try:
        tree = await build(options.against)
    except BenchError as error:
        report.failed(f"compared with {options.against}", error)
        return {}
    row = functools.partial(Paired, tree, cameras=most, seconds=options.seconds)
    return {
        "": row("the whole job", delay_seconds=options.delay_seconds, bars={"CPU": 0.45, "memory": 0.6, **DELAY_BARS}),
        "video": row("video only", audio=False, bars={"CPU": 0.40}),
        "dribble": row("the whole job" + DRIBBLE, bars={"CPU": 0.5}),
        "webrtc": row("WebRTC cameras", bars={"CPU": 0.5}),
    }


def turns(
    options: argparse.Namespace, report: Report, paired: Mapping[str, Paired]
) -> list[tuple[dict[str, bool], list[Part]]]:
    """Earlier, today, earlier, today …, row by row, each on cameras with its habit."""
    groups: list[tuple[dict[str, bool], list[Part]]] = []
    for habit, row in paired.items():
        parts: list[Part] = [
            (f"{row.title}, {which}", functools.partial(row.measure, report=report, which=which))
            for which in ("earlier", "today") * options.rounds
        ]
        groups.append(({habit: True} if habit in ("dribble", "webrtc") else {}, parts))
    return groups


def dribbling(report: Report, most: int, options: argparse.Namespace) -> list[Part]:
    """The parts with cameras that write a packet at a time."""
    cpu = functools.partial(measure_cpu, report=report, cameras=most, seconds=options.seconds, dribble=True)
    parts: list[Part] = [
        (f"{what}, {most} cameras{DRIBBLE}", functools.partial(cpu, audio=audio))
        for what, audio in (("whole job", True), ("video only", False))
    ]
    if options.peers:
        peer = functools.partial(measure_peer, report=report, peer=GO2RTC, cameras=most, seconds=options.seconds)
        parts.append((f"go2rtc, {most} cameras{DRIBBLE}", functools.partial(peer, habit=DRIBBLE)))
    return parts


def plan(report: Report, numbers: list[int], wanted: set[str], options: argparse.Namespace) -> list[Part]:
    """The parts that move media, in order."""
    seconds, most = options.seconds, max(numbers)
    few = min(_FEW, most)
    parts: list[Part] = []
    if "cost" in wanted:
        for number in numbers:
            work = functools.partial(
                measure_cost, report=report, cameras=number, seconds=seconds, delay_seconds=options.delay_seconds
            )
            parts.append((f"cost and delay, {number} cameras", work))
    if "kills" in wanted:
        parts.append(("kill -9", lambda world: measure_kills(world, report, few)))
    if "weather" in wanted:
        parts.append(("bursts", lambda world: measure_bursts(world, report, 0.6 * seconds)))
        parts.append(("loss", lambda world: measure_loss(world, report, 0.6 * seconds)))
    if "plain" in wanted:
        at = most if options.peers else few
        parts.append((f"av and aiortc, {at} cameras", lambda world: measure_peer(world, report, PLAIN, at, seconds)))
    if "soak" in wanted:
        work = functools.partial(measure_soak, report=report, cameras=most, seconds=options.soak_seconds)
        parts.append((f"soak, {most} cameras", work))
    if "memory" in wanted:
        for number in numbers:
            measure = functools.partial(measure_memory, report=report, cameras=number, rounds=options.rounds)
            parts.append((f"memory, {number} cameras", functools.partial(measure, settings=options.setting)))
    if "local" in wanted:
        parts += [
            ("a local viewer", lambda world: measure_local(world, report, seconds, options.delay_seconds)),
            ("joining", lambda world: measure_joins(world, report)),
        ]
    if options.peers:
        parts += [
            (f"video only, {most} cameras", lambda world: measure_cpu(world, report, most, seconds, audio=False)),
            (f"go2rtc, {most} cameras", lambda world: measure_peer(world, report, GO2RTC, most, seconds)),
            (f"FFmpeg, {most} cameras", lambda world: measure_peer(world, report, FFMPEG, most, seconds)),
        ]
    return parts


def main() -> None:
    """Measure, print, write."""
    options = arguments()
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
