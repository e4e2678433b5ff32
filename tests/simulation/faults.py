"""The faults of the lane, and how a seed draws them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from relay_common.worker_stats import WorkerStats
from tests.simulation.machine import Entry
from tests.simulation.outside import Weather

if TYPE_CHECKING:
    from tests.simulation.lane import Lane

_WITHIN: Final = 120.0
"""Seconds from the start in which faults begin."""


@dataclass(frozen=True)
class Fault:
    """One fault: when it begins (seconds from the start), how long it lasts, and on which camera."""

    kind: str
    at: float
    lasts: float
    camera: int

    async def inflict(self, lane: Lane) -> None:
        await _KINDS[self.kind](lane, self)

    def __str__(self) -> str:
        return f"{self.kind} for {self.lasts:.1f} s (camera {self.camera})"


def _entry(lane: Lane, fault: Fault) -> Entry | None:
    """A worker process of the fault's camera: which, where it has several, is the oldest."""
    camera = lane.camera(fault.camera)
    return next((entry for entry in lane.machine.table.values() if entry.worker.camera == camera), None)


async def crash(lane: Lane, fault: Fault) -> None:
    if (entry := _entry(lane, fault)) is not None:
        lane.machine.end(entry, -11)


async def hang(lane: Lane, fault: Fault) -> None:
    if (entry := _entry(lane, fault)) is not None:
        entry.process.stop()
        await asyncio.sleep(fault.lasts)
        entry.process.resume()


async def supervisor_stopped(lane: Lane, fault: Fault) -> None:
    if lane.control is not None:
        process = lane.control.process
        process.stop()
        await asyncio.sleep(fault.lasts)
        process.resume()


async def tree_stopped(lane: Lane, fault: Fault) -> None:
    stopped = [entry.process for entry in lane.machine.table.values()]
    stopped += [lane.control.process] if lane.control is not None else []
    for process in stopped:
        process.stop()
    await asyncio.sleep(fault.lasts)
    for process in stopped:
        process.resume()


async def supervisor_killed(lane: Lane, fault: Fault) -> None:
    lane.kill_supervisor()
    await asyncio.sleep(fault.lasts)
    if lane.control is None:
        lane.start_supervisor()


async def upgraded(lane: Lane, fault: Fault) -> None:
    await lane.leave()
    await asyncio.sleep(fault.lasts)
    if lane.control is None:
        lane.start_supervisor()


async def no_launch(lane: Lane, fault: Fault) -> None:
    lane.launcher.fault = "error"
    await asyncio.sleep(fault.lasts)
    lane.launcher.fault = ""


async def launch_hangs(lane: Lane, fault: Fault) -> None:
    lane.launcher.fault = "hang"
    if (entry := _entry(lane, fault)) is not None:
        lane.machine.end(entry, -9)
    await asyncio.sleep(fault.lasts)
    lane.launcher.fault = ""


async def launch_lost(lane: Lane, fault: Fault) -> None:
    """A launch that is begun now is never answered."""
    lane.launcher.fault = "lost"
    if (entry := _entry(lane, fault)) is not None:
        lane.machine.end(entry, -9)
    await asyncio.sleep(1.0)
    lane.launcher.fault = ""


async def unreachable(lane: Lane, fault: Fault) -> None:
    scene = lane.scenes[lane.camera(fault.camera)]
    scene.reachable = False
    await asyncio.sleep(fault.lasts)
    scene.reachable = True


async def slow_bus(lane: Lane, fault: Fault) -> None:
    if lane.control is not None:
        bus = lane.control.bus
        bus.latest = 2.0
        await asyncio.sleep(fault.lasts)
        bus.latest = 0.01


async def deaf_bus(lane: Lane, fault: Fault) -> None:
    if lane.control is not None:
        bus = lane.control.bus
        bus.pause_reading()
        await asyncio.sleep(fault.lasts)
        bus.owner.after(0.0, bus.read_again)


async def session_lost(lane: Lane, fault: Fault) -> None:
    if lane.sfu.sessions:
        lane.sfu.sessions.discard(min(lane.sfu.sessions))


async def no_descriptors(lane: Lane, fault: Fault) -> None:
    lane.machine.descriptors_left = False
    await asyncio.sleep(fault.lasts)
    lane.machine.descriptors_left = True


