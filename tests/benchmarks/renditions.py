"""What small pictures cost a worker and the original: two relays of one camera side by side, one with a rendition.

Run as a program, this is one of the two relays: `python -m tests.benchmarks.renditions MODE SECONDS`, with a stream's
URL and the SFU's in the environment; it prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import statistics
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop

from relay_common.clock import LoopClock, SystemClock
from relay_common.cloudflare import SfuClient
from relay_common.protocol import Protocol, Stage, WorkerState
from relay_common.rendition_messages import SetRendition
from relay_common.secrets import Secret
from relay_supervisor.commands.demo_world import demo_world
from relay_worker.camera.granted import GrantedStream
from relay_worker.debug import Reporter
from relay_worker.debug_sinks import DirectSignaling
from relay_worker.media.delay import DelayMeter
from relay_worker.publish.publication import PublisherSettings
from relay_worker.relay import CameraRelay, RelaySettings
from tests.benchmarks import proc
from tests.benchmarks.table import Report
from tests.fixtures.media_rig import MediaRig

SETTLE: Final = 10.0
GIVEN_BACK: Final = 36.0
"""Seconds after the last viewer when memory is looked at again."""
KEPT: Final = 2.5
"""Most megabytes that may be left of it then: tables that the codecs' libraries make once, and the thread's stack."""
BARS: Final = {"keyframes": (4.0, 8.0), "smooth": (None, 14.0)}
"""Most milliseconds of CPU a second, and megabytes, that each may take at 720p."""
RENDITION: Final = ("pictures", "width", "height", "cpu", "replaced", "failed")
Figures = dict[str, Any]


class AllDelays(DelayMeter):
    """Keeps every delay: of the whole run, where the relay's own keeps the last second's."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[float, int]] = []

    def add(self, delay: float, packets: int = 1) -> None:
        self.kept += [(delay, 1)] * packets


async def measure_renditions(report: Report, seconds: float, rounds: int) -> None:
    """Rows for both modes, each over so many paired rounds."""
    for mode, (cpu, memory) in BARS.items():
        report.progress(f"renditions, {mode}: {rounds} pairs of {seconds:.0f} s, the machine is {proc.load():.0%} busy")
        try:
            pairs = [await _pair(mode, seconds) for _ in range(rounds)]
        except Exception as error:
            report.failed(f"renditions, {mode}", error)
            continue
        _compare(report, mode, pairs, cpu, memory)


async def _pair(mode: str, seconds: float) -> tuple[Figures, Figures]:
    """One run of both at once: without and with the rendition."""
    options = ("--unlimited", "--describe-delay", "0")
    async with demo_world(1, "1280x720", options) as world, httpx.AsyncClient(timeout=15.0) as http:
        rig = MediaRig(world.endpoints, http)
        runs = [_run(world.endpoints, await rig.generate(), which, seconds) for which in ("off", mode)]
        plain, made = await asyncio.gather(*runs)
        return plain, made


async def _run(endpoints: dict[str, Any], url: Secret, mode: str, seconds: float) -> Figures:
    environment = os.environ | {
        "BENCH_STREAM_URL": url.reveal(),
        "BENCH_CA_FILE": endpoints["rtsp"].get("ca_file", ""),
        "BENCH_SFU": endpoints["cloudflare"]["api_base_url"],
        "PYTHONHASHSEED": "0",  # the two are to differ in nothing else
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, mode, str(seconds), env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the relay with {mode} ended with {process.returncode}")
    figures: Figures = json.loads(out)
    return figures


def _compare(
    report: Report, mode: str, pairs: list[tuple[Figures, Figures]], most_cpu: float | None, most_memory: float
) -> None:
    def more(name: str) -> float:
        return statistics.median(float(made[name]) - float(plain[name]) for plain, made in pairs)

    last = pairs[-1][1]["rendition"]
    note = f"{last['pictures']} pictures {last['width']}x{last['height']}; its thread {last['cpu']:.1f} ms/s"
    report.add(f"{mode}: CPU more than without", more("cpu"), "ms/s", most=most_cpu, note=note)
    report.add(f"{mode}: memory more than without", more("memory"), "MB", most=most_memory)
    report.add(f"{mode}: memory more, {GIVEN_BACK:.0f} s after the last viewer", more("memory_after"), "MB", most=KEPT)
    report.add(f"{mode}: added delay p50, more", more("p50"), "ms", most=0.2, note=f"{pairs[-1][0]['p50']:.2f} without")
    report.add(f"{mode}: added delay p99, more", more("p99"), "ms", most=2.0, note=f"{pairs[-1][0]['p99']:.2f} without")
    dropped = sum(made["dropped"] for _, made in pairs)
    report.add(f"{mode}: packets of the original dropped", float(dropped), "", most=0.0)


def _private() -> float:
    """Megabytes that are this process's alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1000


async def _relay(mode: str, seconds: float) -> Figures:
    """Relay the camera, and measure: one side of a pair."""
    clock = LoopClock()
    client = SfuClient(
        "app", Secret("secret"), clock=SystemClock(), rng=random.Random(), base_url=os.environ["BENCH_SFU"]
    )
    signaling = DirectSignaling(client)
    publisher = PublisherSettings(loopback=True)
    settings = RelaySettings(name="bench", ca_file=os.environ["BENCH_CA_FILE"], publisher=publisher)
    relay = CameraRelay(settings, signaling, Reporter(), clock)
    delays = relay.keeper.delay = AllDelays()
    relay.rendition.configure(SetRendition(mode=mode, watched=True, budget=1000.0))
    url = Secret(os.environ["BENCH_STREAM_URL"])
    relay.play(GrantedStream(1, Protocol.RTSP, url, clock.wall() + 3600))
    ticking = asyncio.create_task(_tick(relay, clock))
    async with asyncio.timeout(60):
        while relay.state is not WorkerState.LIVE:
            await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLE)
    delays.kept.clear()
    dropped = _dropped(relay, clock.now())
    before, began = resource.getrusage(resource.RUSAGE_SELF), clock.now()
    await asyncio.sleep(seconds)
    after, lasted = resource.getrusage(resource.RUSAGE_SELF), clock.now() - began
    measured, memory = sorted(delay for delay, _ in delays.kept), _private()
    stats = relay.stats(clock.now())
    rendition = {name: getattr(stats.rendition, name, 0) for name in RENDITION}
    dropped = _dropped(relay, clock.now()) - dropped
    relay.rendition.configure(SetRendition(mode=mode, watched=False, budget=1000.0))
    await asyncio.sleep(GIVEN_BACK)
    memory_after = _private()
    ticking.cancel()
    await relay.close()
    await signaling.close()
    assert stats.stage is Stage.NONE, stats.reason
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu": 1e3 * spent / lasted,
        "memory": memory,
        "memory_after": memory_after,
        "p50": 1e3 * measured[len(measured) // 2],
        "p99": 1e3 * measured[len(measured) * 99 // 100],
        "dropped": dropped,
        "rendition": rendition,
    }


def _dropped(relay: CameraRelay, now: float) -> int:
    """Packets and pictures of the original that were left out."""
    video = relay.stats(now).video
    return video.dropped + video.send_drops + video.thinned


async def _tick(relay: CameraRelay, clock: LoopClock) -> None:
    while True:
        await asyncio.sleep(1.0)
        relay.tick(clock.now())
        relay.stats(clock.now())


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_relay(sys.argv[1], float(sys.argv[2])))))
