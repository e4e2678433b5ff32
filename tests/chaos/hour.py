"""An hour of twenty cameras under every fault there is, in random order: `make hour`.

The rows of the matrix, and those of `hour_rows.py`, are inflicted one after the other on a relay in a process of its
own, under Google's real limits and streams of five minutes. It has to end with all cameras live, no limit exceeded, the
supervisor's memory flat and little log. Exit code 1: a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.benchmarks import proc
from tests.benchmarks.table import Report, render
from tests.chaos.hosted import Hosted, HostError, hosted
from tests.chaos.hour_account import SETTLE, Account, Told, judge, table
from tests.chaos.hour_rows import WHOLE_ROWS, WholeRow
from tests.chaos.inflict import command_failed
from tests.chaos.rows import ROWS, WHOLE, Row
from tests.chaos.world import COLLECT_AFTER, Sight
from tests.fixtures.running_relay import SMALL

BITRATE: Final = 250_000
SHORT_LEASE: Final = 60.0
"""Lifetime in seconds of the streams of a camera whose row needs extensions."""
LEASE: Final = 300.0
_QUIET: Final = 150.0
"""Seconds at the end in which no row begins."""
_BUDGET: Final = 120.0
"""Seconds granted to a row beyond its limit in the matrix: for Google's budget, which is unlimited there."""
_START: Final = 600.0
_SOON: Final = 60.0
"""Seconds from the end of a stream at which its extension is near enough to be waited for."""
_LOOK: Final = 1.0
_SAMPLE: Final = 5.0


