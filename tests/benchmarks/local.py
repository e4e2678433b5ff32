"""Viewers that a worker answers itself: what one costs, how much it adds, and how soon it sees something.

Beside it the same camera published to the SFU, and go2rtc with a viewer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import aioice.ice
import httpx

from tests.benchmarks import proc
from tests.benchmarks.cost import SETTLE, record, sent_by
from tests.benchmarks.delay import match
from tests.benchmarks.peers import go2rtc_server
from tests.benchmarks.stage import BITRATE, Relay, Stage, stage
from tests.benchmarks.table import Report
from tests.fixtures.whep_player import WhepPlayer

JOINS: Final = 8
MORE_DELAY: Final = 0.1
"""ms that p50 may be above that towards the SFU."""
_START: Final = 60.0
_FULL: Final = 7_200_000
"""Bit/s with which two seconds of pictures nearly fill what may be held."""
_LOOKS: Final = 30


class _Viewer:
    """`local_viewer.py` at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), _START)).decode().strip()

    async def ready(self) -> None:
        if await self._line() != "ready":
            raise RuntimeError("the viewer did not connect; its messages stand above")

    async def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()

    async def arrivals(self) -> list[Any]:
        await self.tell("stop")
        found: list[Any] = json.loads(await self._line())
        return found


@contextlib.asynccontextmanager
async def _watching(relay: Relay) -> AsyncIterator[_Viewer]:
    (camera,) = (await relay.cameras()).values()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.local_viewer", f"{relay.url}/whep/{camera['id']}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
        start_new_session=True,
    )
    viewer = _Viewer(process)
    try:
        await viewer.ready()
        yield viewer
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def measure_local(stage: Stage, report: Report, seconds: float, delay_seconds: float) -> None:
    """CPU and memory of a worker with one local viewer and no SFU beside one that publishes; added delay of both."""
    async with stage.relay(1) as relay:
        await relay.until_live()
        await asyncio.sleep(SETTLE)
        published = await proc.measure(list((await relay.pids()).values()), seconds)
    report.add("CPU, published to the SFU", published.cpu, "ms/s")
    async with stage.relay(1, local=True, sfu=False) as relay:
        await relay.until_live()
        async with _watching(relay):
            await asyncio.sleep(SETTLE)
            watched = await proc.measure(list((await relay.pids()).values()), seconds)
    report.add("CPU, one local viewer and no SFU", watched.cpu, "ms/s", most=published.cpu)
    report.add("memory, published to the SFU", published.memory, "MB", note="PSS")
    report.add("memory, one local viewer and no SFU", watched.memory, "MB", note="PSS")
    async with stage.relay(1, local=True) as relay:
        await relay.until_live()
        async with _watching(relay) as viewer:
            await asyncio.sleep(SETTLE)
            await record(stage, relay.names)
            await viewer.tell("record")
            await asyncio.sleep(delay_seconds)
            (name,) = relay.names
            await stage.nest(f"cameras/{name}/record", {"stop": True})
            await asyncio.sleep(0.5)
            await stage.sfu("record", {"stop": True})
            at_viewer = await viewer.arrivals()
            ssrc = (await relay.tracks())[name]["ssrc"]
            at_sfu = [entry for entry in (await stage.sfu("record"))["arrivals"] if entry[1] == ssrc]
            sent = [entry for entry in await sent_by(stage, name) if entry[1] == "video"]
    for share in (0.5, 0.99):
        to_sfu = match(sent, at_sfu).quantile(share) * 1000
        here = match(sent, at_viewer)
        report.add(f"added delay to the SFU, p{share * 100:.0f}", to_sfu, "ms", note=f"{len(sent)} packets")
        most = to_sfu + MORE_DELAY if share == 0.5 else None
        unmatched = f"{here.unmatched} not matched" if here.unmatched > 40 else ""
        report.add(
            f"added delay to a local viewer, p{share * 100:.0f}",
            here.quantile(share) * 1000,
            "ms",
            most=most,
            note=unmatched,
        )


async def measure_held(report: Report) -> None:
    """Memory of a worker that publishes, and what `[local]` adds: idle, and with four viewers.

    So with a camera of 2.2 Mbit/s, and with one whose group of pictures is as large as may be held.
    """
    for words, bitrate in (("2.2 Mbit/s", BITRATE), ("a full group", _FULL)):
        async with stage(1, bitrate=bitrate) as world:
            for name, local, viewers in (("off", False, 0), ("on, nobody watches", True, 0), ("on", True, 4)):
                async with world.relay(1, local=local) as relay, contextlib.AsyncExitStack() as watching:
                    await relay.until_live()
                    for _ in range(viewers):
                        await watching.enter_async_context(_watching(relay))
                    most, held = 0, 0
                    for _ in range(_LOOKS):
                        await asyncio.sleep(0.5)
                        most = max(most, *map(proc.memory, (await relay.pids()).values()))
                        (camera,) = (await relay.cameras()).values()
                        held = max(held, camera["local"]["held_bytes"])
                four = ", four viewers" if viewers else ""
                note = f"PSS; held at most {held / 1e6:.2f} MB"
                report.add(f"memory, {words}, [local] {name}{four}", most / 1e6, "MB", note=note)


async def _join(http: httpx.AsyncClient, url: str) -> float:
    """Seconds from the offer to the first picture that a stock aiortc peer decodes."""
    player = WhepPlayer(http, url)
    try:
        asked = time.monotonic()
        reply = await player.ask()
        reply.raise_for_status()
        async with asyncio.timeout(_START):
            while not player.pictures:
                await asyncio.sleep(0.002)
        return time.monotonic() - asked
    finally:
        await player.aclose()


async def _joins(http: httpx.AsyncClient, url: str) -> list[float]:
    """Joins at other places of the group of pictures each time; one viewer stays meanwhile, so that media flow."""
    staying = WhepPlayer(http, url)
    try:
        (await staying.ask()).raise_for_status()
        await staying.watches_picture()
        took = []
        for number in range(JOINS):
            await asyncio.sleep(1.0 + 0.37 * number % 1.0)
            took.append(await _join(http, url))
        return took
    finally:
        await staying.aclose()


async def measure_joins(stage: Stage, report: Report) -> None:
    """From the offer to the first picture, at the relay and at go2rtc."""
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]  # it leaves loopback out
    (url,) = await stage.streams(1)
    async with go2rtc_server(stage, [url]) as (_, (address,)):
        theirs = await _joins(stage.http, address)
    async with stage.relay(1, local=True, sfu=False) as relay:
        await relay.until_live()
        (camera,) = (await relay.cameras()).values()
        ours = await _joins(stage.http, f"{relay.url}/whep/{camera['id']}")
    for name, took, most in (("go2rtc", theirs, None), ("the relay", ours, 1000 * statistics.median(theirs))):
        note = f"of {JOINS}; the longest {1000 * max(took):.0f} ms"
        report.add(f"joining to first picture, {name}", 1000 * statistics.median(took), "ms", most=most, note=note)
