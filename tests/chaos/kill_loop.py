"""Supervisor and workers, killed at random for five minutes: `make kills`.

No camera may ever have two workers, no stream may be left behind at Google, and only the death of a worker that
receives WebRTC, whose stream dies with it, may cost a Generate. Exit code 1: a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.table import Report, render
from tests.chaos.hosted import Hosted, HostError, hosted
from tests.chaos.hour_account import limits_exceeded
from tests.fixtures.running_relay import SMALL

_LOOK: Final = 0.2
_SUPERVISOR: Final = 0.15
"""The share of kills that hit the supervisor."""
_PAUSE: Final = (0.5, 5.0)
_AWAY: Final = (0.1, 4.0)
_SETTLE: Final = 180.0


@dataclass
class Kills:
    """The loop, and what it counts."""

    relay: Hosted
    rng: random.Random
    report: Report
    killed: Counter[str] = field(default_factory=Counter)
    """Kills by what was hit: "supervisor", or the protocol of the worker's camera."""
    protocols: dict[str, str] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    """Cameras that had two workers, each with how and when."""

    async def watch(self) -> None:
        """Look for cameras with two workers, until cancelled."""
        began = time.monotonic()
        while True:
            workers = self.relay.processes()
            for name, count in Counter(workers.values()).items():
                if count > 1:
                    pids = sorted(pid for pid, camera in workers.items() if camera == name)
                    self.doubled.append(f"{name} {pids} after {time.monotonic() - began:.1f} s")
            await asyncio.sleep(_LOOK)

    async def kill_one(self) -> None:
        """Kill the supervisor, and start another, or a worker."""
        if self.rng.random() < _SUPERVISOR:
            await self.relay.kill()
            self.killed["supervisor"] += 1
            # Its workers may be killed while it is away, too.
            await asyncio.sleep(self.rng.uniform(*_AWAY))
            if self.rng.random() < 0.3:
                self.kill_worker()
            await self.relay.start()
        else:
            self.kill_worker()

    def kill_worker(self) -> None:
        """Kill any worker there is."""
        workers = self.relay.processes()
        if not workers:
            return
        pid = self.rng.choice(sorted(workers))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[self.protocols[workers[pid]]] += 1

    async def settled(self) -> bool:
        """Wait until all cameras are live and Google holds one stream for each."""
        end = time.monotonic() + _SETTLE
        while time.monotonic() < end:
            with contextlib.suppress(HostError):
                await self.relay.look()
                held = await self.streams()
                if self.relay.live == len(self.protocols or held) and set(held.values()) == {1}:
                    return True
            await asyncio.sleep(1.0)
        return False

    async def streams(self) -> dict[str, int]:
        """How many streams Google holds for each camera."""
        return {one["display_name"]: len(one["streams"]) for one in (await self.relay.nest("cameras"))["cameras"]}


async def run(options: argparse.Namespace, report: Report) -> None:
    """All of it."""
    simulated = (*SMALL, "--bitrate", "250000", "--webrtc", str(options.webrtc), "--seed", str(options.seed))
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.unlink(missing_ok=True)
    async with hosted(options.cameras, options.log, "640x360", simulated, ()) as relay:
        await relay.start()
        kills = Kills(relay, random.Random(options.seed), report)
        if not await kills.settled():
            raise TimeoutError("not all cameras are live at the start")
        kills.protocols = {name: sight.status.lease.protocol for name, sight in relay.sights.items()}
        before = relay.generates()
        watching = asyncio.create_task(kills.watch())
        began = time.monotonic()
        while (passed := time.monotonic() - began) < options.seconds:
            await kills.kill_one()
            await asyncio.sleep(kills.rng.uniform(*_PAUSE))
            if int(passed / 30) != int((time.monotonic() - began) / 30):
                report.progress(f"killed {dict(kills.killed)}, doubled {len(kills.doubled)}")
        settled = await kills.settled()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await judge(kills, settled, before)


async def judge(kills: Kills, settled: bool, before: Counter[str]) -> None:
    """Add the bars to the report."""
    relay, report, webrtc = kills.relay, kills.report, kills.killed["WEB_RTC"]
    killed = ", ".join(f"{count} {what}" for what, count in sorted(kills.killed.items()))
    report.add("kills", kills.killed.total(), "", note=killed)
    report.add("all live again, one stream each", float(settled), "", least=1)
    report.add("sightings of a doubled worker", len(kills.doubled), "", most=0, note="; ".join(kills.doubled[:3]))
    workers = Counter(relay.processes().values())
    report.add("workers at the end", workers.total(), "", most=len(relay.sights))
    held = await kills.streams()
    leaked = {name: count for name, count in held.items() if count != 1}
    report.add("cameras without exactly one stream at Google", len(leaked), "", most=0, note=str(leaked or ""))
    spent = relay.generates() - before
    rtsp = sum(count for name, count in spent.items() if kills.protocols[name] == "RTSP")
    report.add("Generates", spent.total(), "", most=webrtc, note=f"at most one for each WebRTC worker killed: {webrtc}")
    report.add("Generates of RTSP cameras", rtsp, "", most=0)
    refused = relay.google["refused"]
    report.add("calls over Google's limits", sum(refused.values()), "", most=0, note=str(refused or ""))
    exceeded = limits_exceeded(relay.google)
    report.add("limits on commands exceeded", len(exceeded), "", most=0, note="; ".join(exceeded))


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kill_loop", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--webrtc", type=int, default=3, help="how many of them speak WebRTC")
    parser.add_argument("--log", type=Path, default=Path("hour/kills.log"), help="the relay's log")
    options, report = parser.parse_args(), Report()
    asyncio.run(run(options, report))
    print(render(report.rows))
    sys.exit(any(row.met is False for row in report.rows))


if __name__ == "__main__":
    main()
