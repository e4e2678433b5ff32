"""kill -9: of a worker, and of the supervisor."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.cost import record, sent_by
from tests.benchmarks.stage import BenchError, Relay, Stage
from tests.benchmarks.table import Report

MAX_BACK: Final = 3.0
MAX_FIRST_RTP: Final = 0.5
MAX_ADOPTION: Final = 5.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


async def measure_kills(stage: Stage, report: Report, cameras: int, kills: int = 3) -> None:
    """`kills` workers, one after the other, then the supervisor; the worst of each figure counts."""
    async with stage.relay(cameras) as relay:
        await relay.until_live()
        await asyncio.sleep(2.0)
        generates = await _generates(stage)
        results = [await _kill_worker(stage, relay, relay.names[index % cameras]) for index in range(kills)]
        spent = await _generates(stage) - generates
        note = f"worst of {kills}"
        report.add("kill -9 of a worker: its camera back", max(r["back"] for r in results), "s", most=MAX_BACK)
        first = max(r["first_rtp"] for r in results)
        report.add("first IDR in to first RTP out, new worker", first, "s", most=MAX_FIRST_RTP, note=note)
        report.add("worker's start to first RTP out", max(r["start"] for r in results), "s", note=note)
        report.add("kill -9 of a worker: RTP lost by others", sum(r["lost"] for r in results), "", most=0)
        report.add("kill -9 of a worker: Generate commands", spent, "", most=0)
        await _kill_supervisor(stage, relay, report)


async def _kill_worker(stage: Stage, relay: Relay, name: str) -> dict[str, float]:
    await record(stage, relay.names)
    before, old = await relay.tracks(), (await relay.pids())[name]
    killed = time.monotonic()
    os.kill(old, signal.SIGKILL)
    await relay.until(lambda cameras: cameras[name]["worker"]["pid"] not in (0, old), 15.0, "a new worker")
    started = _started((await relay.pids())[name])
    await relay.until_live(20.0)
    await asyncio.sleep(1.0)
    await stage.sfu("record", {"stop": True})
    after = await relay.tracks()
    ssrc = after[name]["ssrc"]
    if ssrc == before[name]["ssrc"]:
        raise BenchError(f"{name} has no new publication after its worker was killed")
    out = next(e[0] for e in (await stage.sfu("record"))["arrivals"] if e[1] == ssrc)
    sent = [entry for entry in await sent_by(stage, name) if entry[1] == "video"]
    # A camera begins every session with an IDR: the first packet with the last session's SSRC.
    first_in = next(entry[0] for entry in sent if entry[2] == sent[-1][2])
    others = [other for other in relay.names if other != name]
    return {
        "back": out - killed,
        "start": out - started,
        "first_rtp": out - first_in,
        "lost": sum(after[other]["lost"] - before[other]["lost"] for other in others),
    }


async def _kill_supervisor(stage: Stage, relay: Relay, report: Report, away: float = 3.0) -> None:
    before, pids = await relay.tracks(), await relay.pids()
    await stage.sfu("record", {"limit": 200_000})
    relay.kill()
    await asyncio.sleep(away)
    await relay.start()

    def adopted(cameras: dict[str, Any]) -> bool:
        return all(c["state"] == "live" and c["worker"]["pid"] == pids[name] for name, c in cameras.items())

    done = await relay.until(adopted, 60.0, "all workers adopted")
    await asyncio.sleep(1.0)
    await stage.sfu("record", {"stop": True})
    arrivals = (await stage.sfu("record"))["arrivals"]
    after = await relay.tracks()
    if any(after[name]["ssrc"] != before[name]["ssrc"] for name in relay.names):
        raise BenchError("a camera was published anew when the supervisor was killed")
    note = f"dead for {away:.0f} s, {len(relay.names)} cameras"
    lost = sum(after[name]["lost"] - before[name]["lost"] for name in relay.names)
    report.add("kill -9 of the supervisor: RTP lost", lost, "", most=0, note=note)
    longest = max(_longest_gap(arrivals, after[name]["ssrc"]) for name in relay.names)
    report.add("kill -9 of the supervisor: longest gap in video", longest * 1000, "ms")
    report.add("kill -9 of the supervisor: all re-adopted", done - relay.spawned, "s", most=MAX_ADOPTION)


def _longest_gap(arrivals: list[list[float]], ssrc: int) -> float:
    times = [entry[0] for entry in arrivals if entry[1] == ssrc]
    return max(b - a for a, b in itertools.pairwise(times))


async def _generates(stage: Stage) -> int:
    return sum(camera["generates"] for camera in (await stage.nest("cameras"))["cameras"])


def _started(pid: int) -> float:
    """When a process was forked, on the monotonic clock (to a hundredth of a second)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    boot = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return int(fields[19]) / _TICK - boot