@dataclass
class Hour:
    """The run."""

    relay: Hosted
    account: Account
    rng: random.Random
    report: Report

    async def observe(self) -> None:
        """Look once a second, and sample, until cancelled."""
        sampled = 0.0
        while True:
            with contextlib.suppress(HostError, httpx.HTTPError):
                await self.relay.look()
            if time.monotonic() - sampled > _SAMPLE:
                sampled = time.monotonic()
                self.account.sample(self.relay)
            await asyncio.sleep(_LOOK)

    async def until_live(self, within: float) -> bool:
        """Wait until all cameras are healthy and commands can be sent, by an observation made after this call."""
        began = time.monotonic()
        while time.monotonic() < began + within:
            await asyncio.sleep(_LOOK / 4)
            seen = self.relay.sights.values()
            fresh = seen and all(one.at > began for one in seen) and not self.relay.unauthorized
            if fresh and all(one.healthy for one in seen):
                return True
        return False

    async def drive(self, rows: list[Row | WholeRow], end: float) -> None:
        """Inflict `rows`, evenly spread over the time until `end` on the monotonic clock, or longer."""
        began = time.monotonic()
        pause = max(0.0, end - began) / max(1, len(rows))
        for index, row in enumerate(rows):
            await asyncio.sleep(max(0.0, began + index * pause - time.monotonic()))
            told = await (self.whole(row) if isinstance(row, WholeRow) else self.single(row))
            self.account.rows.append(told)
            self.progress(f"{index + 1}/{len(rows)} {told.row} ({told.camera}): {told.seconds:.1f} s {told.problem}")

    async def whole(self, row: WholeRow) -> Told:
        """Something happens to the whole relay."""
        await self.until_live(120.0)
        before = self.relay.generates()
        problem = ""
        try:
            await row.befall(self.relay)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        began = time.monotonic()
        if not await self.until_live(row.within):
            problem += f" {self.ill()}"
        spent = self.relay.generates() - before
        return Told(row.name, "all", time.monotonic() - began, spent.total(), {}, problem.strip())

    async def single(self, row: Row) -> Told:
        """A row of the matrix is inflicted on a camera."""
        await self.until_live(120.0)
        camera = await self.choose(row)
        if camera is None:
            return Told(row.name, "none", 0.0, 0, {}, f"no camera was well: {self.ill()}")
        before, spent, began = dict(self.relay.sights), self.relay.generates(), time.monotonic()
        try:
            # Extensions of a stream of five minutes would have to be waited for.
            if row in WHOLE or (of_extend(row) and before[camera].status.lease.expires_in > _SOON):
                await self.renew(camera, SHORT_LEASE)
                before, spent, began = dict(self.relay.sights), self.relay.generates(), time.monotonic()
            problem = await self.watch(row, camera, before[camera], began)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        await self.relay.nest(f"cameras/{camera}/clear", {})
        await self.relay.nest(f"cameras/{camera}/fail_commands", {"status": 503, "count": 0})
        await self.relay.nest(f"cameras/{camera}/device", {"lease": 0.0})
        with contextlib.suppress(HostError):
            await self.relay.ask("clock", offset=0.0)
        generates = (self.relay.generates() - spent).total()
        return Told(row.name, camera, seconds, generates, harm(before, self.relay.sights, camera), problem)

    async def choose(self, row: Row) -> str | None:
        """A camera that is well and can have this fault; for a refused extension the one that is extended next.

        One whose extensions were refused before may have another stream generated instead, for a while.
        """
        for _ in range(60):
            of_rtsp = row.name.startswith(("SDM", "RTSP")) or row in WHOLE
            fit = [
                name
                for name, sight in self.relay.sights.items()
                if sight.healthy and sight.status.source_sessions and sight.status.lease.state == "held"
                if not of_rtsp or sight.status.lease.protocol == "RTSP"
                if not of_extend(row) or sight.status.lease.next_step == "extend"
            ]
            if fit and of_extend(row):
                return min(fit, key=lambda name: self.relay.sights[name].status.lease.expires_in)
            if fit:
                return self.rng.choice(fit)
            await asyncio.sleep(_LOOK)
        return None

    async def renew(self, camera: str, lease: float) -> None:
        """Give a camera a new stream that lives for `lease` seconds."""
        generates = self.relay.sights[camera].generates
        await self.relay.nest(f"cameras/{camera}/device", {"lease": lease})
        await self.relay.nest(f"cameras/{camera}/expire", {})
        for _ in range(120):
            await asyncio.sleep(_LOOK)
            if (now := self.relay.sights[camera]).healthy and now.generates > generates:
                return
        raise TimeoutError(f"{camera} has no new stream")

    async def watch(self, row: Row, camera: str, before: Sight, began: float) -> str:
        """Inflict a row and return when its camera is well again: the empty text, or what was not well in time."""
        state, words = row.degraded
        patience = row.within + _BUDGET
        if row.bites is command_failed:
            patience += LEASE
        inflicting = asyncio.create_task(self.relay.ask("inflict", patience, row=row.name, camera=camera))
        if row.cold:
            await inflicting
            await self.relay.nest(f"cameras/{camera}/expire", {})
        bitten, told, relieved = False, not state, False
        now = before
        while time.monotonic() < began + patience:
            await asyncio.sleep(_LOOK / 4)
            if inflicting.done():
                inflicting.result()
            if camera not in self.relay.sights or self.relay.sights[camera] is now:
                continue
            now = self.relay.sights[camera]
            reasons = " ".join((now.status.reason, now.status.lease.last_error, *self.relay.reasons))
            bitten = bitten or row.bites(before, now)
            told = told or (now.status.state == state and words in reasons)
            if told and row.relieve is not None and not relieved:
                relieved = True
                await self.relay.ask("relieve", 60.0, row=row.name, camera=camera)
            over = inflicting.done() and (not state or words not in reasons) and row.over(before, now)
            if bitten and told and over and now.healthy and now.at > began:
                return ""
        inflicting.cancel()
        return f"bitten {bitten}, reason told {told}, {now.status.state} {now.status.reason} {now.commands[-4:]}"

    def ill(self) -> str:
        """The cameras that are not well, in words."""
        found = [f"{n}: {s.status.state} {s.status.reason}" for n, s in self.relay.sights.items() if not s.healthy]
        return f"{len(found)} not well: {'; '.join(found[:3])}"

    def progress(self, text: str) -> None:
        """One line for who watches."""
        account, relay = self.account, self.relay
        size = f"{account.memory[-1].resident:.1f} MB" if account.memory else "-"
        log = account.log[-1][1] if account.log else 0
        google = f"{relay.generates().total()} Generates, peak {relay.google['most_in_any_minute']} a minute"
        refused = f"refused {relay.google['refused'] or 'none'}"
        self.report.progress(f"{text}; {relay.live} live, {size}, log {log / 1000:.1f} kB, {google}, {refused}")


