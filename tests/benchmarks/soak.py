"""Many cameras for a long time: memory stays where it is, and not one packet is lost."""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import Final

from tests.benchmarks import proc
from tests.benchmarks.stage import Stage
from tests.benchmarks.table import Report

WARM_UP: Final = 60.0
"""Seconds until the first measurement: histories are full, and every code path has run once."""
MAX_GROWTH: Final = 0.3
"""MB that a worker may grow by: allocators and copy-on-write settle for a while."""
_LOOK: Final = 30.0


async def measure_soak(stage: Stage, report: Report, cameras: int, seconds: float) -> None:
    """Run `cameras` cameras for `seconds` after a minute of warming up."""
    async with stage.relay(cameras) as relay:
        await relay.until_live()
        await asyncio.sleep(WARM_UP)
        pids = await relay.pids()
        sizes = [fmean(map(proc.memory, pids.values())) / 1e6]
        before, looked = await relay.tracks(), await relay.cameras()
        for _ in range(round(seconds / _LOOK)):
            await asyncio.sleep(_LOOK)
            sizes.append(fmean(map(proc.memory, pids.values())) / 1e6)
            report.progress(f"  {sizes[-1]:.2f} MB a worker")
        after, found = await relay.tracks(), await relay.cameras()
        title = f"{cameras} cameras, {seconds / 60:.0f} min"
        report.add(f"growth of memory per worker, {title}", sizes[-1] - sizes[0], "MB", most=MAX_GROWTH, note="PSS")
        # On the way in (both tracks), in the relay (frames left out, packets dropped), on the way out.
        lost = sum(
            found[name][kind][counter] - looked[name][kind][counter]
            for name in relay.names
            for kind in ("video", "audio")
            for counter in ("lost_in", "dropped", "thinned")
        )
        lost += sum(after[name]["lost"] - before[name]["lost"] for name in relay.names)
        packets = sum(after[name]["packets"] - before[name]["packets"] for name in relay.names)
        report.add(f"packets and frames lost, {title}", lost, "", most=0, note=f"of {packets} packets of video")
        replaced = sum(pid != pids[name] for name, pid in (await relay.pids()).items())
        report.add(f"workers replaced, {title}", replaced, "", most=0)
