"""A source in bursts and losses on the way out, as the SFU sees them; what a browser sees is in tests/browser."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Final

from tests.benchmarks.cost import record, sent_by
from tests.benchmarks.delay import match
from tests.benchmarks.stage import Stage
from tests.benchmarks.table import Report

MAX_JITTER: Final = 30.0
MAX_GROWTH: Final = 50.0
MIN_REPAIRED: Final = 99.0
_CLOCK: Final = 90_000


async def measure_bursts(stage: Stage, report: Report, seconds: float) -> None:
    """A camera that delivers everything in clumps of 500 ms."""
    async with stage.relay(1) as relay:
        await relay.until_live()
        await asyncio.sleep(2.0)
        (name,) = relay.names
        fault = {"kind": "burst", "period": 0.5, "seconds": seconds + 30}
        await stage.nest(f"cameras/{name}/fault", fault)
        try:
            await asyncio.sleep(5.0)
            await record(stage, relay.names)
            await asyncio.sleep(seconds)
            await stage.sfu("record", {"stop": True})
            tracks = await relay.tracks()
        finally:
            await stage.nest(f"cameras/{name}/clear", {})
        arrivals = [e for e in (await stage.sfu("record"))["arrivals"] if e[1] == tracks[name]["ssrc"]]
        sent = [entry for entry in await sent_by(stage, name) if entry[1] == "video"]
        delays = match(sent, arrivals).seconds
        third = len(delays) // 3
        growth = median(delays[-third:]) - median(delays[:third])
        report.add("500 ms bursts: jitter at the SFU", _jitter(arrivals) * 1000, "ms", most=MAX_JITTER)
        report.add(
            "500 ms bursts: delay from the camera", median(delays) * 1000, "ms", note="half of a burst is 250 ms"
        )
        report.add("500 ms bursts: growth of delay", growth * 1000, "ms", most=MAX_GROWTH, note=f"over {seconds:.0f} s")


async def measure_loss(stage: Stage, report: Report, seconds: float) -> None:
    """Random loss and delay between relay and SFU: what NACK and RTX repair."""
    for share, delay in ((0.02, 0.02), (0.05, 0.04)):
        async with stage.relay(1) as relay:
            await relay.until_live()
            (name,) = relay.names
            await stage.sfu("faults", {"upstream_loss": share, "delay": delay})
            try:
                await asyncio.sleep(seconds)
            finally:
                await stage.sfu("faults", {"clear": True})
            await asyncio.sleep(2.0)
            track = (await relay.tracks())[name]
            dropped = track["lost_before_repair"]
            repaired = 100.0 * (1 - track["lost"] / dropped) if dropped else 0.0
            what = f"{share:.0%} loss, {delay * 1000:.0f} ms: losses repaired"
            bar = MIN_REPAIRED if share == 0.02 else None
            report.add(what, repaired, "%", least=bar, note=f"{track['lost']} of {dropped} lost for good")


def _jitter(arrivals: list[list[float]]) -> float:
    """Interarrival jitter of the frames in seconds (RFC 3550 A.8), its largest value."""
    jitter = worst = 0.0
    before: list[float] | None = None
    for entry in arrivals:
        if before is not None and entry[3] == before[3]:
            continue
        if before is not None:
            media = ((int(entry[3]) - int(before[3]) + 0x80000000) % 0x100000000 - 0x80000000) / _CLOCK
            jitter += (abs(entry[0] - before[0] - media) - jitter) / 16
            worst = max(worst, jitter)
        before = entry
    return worst
