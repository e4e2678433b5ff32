"""A relay with many cameras on one controlled clock, and an observer who sees it from outside: at Google, at the SFU.

The rows of `rows.py` are inflicted on it. One camera, the witness, never gets a fault: whatever it loses was caused by
a fault of another camera.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from relay_common.clock import SystemClock
from relay_common.simulation.world import CAMERA_NAMES
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.status.model import CameraStatus
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay

WITNESS = CAMERA_NAMES[0]
SHORT_LEASE = 12.0
COLLECT_AFTER = 8.0
"""Seconds until the simulated SFU drops a silent track; Cloudflare takes 30."""
STATE_SIZE = 16 << 20
_PERIOD = 0.2


class SteppedClock(SystemClock):
    """The system clock, with a wall time that can be made to jump."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset


@dataclass(frozen=True)
class Sight:
    """One camera at one moment: its status at the relay, its video at the SFU, and its commands to Google."""

    at: float
    status: CameraStatus
    session: str = ""
    """The newest session at the SFU in which its video is published."""
    viewers_at: str = ""
    """The session to which the relay sends viewers."""
    lost: int = 0
    keyframes: int = 0
    age: float = 0.0
    """Seconds since the SFU's last packet of its video, over all sessions; 0 before the first."""
    commands: tuple[tuple[str, int], ...] = ()
    """Commands that reached Google and the HTTP status each got, oldest first."""
    faults: int = 0
    """Faults pending for this camera at the SFU's API."""

    @property
    def generates(self) -> int:
        return sum(command.startswith("Generate") for command, _ in self.commands)

    @property
    def healthy(self) -> bool:
        """Whether it is really live: the relay says so, and packets with a keyframe arrive where it sends viewers."""
        arrives = self.session == self.viewers_at != "" and self.keyframes > 0 and self.age < 1.0
        return self.status.state == "live" and self.status.viewable and arrives


@dataclass
class Chaos:
    """The running relay, and the last observation of each camera."""

    relay: RunningRelay
    clock: SteppedClock
    state: Path
    """The state directory, on its own file system if `small`."""
    small: bool
    sights: dict[str, Sight] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)
    _seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def observe(self) -> None:
        """Observe five times a second, until cancelled."""
        while True:
            await self.look()
            seen, self._seen = self._seen, asyncio.Event()
            seen.set()
            await asyncio.sleep(_PERIOD)

    async def next(self, camera: str) -> Sight:
        """The next observation of a camera."""
        await self._seen.wait()
        while camera not in self.sights:  # not discovered yet
            await self._seen.wait()
        return self.sights[camera]

    async def look(self) -> None:
        """Observe every camera once."""
        relay = self.relay
        sfu, nest = await asyncio.gather(relay.sfu("sessions"), relay.nest("commands"))
        cameras = relay.supervisor.status().cameras
        self.sights |= sights(cameras, self.located(), sfu, nest, self._heard)

    def located(self) -> dict[str, str]:
        """The session at the SFU to which the relay sends viewers, by the camera's id."""
        supervisor = self.relay.supervisor
        found = {camera.id: supervisor._broker.locate(camera.id) for camera in supervisor.status().cameras}
        return {camera: publication.session for camera, publication in found.items() if publication is not None}

    async def video(self, camera: str) -> list[dict[str, Any]]:
        """The SFU's complete statistics of a camera's video, one entry per session."""
        return await self.relay.published(camera)


def sights(
    cameras: Sequence[CameraStatus],
    located: Mapping[str, str],
    sfu: dict[str, Any],
    nest: dict[str, Any],
    heard: dict[str, float],
) -> dict[str, Sight]:
    """Each camera as it is now, by display name.

    `located` is as `Chaos.located` returns it, `sfu` and `nest` are what the simulators' control interfaces say of
    sessions and commands; `heard` is kept between calls: when the last packet of each camera arrived.
    """
    now, found = time.monotonic(), {}
    for camera in cameras:
        mine = [
            (session, track)
            for session in sfu["sessions"]
            for track in session["published"]
            if track["active"] and track["name"].endswith(f"{camera.id}-video") and track["packets"]
        ]
        for _, track in mine:
            heard[camera.name] = max(now - track["last_packet_age"], heard.get(camera.name, 0.0))
        newest = min(mine, key=lambda pair: float(pair[0]["age"]), default=None)
        found[camera.name] = Sight(
            at=now,
            status=camera,
            session=newest[0]["session"] if newest else "",
            viewers_at=located.get(camera.id, ""),
            lost=newest[1]["lost"] if newest else 0,
            keyframes=newest[1]["keyframes"] if newest else 0,
            age=now - heard[camera.name] if camera.name in heard else 0.0,
            commands=tuple((c["command"], c["status"]) for c in nest["commands"] if c["device"] == camera.name),
            faults=sum(fault["correlation"] == camera.id for fault in sfu["api_faults"]),
        )
    return found


@contextlib.asynccontextmanager
async def chaos_world(cameras: int, short: Sequence[str]) -> AsyncIterator[Chaos]:
    """A relay that is not started yet; the cameras named in `short` get leases of `SHORT_LEASE` seconds."""
    options = (*SMALL, "--unlimited")
    slow = ("--collect-after", str(COLLECT_AFTER))
    async with demo_world(cameras, "320x180", options, slow) as world, httpx.AsyncClient(timeout=10.0) as http:
        clock, state = SteppedClock(), world.directory / "state"
        with small_file_system(state) as small:
            supervisor = Supervisor(world.config(**UNLIMITED), clock=clock)
            chaos = Chaos(RunningRelay(supervisor, world, http), clock, state, small)
            for camera in short:
                await chaos.relay.nest(f"cameras/{camera}/device", {"lease": SHORT_LEASE})
            observer = asyncio.create_task(chaos.observe())
            try:
                yield chaos
            finally:
                observer.cancel()
                await asyncio.gather(observer, return_exceptions=True)
                await supervisor.stop()


@contextlib.contextmanager
def small_file_system(directory: Path) -> Iterator[bool]:
    """Mount a small tmpfs at `directory`; returns False, leaving an ordinary directory, where that is not allowed."""
    directory.mkdir(mode=0o700)
    options = f"size={STATE_SIZE},mode=700"
    mount = [shutil.which("mount") or "false", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    small = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield small
    finally:
        if small:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