def of_extend(row: Row) -> bool:
    """Whether a row is met at the next extension."""
    return row.bites is command_failed and not row.cold


def harm(before: dict[str, Sight], now: dict[str, Sight], camera: str) -> dict[str, int]:
    """What happened to all cameras but `camera` between two observations."""
    found: Counter[str] = Counter()
    for name in before.keys() & now.keys() - {camera}:
        was, is_ = before[name], now[name]
        found["worker restarts"] += is_.status.worker.restarts - was.status.worker.restarts
        found["publications"] += was.session != is_.session
        found["packets lost"] += is_.lost - was.lost if was.session == is_.session else 0
        found["Generates"] += is_.generates - was.generates
    return {name: count for name, count in found.items() if count}


@contextlib.asynccontextmanager
async def stage(options: argparse.Namespace) -> AsyncIterator[Hosted]:
    """The world of the hour; nothing of the relay runs yet."""
    simulated = (*SMALL, "--bitrate", str(BITRATE), "--webrtc", str(options.webrtc), "--seed", str(options.seed))
    slow = ("--collect-after", str(COLLECT_AFTER))
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.unlink(missing_ok=True)
    async with hosted(options.cameras, options.log, "640x360", simulated, slow) as relay:
        yield relay


async def run(options: argparse.Namespace, report: Report) -> Account:
    """All of it; the bars are added to `report`."""
    rng = random.Random(options.seed)
    wanted = re.compile(options.only)
    every: tuple[Row | WholeRow, ...] = (*ROWS, *WHOLE_ROWS)
    rows = [row for row in every if wanted.search(row.name)]
    rng.shuffle(rows)
    rows = rows[options.skip :]
    report.progress(f"seed {options.seed}, {len(rows)} rows; the machine is {proc.load():.0%} busy without us")
    async with stage(options) as relay:
        account = Account()
        await relay.start()
        hour = Hour(relay, account, rng, report)
        observing = asyncio.create_task(hour.observe())
        try:
            if not await hour.until_live(_START):
                raise TimeoutError(f"after {_START:.0f} s not all cameras are live: {hour.ill()}")
            hour.progress("all cameras are live")
            account.settled = time.monotonic() + min(SETTLE, options.seconds / 10)
            end = account.began + options.seconds
            await hour.drive(rows, end - min(_QUIET, options.seconds / 4))
            end = max(end, time.monotonic() + min(_QUIET, options.seconds / 4))
            while (left := end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 60.0))
                hour.progress("quiet")
            await hour.until_live(30.0)
            hour.progress("the end")
            judge(account, relay, report)
        finally:
            observing.cancel()
            await asyncio.gather(observing, return_exceptions=True)
    return account


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hour", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="length at least, the start included")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the rows and the choice of cameras")
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--webrtc", type=int, default=8, help="how many of them speak WebRTC")
    parser.add_argument("--only", default="", help="only rows whose name matches this regular expression")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first rows of the order: to continue a run")
    parser.add_argument("--log", type=Path, default=Path("hour/relay.log"), help="the relay's log")
    parser.add_argument("--json", type=Path, default=Path("hour/hour.json"), help="where the bars are written")
    return parser.parse_args()


def main() -> None:
    """Run, print, write."""
    options, report = arguments(), Report()
    account = asyncio.run(run(options, report))
    report.write(options.json)
    samples = options.json.with_suffix(".memory.json")
    samples.write_text(json.dumps([(one.at - account.began, one.pid, one.resident, one.own) for one in account.memory]))
    print(f"{table(account.rows)}\n\n{render(report.rows)}")
    sys.exit(any(row.met is False for row in report.rows))


if __name__ == "__main__":
    main()
