"""What small pictures of keyframes cost many cameras: all workers' CPU without and with them, in turns."""

from __future__ import annotations

import asyncio
import statistics
from typing import Final

from relay_supervisor.viewing.viewers import ANSWER_WITHIN
from tests.benchmarks import proc
from tests.benchmarks.stage import Relay, Stage, stage
from tests.benchmarks.table import Report
from tests.fixtures.stock_page import HttpViews

CAMERAS: Final = 20
MOST: Final = 80.0
"""Milliseconds of CPU a second that small pictures of `CAMERAS` may cost in all."""
TURNS: Final = ("off", "keyframes", "off", "keyframes")
SETTLE: Final = 8.0
MEASURED: Final = 20.0
"""Seconds of each turn; with starting and ending relays all of it takes less than four minutes."""


async def measure_many(report: Report) -> None:
    """The row for all cameras' small pictures, all of them watched."""
    title = f"keyframes, {CAMERAS} cameras: CPU of all workers, more than without"
    report.progress(f"{title}: {len(TURNS)} turns of {MEASURED:.0f} s")
    spent: dict[str, list[float]] = {mode: [] for mode in TURNS}
    made = 0
    try:
        async with stage(CAMERAS) as world:
            for mode in TURNS:
                cpu, pictures = await _turn(world, mode)
                spent[mode].append(cpu)
                made += pictures
    except Exception as error:
        report.failed(title, error)
        return
    off, keyframes = (statistics.fmean(spent[mode]) for mode in ("off", "keyframes"))
    seconds = MEASURED * TURNS.count("keyframes") * CAMERAS
    note = f"{off:.0f} without, {keyframes:.0f} with; {made / seconds:.2f} pictures a second and camera"
    report.add(title, keyframes - off, "ms/s", most=MOST, note=note)


async def _turn(world: Stage, mode: str) -> tuple[float, int]:
    """Milliseconds of CPU a second of all workers, and how many small pictures they made."""
    async with world.relay(CAMERAS, renditions=mode) as relay:
        await relay.until_live()
        watching = asyncio.create_task(_watch(relay))
        try:
            await asyncio.sleep(SETTLE)
            pids, before = list((await relay.pids()).values()), await _pictures(relay)
            cost = await proc.measure(pids, MEASURED, per=1)
            pictures = await _pictures(relay) - before
        finally:
            watching.cancel()
        if watching.done() and not watching.cancelled():
            watching.result()
        return cost.cpu, pictures


async def _watch(relay: Relay) -> None:
    """Have every camera's small picture wanted: a view counts from when it is opened, and nothing here decodes it."""
    views = HttpViews(relay.stage.http, relay.url)
    ids = [camera["id"] for camera in (await relay.cameras()).values()]
    while True:
        await views.open(ids, False, dict.fromkeys(ids, "small"))
        await asyncio.sleep(ANSWER_WITHIN / 2)


async def _pictures(relay: Relay) -> int:
    return sum(camera["rendition"]["pictures"] for camera in (await relay.cameras()).values())
