"""What relaying costs and adds, at several numbers of cameras."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tests.benchmarks import proc
from tests.benchmarks.delay import LONGEST, Delays, match
from tests.benchmarks.stage import Relay, Stage
from tests.benchmarks.table import Report

SETTLE: Final = 5.0
"""Seconds between the last camera's coming live and the first look."""
_ARRIVALS: Final = 500_000

DRIBBLE: Final = ", a packet at a time"
"""In the names of rows about cameras that write so."""

MAX_WAKES: Final = 60.0
MAX_MEMORY: Final = 15.0
MAX_DELAY: Final = (2.0, 10.0)
"""p50 and p99 in ms."""


def cpu_row(cameras: int, *, audio: bool = True, dribble: bool = False) -> str:
    """The name of the relay's CPU row."""
    return f"CPU per camera, {cameras} cameras" + ("" if audio else ", video only") + (DRIBBLE if dribble else "")


async def measure_cost(stage: Stage, report: Report, cameras: int, seconds: float, delay_seconds: float) -> None:
    """CPU, wakes, memory, loss and added delay with `cameras` cameras."""
    async with stage.relay(cameras) as relay:
        await relay.until_live()
        await asyncio.sleep(SETTLE)
        before = await relay.tracks()
        pids = list((await relay.pids()).values())
        assert relay.process is not None
        supervisor = asyncio.create_task(proc.measure([relay.process.pid], seconds))
        cost = await proc.measure(pids, seconds)
        host = await supervisor
        report.add(cpu_row(cameras), cost.cpu, "ms/s")
        report.add(f"wakes per camera, {cameras} cameras", cost.wakes, "1/s", most=MAX_WAKES)
        bar = MAX_MEMORY if cameras >= 10 else None
        report.add(f"memory per worker, {cameras} cameras", cost.memory, "MB", most=bar, note="PSS")
        if cameras >= 10:
            report.add(f"supervisor's CPU, {cameras} cameras", host.cpu, "ms/s")
        delays, packets = await added_delay(stage, relay, delay_seconds)
        for share, most in zip((0.5, 0.99), MAX_DELAY, strict=True):
            value = delays.quantile(share) * 1000
            unmatched = f", {delays.unmatched} not matched" if delays.unmatched else ""
            note = f"{packets} packets{unmatched}"
            report.add(f"added delay p{share * 100:.0f}, {cameras} cameras", value, "ms", most=most, note=note)
        after = await relay.tracks()
        lost = sum(after[name]["lost"] - before[name]["lost"] for name in relay.names)
        lost += sum(camera["video"]["lost_in"] for camera in (await relay.cameras()).values())
        report.add(f"RTP packets lost, {cameras} cameras", lost, "", most=0)
        report.add(f"sound packets lost, {cameras} cameras", await _sound_lost(relay), "", most=0)
        undecrypted = await _undecrypted(stage)
        wrong = delays.altered + delays.unmatched + undecrypted
        note = f"of {packets}: {delays.altered} with another payload, {delays.unmatched} without a partner"
        note += f"; {undecrypted} could not be decrypted"
        report.add(f"packets that are not the camera's, {cameras} cameras", wrong, "", most=0, note=note)


async def _sound_lost(relay: Relay) -> int:
    """Since publication: sound is encoded anew, so only its sequence numbers can be compared."""
    return sum(track["lost"] for track in (await relay.tracks("audio")).values())


async def _undecrypted(stage: Stage) -> int:
    """Packets of connected sessions that were no SRTP or SRTCP of theirs."""
    sessions = (await stage.sfu("sessions"))["sessions"]
    return sum(session["unauthenticated"] + session["malformed"] for session in sessions)


async def measure_cpu(
    stage: Stage, report: Report, cameras: int, seconds: float, *, audio: bool, dribble: bool = False
) -> None:
    """CPU alone; with `dribble` the cameras of this stage write one packet at a time."""
    async with stage.relay(cameras, audio=audio) as relay:
        await relay.until_live()
        await asyncio.sleep(SETTLE)
        cost = await proc.measure(list((await relay.pids()).values()), seconds)
        report.add(cpu_row(cameras, audio=audio, dribble=dribble), cost.cpu, "ms/s")


async def added_delay(stage: Stage, relay: Relay, seconds: float) -> tuple[Delays, int]:
    """The delay of every video packet of all cameras over `seconds`, and how many were written."""
    await record(stage, relay.names)
    await asyncio.sleep(seconds)
    for name in relay.names:
        await stage.nest(f"cameras/{name}/record", {"stop": True})
    wrote = {name: [entry for entry in await sent_by(stage, name) if entry[1] == "video"] for name in relay.names}
    arrivals = await _until_arrived(stage, {sent[-1][7] for sent in wrote.values() if sent})
    await stage.sfu("record", {"stop": True})
    tracks = await relay.tracks()
    total, packets = Delays(), 0
    for name, sent in wrote.items():
        arrived = [entry for entry in arrivals if entry[1] == tracks[name]["ssrc"]]
        found = match(sent, arrived)
        packets += len(sent)
        total.seconds += found.seconds
        total.altered += found.altered
        # The last few frames are on their way, and too few for a match.
        total.unmatched += max(0, found.unmatched - 40)
    return total, packets


async def _until_arrived(stage: Stage, last: set[int], within: float = LONGEST) -> list[list[Any]]:
    """What the SFU has recorded when the packets with these CRCs have arrived, or after `within` seconds."""
    arrivals: list[list[Any]] = []
    for _ in range(int(within / 0.5)):
        await asyncio.sleep(0.5)
        arrivals = (await stage.sfu("record"))["arrivals"]
        if last <= {entry[6] for entry in arrivals}:
            break
    return arrivals


async def record(stage: Stage, names: list[str]) -> None:
    """Log what these cameras write and what the SFU receives, from now on."""
    await stage.sfu("record", {"limit": _ARRIVALS})
    for name in names:
        await stage.nest(f"cameras/{name}/record", {})


async def sent_by(stage: Stage, name: str) -> list[list[Any]]:
    """What a camera has written since `record`."""
    return list((await stage.nest(f"cameras/{name}/sent"))["sent"])
