"""How the faults of the matrix are inflicted, and how to tell that they have taken effect."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from relay_common import protocol
from relay_supervisor.fleet.fleet import OVER_LIMIT
from tests.chaos.world import STATE_SIZE, Chaos, Sight

Inflict = Callable[[Chaos, str], Awaitable[None]]
"""Inflicts a fault on a camera, given by display name."""
Bites = Callable[[Sight, Sight], bool]
"""Whether a fault has taken effect (or is over), from the observations before and now."""

# --- when a fault has taken effect ---------------------------------------------------------------------------------


def worker_replaced(before: Sight, now: Sight) -> bool:
    return now.status.worker.pid not in (0, before.status.worker.pid)


def source_replaced(before: Sight, now: Sight) -> bool:
    return now.status.source_sessions > before.status.source_sessions


def frames_dropped(before: Sight, now: Sight) -> bool:
    """Frames were dropped, and the garbage ended long enough ago for a keyframe to have arrived."""
    return now.status.video.dropped > before.status.video.dropped and now.at > before.at + 4.5


def publication_replaced(before: Sight, now: Sight) -> bool:
    """There is a new publication, and every fault pending at the SFU was met."""
    return now.status.publication not in ("", before.status.publication) and now.faults == 0


def command_failed(before: Sight, now: Sight) -> bool:
    """A command of this camera met its fault."""
    since = now.commands[len(before.commands) :]
    return any(status != 200 for _, status in since) or now.status.lease.failures > 0


def renewed(before: Sight, now: Sight) -> bool:
    """The stream was extended or replaced, and no failure is pending."""
    was, is_ = before.status.lease, now.status.lease
    regenerated = is_.generates > was.generates
    return now.commands[-1][1] == 200 and (regenerated or (is_.extends > was.extends and is_.failures == 0))


def extended(times: int) -> Bites:
    return lambda before, now: now.status.lease.extends >= before.status.lease.extends + times


def later(seconds: float) -> Bites:
    return lambda before, now: now.at > before.at + seconds


# --- how to inflict --------------------------------------------------------------------------------------------------


def of_camera(kind: str, *, reset: bool = False, **parameters: Any) -> Inflict:
    """A fault of the simulated camera; with `reset` the connection is reset, too, so that it is met at once."""

    async def inflict(chaos: Chaos, camera: str) -> None:
        await chaos.relay.nest(f"cameras/{camera}/fault", {"kind": kind, **parameters})
        if reset:
            await chaos.relay.nest(f"cameras/{camera}/fault", {"kind": "reset"})

    return inflict


def of_command(command: str, status: int, **parameters: Any) -> Inflict:
    """Makes the next command of that name fail."""

    async def inflict(chaos: Chaos, camera: str) -> None:
        body = {"command": f"{command}RtspStream", "status": status, **parameters}
        await chaos.relay.nest(f"cameras/{camera}/fail_commands", body)

    return inflict


def of_publishing(**fault: Any) -> Inflict:
    """Forces the camera to publish again, which meets `fault` (of `sfu_options.ApiFault`)."""

    async def inflict(chaos: Chaos, camera: str) -> None:
        status = chaos.relay.camera(camera)
        await chaos.relay.sfu("faults", {"api": [{"correlation": status.id, **fault}]})
        again = protocol.Republish(publication=status.publication, reason="the fault matrix wants another one")
        assert chaos.relay.supervisor.fleet.send(status.id, again)

    return inflict


def of_session(**change: Any) -> Inflict:
    """Changes the camera's session at the SFU."""

    async def inflict(chaos: Chaos, camera: str) -> None:
        await chaos.relay.sfu(f"sessions/{chaos.sights[camera].session}", change)

    return inflict


def of_worker(number: signal.Signals) -> Inflict:
    async def inflict(chaos: Chaos, camera: str) -> None:
        os.kill(chaos.relay.camera(camera).worker.pid, number)

    return inflict


async def swell(chaos: Chaos, camera: str) -> None:
    """Makes the worker report that it uses 1 TiB; no input makes a worker's memory actually grow."""
    fleet = chaos.relay.supervisor.fleet
    slot = fleet.slot(chaos.relay.camera(camera).id)
    assert slot is not None
    assert slot.stats is not None
    for _ in range(OVER_LIMIT):
        fleet.on_stats(msgspec.structs.replace(slot.stats, rss=1 << 40))


async def delete_sockets(chaos: Chaos, camera: str) -> None:
    """Deletes the bus's socket files, as a cleaner of /tmp does; workers started later must still find the bus."""
    directory = chaos.relay.world.directory / "run"
    files = [directory / "bus.sock", directory / "bus-stats.sock"]
    for file in files:
        file.unlink()
    for _ in range(100):
        if all(file.exists() for file in files):
            break
        await asyncio.sleep(0.1)
    os.kill(chaos.relay.camera(camera).worker.pid, signal.SIGKILL)


async def fill_disk(chaos: Chaos, camera: str) -> None:
    """Fills the state's disk; SQLite's write-ahead log is emptied first, because it would still accept writes."""
    with sqlite3.connect(chaos.state / "relay.sqlite3") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (chaos.state / "filler").open("wb", buffering=0) as file:
        try:
            for _ in range(STATE_SIZE // 4096 + 1):
                file.write(bytes(4096))
        except OSError:
            return
    raise AssertionError("the file system is larger than it should be")


async def empty_disk(chaos: Chaos, camera: str) -> None:
    (chaos.state / "filler").unlink()


async def step_clock(chaos: Chaos, camera: str) -> None:
    """Moves the clock an hour forward and, after an extension, two hours back."""
    extends = chaos.relay.camera(camera).lease.extends
    chaos.clock.offset = 3600.0
    while chaos.relay.camera(camera).lease.extends == extends:
        await asyncio.sleep(0.1)
    chaos.clock.offset = -3600.0


async def rediscover(chaos: Chaos, camera: str) -> None:
    """Shares the device again; the relay sees it at its next discovery, every ten minutes or on demand."""
    await asyncio.sleep(2.0)
    await chaos.relay.supervisor.verbs.discover()