async def unlisted(lane: Lane, fault: Fault) -> None:
    device = lane.device(fault.camera)
    device.traitless = True
    await asyncio.sleep(fault.lasts)
    device.traitless = False


async def moved(lane: Lane, fault: Fault) -> None:
    """The camera is moved to the Google Home app: from then on it speaks WebRTC."""
    device = lane.device(fault.camera)
    device.answer = lambda offer, path: f"{offer} {path}"
    device.protocol = "WEB_RTC"


async def requested(lane: Lane, fault: Fault) -> None:
    """A person restarts the camera's worker."""
    camera, control = lane.camera(fault.camera), lane.control
    if control is not None and camera in control.director.running:
        control.process.spawn(control.director.restart(camera))


async def fat(lane: Lane, fault: Fault) -> None:
    """The camera's worker reports too much memory, which has it replaced."""
    for _ in range(4):
        entry, control = _entry(lane, fault), lane.control
        if entry is not None and control is not None:
            worker = entry.worker
            stats = WorkerStats(
                instance=worker.instance,
                camera=worker.camera,
                sequence=0,
                at=0.0,
                uptime=1.0,
                state=worker.state,
                rss=1 << 30,
            )
            control.process.after(0.0, control.fleet.on_stats, stats)
        await asyncio.sleep(1.0)


async def google_stalls(lane: Lane, fault: Fault) -> None:
    """Google reads nothing for a while, then all that has come in at once."""
    lane.google.stalled_until = lane.loop.now + fault.lasts


async def clock_jumps(lane: Lane, fault: Fault) -> None:
    """Somebody sets the machine's clock: an hour ahead, then an hour back, then right."""
    for ahead in (3600.0, -3600.0, 0.0):
        lane.machine.clock_ahead = lane.google.clock_ahead = ahead
        await asyncio.sleep(fault.lasts / 2)


_Inflict = Callable[["Lane", Fault], Awaitable[None]]
_DRAWN: Final[tuple[tuple[_Inflict, float, float, int], ...]] = (
    # what, shortest and longest in seconds, how often
    (crash, 0.0, 0.0, 6),
    (hang, 1.0, 60.0, 4),
    (supervisor_stopped, 0.5, 60.0, 3),
    (tree_stopped, 0.5, 120.0, 2),
    (supervisor_killed, 0.05, 30.0, 6),
    (upgraded, 0.05, 10.0, 2),
    (no_launch, 1.0, 30.0, 2),
    (launch_hangs, 5.0, 60.0, 1),
    (launch_lost, 1.0, 1.0, 1),
    (unreachable, 5.0, 60.0, 3),
    (slow_bus, 5.0, 30.0, 2),
    (deaf_bus, 1.0, 15.0, 1),
    (session_lost, 0.0, 0.0, 2),
    (no_descriptors, 1.0, 20.0, 1),
    (unlisted, 60.0, 150.0, 1),
    (moved, 0.0, 0.0, 1),
    (requested, 0.0, 0.0, 2),
    (fat, 4.0, 4.0, 2),
    (google_stalls, 2.0, 28.0, 4),
    (clock_jumps, 1.0, 60.0, 2),
)
_KINDS: Final = {what.__name__: what for what, *_ in _DRAWN}  # type: ignore[attr-defined]


def draw_faults(rng: random.Random) -> list[Fault]:
    """Between two and nine faults, some of them close together."""
    weights = [often for *_, often in _DRAWN]
    found: list[Fault] = []
    for _ in range(rng.randint(2, 9)):
        what, shortest, longest, _ = rng.choices(_DRAWN, weights)[0]
        near = found and rng.random() < 0.4
        at = found[-1].at + rng.uniform(0, 3) if near else rng.uniform(0.0, _WITHIN)
        found.append(Fault(what.__name__, at, rng.uniform(shortest, longest), rng.randrange(8)))  # type: ignore[attr-defined]
    return sorted(found, key=lambda fault: fault.at)


def draw_weathers(rng: random.Random, now: float, kinds: tuple[str, ...]) -> list[Weather]:
    """At most two spells in which calls fail."""
    found = []
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        begins = now + rng.uniform(0, _WITHIN)
        some = tuple(rng.sample(kinds, rng.randint(1, 3)))
        found.append(Weather(begins, begins + rng.uniform(5, 90), rng.choice((0.3, 0.7, 1.0)), some))
    return found
