"""Fault × surface: each fault, inflicted on a running relay, is named in the same words wherever it is looked for.

The faults of single cameras happen side by side, one camera each; those of the whole relay follow. A row is a fault:
its reason code, how it is inflicted, and when it shows. The surfaces: tests/fixtures/verdict_surfaces.py. What it takes
a network or a clock of the machine's own to inflict is in test_verdict_network.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from relay_common import protocol
from relay_common.causes import CAUSES, Cause
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.google.errors import NestError
from tests.chaos.inflict import empty_disk, fill_disk
from tests.chaos.world import Chaos, SteppedClock, small_file_system
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay
from tests.fixtures.verdict_surfaces import Surfaces, surfaces_of

pytestmark = [pytest.mark.media, pytest.mark.timeout(400)]

WITNESS = "Front Door"
SHORT_LEASE = 12.0
"""Seconds after which streams end whose extension Google is to refuse: half of that until it is asked."""

SFU_FAULTS: list[dict[str, Any]] = []
"""Those of the simulated SFU's interface that last: it is given all of them at once."""
ONE_AT_A_TIME = asyncio.Lock()

Inflict = Callable[[RunningRelay, str], Awaitable[Any]]


@dataclass(frozen=True)
class OneCamera:
    """A fault of one camera; `deadline` is how long the fault itself takes to show, in seconds."""

    cause: Cause
    inflict: Inflict
    google: bool = False
    """Whether it shows by an answer of Google's, at the next command."""
    ice: bool = False
    """Whether it shows by the deadline of an attempt to connect with the SFU."""
    deadline: float = 0.0
    detail: str = ""


def camera_fault(**fault: Any) -> Inflict:
    return lambda relay, camera: relay.nest(f"cameras/{camera}/fault", fault)


def next_session(**fault: Any) -> Inflict:
    """A fault that the next session meets: the present one is reset."""

    async def inflict(relay: RunningRelay, camera: str) -> None:
        await relay.nest(f"cameras/{camera}/fault", fault)
        await relay.nest(f"cameras/{camera}/fault", {"kind": "reset"})

    return inflict


def commands_fail(status: int, **more: Any) -> Inflict:
    return lambda relay, camera: relay.nest(f"cameras/{camera}/fail_commands", {"status": status, "count": 1000} | more)


def publishing_fails(**fault: Any) -> Inflict:
    async def inflict(relay: RunningRelay, camera: str) -> None:
        status = relay.camera(camera)
        async with ONE_AT_A_TIME:  # else one row's list may overtake another's
            SFU_FAULTS.append({"correlation": status.id, "times": -1, **fault})
            await relay.sfu("faults", {"clear": True, "api": SFU_FAULTS})
        again = protocol.Republish(publication=status.publication, reason="the matrix wants another one")
        assert relay.supervisor.fleet.send(status.id, again)

    return inflict


async def crash_loop(relay: RunningRelay, camera: str) -> None:
    """Kills the camera's worker whenever there is one, until cancelled."""
    while True:
        slot = relay.supervisor.fleet.slot(relay.camera(camera).id)
        if slot is not None and slot.running and slot.process is not None:
            # Its end is known a moment later, with its exit code.
            with contextlib.suppress(ProcessLookupError):
                os.kill(slot.process.number, signal.SIGKILL)
        await asyncio.sleep(0.2)


async def refused_by_google(relay: RunningRelay, camera: str) -> None:
    """Wait until Google has refused a command of the camera."""
    async with asyncio.timeout(60.0):
        while True:
            commands = (await relay.nest("commands"))["commands"]
            if any(one["device"] == camera and one["status"] not in (0, 200) for one in commands):
                return
            await asyncio.sleep(0.2)


QUOTA = "Rate limited for the ExtendRtspStream command for the user."
ROWS = {
    "Driveway": OneCamera(Cause.CAMERA_STALLED, camera_fault(kind="stall"), deadline=3.0),
    "Back Garden": OneCamera(Cause.CAMERA_REFUSES, next_session(kind="describe_status", status=404), detail="404"),
    "Garage": OneCamera(Cause.CAMERA_REFUSES, next_session(kind="describe_status", status=403), detail="403"),
    "Hallway": OneCamera(Cause.CODEC_UNSUPPORTED, next_session(kind="codec"), detail="H265"),
    "Kitchen": OneCamera(Cause.GOOGLE_FAILS, commands_fail(503), google=True, detail="503"),
    "Living Room": OneCamera(Cause.CAMERA_NOT_SHARED, commands_fail(403), google=True),
    "Patio": OneCamera(Cause.SFU_REFUSES, publishing_fails(operation="sessions/new", status=500), detail="500"),
    "Side Gate": OneCamera(
        Cause.UPLINK_BLOCKED, publishing_fails(operation="sessions/new", kind="never_connect"), ice=True
    ),
    "Porch": OneCamera(Cause.WORKER_CRASHES, crash_loop, detail="SIGKILL"),
}
NURSERY = "Nursery"
"""Its extension meets a 429, which holds the commands of all cameras: after the others."""
NAMES = (WITNESS, *ROWS, NURSERY)


@contextlib.asynccontextmanager
async def matrix_relay() -> AsyncIterator[Chaos]:
    """Simulators, and a relay that is live with all cameras."""
    async with (
        demo_world(len(NAMES), "320x180", (*SMALL, "--unlimited")) as world,
        httpx.AsyncClient(timeout=30) as http,
    ):
        clock, state = SteppedClock(), world.directory / "state"
        with small_file_system(state) as small:
            supervisor = Supervisor(world.config(**UNLIMITED, log={"level": "info"}), clock=clock)
            chaos = Chaos(RunningRelay(supervisor, world, http), clock, state, small)
            for camera, row in ROWS.items():
                if row.google:
                    await chaos.relay.nest(f"cameras/{camera}/device", {"lease": SHORT_LEASE})
            await chaos.relay.nest(f"cameras/{NURSERY}/device", {"lease": SHORT_LEASE})
            try:
                await supervisor.start()
                await chaos.relay.until_live(*NAMES, within=90.0)
                yield chaos
            finally:
                await supervisor.stop()


async def test_every_surface_names_the_cause() -> None:
    SFU_FAULTS.clear()
    async with matrix_relay() as chaos, surfaces_of(chaos.relay) as surfaces:
        relay = chaos.relay

        async def one(camera: str, row: OneCamera) -> None:
            inflicting = asyncio.create_task(row.inflict(relay, camera))
            if row.google:
                await refused_by_google(relay, camera)
            if row.ice:
                await surfaces.ice_failed(camera)
            assert row.detail in await surfaces.told(row.cause, camera, deadline=row.deadline)
            if not inflicting.cancel():
                inflicting.result()

        async with asyncio.TaskGroup() as side_by_side:
            for camera, row in ROWS.items():
                side_by_side.create_task(one(camera, row))
        assert relay.camera(WITNESS).verdict.code == "none"
        await relay.nest("cameras/Driveway/clear", {})
        await surfaces.over(CAUSES[Cause.CAMERA_STALLED].sentence)

        await viewers_refused(surfaces)
        if chaos.small:
            await disk_full(chaos, surfaces)
        await quota_held(surfaces)
        await token_revoked(surfaces)
        print(f"every surface named every fault within {surfaces.slowest:.1f} s")


async def viewers_refused(surfaces: Surfaces) -> None:
    relay = surfaces.relay
    refusal = {"correlation": "view", "operation": "sessions/new", "times": -1}
    await relay.sfu("faults", {"clear": True, "api": [*SFU_FAULTS, refusal]})
    url, wanted = f"{relay.supervisor.url}/api/view", {"cameras": [relay.camera(WITNESS).id]}
    assert (await relay.http.post(url, json=wanted)).status_code == 502
    assert await surfaces.told(Cause.VIEWERS_REFUSED) == "Cloudflare refuses viewers: 500"
    assert (await relay.http.post(url, json=wanted)).status_code == 502
    assert relay.camera(WITNESS).verdict.stage == "viewers"
    assert sum("Cloudflare refuses viewers" in line.text for line in surfaces.warnings()) == 1, "once, not once a view"
    await relay.sfu("faults", {"clear": True, "api": SFU_FAULTS})


async def disk_full(chaos: Chaos, surfaces: Surfaces) -> None:
    await fill_disk(chaos, WITNESS)
    await chaos.relay.supervisor.verbs.discover()  # what it finds is to be saved
    sentence = await surfaces.told(Cause.DISK_FULL, ready=503)
    await empty_disk(chaos, WITNESS)
    await surfaces.over(sentence)


async def quota_held(surfaces: Surfaces) -> None:
    relay = surfaces.relay
    await commands_fail(429, message=QUOTA)(relay, NURSERY)
    await refused_by_google(relay, NURSERY)
    await surfaces.told(Cause.QUOTA_HELD)


async def until_refused(relay: RunningRelay, why: str) -> None:
    """Discover until Google refuses for that reason: Google is not asked at once after an earlier failure."""
    async with asyncio.timeout(60.0):
        while True:
            with pytest.raises(NestError) as refused:
                await relay.supervisor.verbs.discover()
            if why in str(refused.value):
                return
            await asyncio.sleep(0.5)


async def token_revoked(surfaces: Surfaces) -> None:
    await surfaces.relay.nest("oauth", {"expire_tokens": True, "revoked": True})
    await until_refused(surfaces.relay, "refresh token")
    sentence = await surfaces.told(Cause.TOKEN_REVOKED, ready=503)
    assert sum(sentence in line.text for line in surfaces.warnings()) == 1, "once, not once a camera"


async def test_a_short_budget_says_so() -> None:
    """Leases of a minute, and one command a minute: one camera fits, and a second one is switched on."""
    limits = {"limits": UNLIMITED["limits"] | {"commands_per_minute": 1}, "cameras": {"include": [WITNESS]}}
    async with running_relay(2, options=(*SMALL, "--lease", "60", "--unlimited"), sections=limits) as relay:
        await relay.until_live(WITNESS, within=90.0)
        async with surfaces_of(relay) as surfaces:
            added = await relay.http.post(f"{relay.supervisor.url}/api/cameras/{relay.camera('Driveway').id}/add")
            assert added.status_code == 200
            assert "1 command a minute" in await surfaces.told(Cause.BUDGET_SHORT, "Driveway")
