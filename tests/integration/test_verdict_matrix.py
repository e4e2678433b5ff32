"""Fault × surface: each fault, inflicted on a running relay, is named in the same words wherever it is looked for.

The faults of single cameras happen side by side, one camera each; those of the whole relay follow. A row is a fault:
its reason code, and how it is inflicted. The surfaces: `relay-supervisor status`, the page's JSON, `/readyz` as the
operator gets it, the log, and the metrics, which carry the code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

from relay_common import protocol
from relay_common.causes import CAUSES, Cause
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.commands.status import render
from relay_supervisor.google.errors import NestError
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.status.verdict import StatusVerdict
from tests.chaos.inflict import empty_disk, fill_disk
from tests.chaos.world import Chaos, SteppedClock, small_file_system
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay

pytestmark = pytest.mark.media

WITHIN = 15.0
"""Seconds from the first answer, packet or passed deadline that shows a fault until every surface names it."""
LATE = 20.0
"""Seconds more that a machine gets on which every other test runs, too, before this one calls it lost."""
WITNESS = "Front Door"

SFU_FAULTS: list[dict[str, Any]] = []
"""Those of the simulated SFU's interface at present: it is given all of them at once."""

Inflict = Callable[[RunningRelay, str], Awaitable[Any]]


@dataclass(frozen=True)
class OneCamera:
    """A fault of one camera; `deadline` is how long the fault itself takes to show, in seconds."""

    cause: Cause
    inflict: Inflict
    cold: bool = False
    """Inflicted before the supervisor starts."""
    deadline: float = 0.0
    detail: str = ""


def camera_fault(**fault: Any) -> Inflict:
    return lambda relay, camera: relay.nest(f"cameras/{camera}/fault", fault)


def commands_fail(status: int, **more: Any) -> Inflict:
    body = {"command": "GenerateRtspStream", "status": status, "count": 1000, **more}
    return lambda relay, camera: relay.nest(f"cameras/{camera}/fail_commands", body)


def publishing_fails(**fault: Any) -> Inflict:
    async def inflict(relay: RunningRelay, camera: str) -> None:
        status = relay.camera(camera)
        SFU_FAULTS.append({"correlation": status.id, "times": -1, **fault})
        await relay.sfu("faults", {"api": SFU_FAULTS})
        again = protocol.Republish(publication=status.publication, reason="the matrix wants another one")
        assert relay.supervisor.fleet.send(status.id, again)

    return inflict


async def crash_loop(relay: RunningRelay, camera: str) -> None:
    """Kills the camera's worker whenever there is one, until cancelled."""
    while True:
        slot = relay.supervisor.fleet.slot(relay.camera(camera).id)
        if slot is not None and slot.running and slot.process is not None:
            os.kill(slot.process.pid, signal.SIGKILL)
        await asyncio.sleep(0.2)


QUOTA = "Rate limited for the GenerateRtspStream command for the user."
ROWS = {
    "Driveway": OneCamera(Cause.CAMERA_STALLED, camera_fault(kind="stall"), deadline=3.0),
    "Back Garden": OneCamera(Cause.CAMERA_REFUSES, camera_fault(kind="describe_status", status=404), True, 0.0, "404"),
    "Garage": OneCamera(Cause.CAMERA_REFUSES, camera_fault(kind="describe_status", status=403), True, 0.0, "403"),
    "Hallway": OneCamera(Cause.CODEC_UNSUPPORTED, camera_fault(kind="codec"), True, 0.0, "H265"),
    "Nursery": OneCamera(Cause.QUOTA_HELD, commands_fail(429, message=QUOTA), True),
    "Kitchen": OneCamera(Cause.GOOGLE_FAILS, commands_fail(503), True, 0.0, "503"),
    "Living Room": OneCamera(Cause.CAMERA_NOT_SHARED, commands_fail(403), True),
    "Patio": OneCamera(Cause.SFU_REFUSES, publishing_fails(operation="sessions/new", status=500), detail="500"),
    "Side Gate": OneCamera(
        Cause.UPLINK_BLOCKED, publishing_fails(operation="sessions/new", kind="never_connect"), deadline=15.0
    ),
    "Porch": OneCamera(Cause.WORKER_CRASHES, crash_loop, detail="SIGKILL"),
}
NAMES = (WITNESS, *ROWS)


@contextlib.asynccontextmanager
async def matrix_relay() -> AsyncIterator[tuple[Chaos, Callable[[], Awaitable[None]]]]:
    """Simulators, and a supervisor that is not started yet: what starts it."""
    async with (
        demo_world(len(NAMES), "320x180", (*SMALL, "--unlimited")) as world,
        httpx.AsyncClient(timeout=30) as http,
    ):
        clock, state = SteppedClock(), world.directory / "state"
        token_url = world.endpoints["nest"]["token_url"].replace("127.0.0.1", "localhost")
        with small_file_system(state) as small:
            supervisor = Supervisor(world.config(nest={"token_url": token_url}, **UNLIMITED), clock=clock)
            try:
                yield Chaos(RunningRelay(supervisor, world, http), clock, state, small), supervisor.start
            finally:
                await supervisor.stop()


async def surfaces(relay: RunningRelay, cause: Cause, camera: str, told: list[str]) -> dict[str, bool]:
    """Which surfaces name the cause, in the sentence that the verdict gives it; `told` keeps that sentence."""
    url = relay.supervisor.url
    stats, ready, metrics = [await relay.http.get(f"{url}{path}") for path in ("/api/stats", "/readyz", "/metrics")]
    status = msgspec.json.decode(stats.content, type=RelayStatus)
    verdicts = [known.verdict for known in status.cameras if known.name == camera] if camera else status.problems
    found = next((known for known in verdicts if known.code == cause.value), StatusVerdict())
    if not found.cause:
        return {"page": False}
    told[:] = [found.cause]
    health = ready.json()
    named = [*health["reasons"], *health["degraded"], *health["problems"]]
    lines = relay.supervisor.verbs.logs.since(level="warning", most=4000)
    who = camera or found.subject
    series = (
        rf'relay_camera_reason{{[^}}]*name="{re.escape(camera)}",reason="{cause.value}"'
        if camera
        else (rf'relay_problem{{reason="{cause.value}"}} 1')
    )
    return {
        "page": bool(found.next) and bool(found.advice) and found.since > 0,
        "status": any(found.cause in line and who in line for line in render(status).splitlines()),
        "readyz": any(found.cause in reason["reason"] and reason["name"] == who for reason in named),
        "log": any(found.cause in line.text and line.camera == camera for line in lines if line.level == "warning"),
        "metrics": re.search(series, metrics.text) is not None,
        "200": ready.status_code == 200 or not camera,
    }


async def told_everywhere(relay: RunningRelay, cause: Cause, camera: str = "", within: float = WITHIN) -> str:
    """Wait until every surface names the cause; returns its sentence."""
    began, told, missing = time.monotonic(), [""], ["everything"]
    while missing:
        assert time.monotonic() - began < within + LATE, (
            f"{camera or 'the relay'}: {cause}: not in {missing}; {relay.summary()}"
        )
        await asyncio.sleep(0.3)
        found = await surfaces(relay, cause, camera, told)
        missing = [surface for surface, named in found.items() if not named]
    assert told[0].startswith(CAUSES[cause].sentence)
    return told[0]


async def over(relay: RunningRelay, sentence: str) -> None:
    """Wait until the log says that it is over."""

    def logged() -> bool:
        lines = relay.supervisor.verbs.logs.since(level="warning", most=4000)
        return any(line.text.startswith("over after") and sentence in line.text for line in lines)

    await relay.until(logged, 60.0, f"the log says that it is over: {sentence}")


async def test_every_surface_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    async with matrix_relay() as (chaos, start):
        relay = chaos.relay
        SFU_FAULTS.clear()
        for camera, row in ROWS.items():
            if row.cold:
                await row.inflict(relay, camera)
        await start()
        await relay.until_live(WITNESS, *(name for name, row in ROWS.items() if not row.cold), within=90.0)

        async def one(camera: str, row: OneCamera) -> None:
            inflicting = asyncio.create_task(row.inflict(relay, camera)) if not row.cold else None
            assert row.detail in await told_everywhere(relay, row.cause, camera, row.deadline + WITHIN)
            if inflicting is not None and not inflicting.cancel():
                inflicting.result()

        async with asyncio.TaskGroup() as side_by_side:
            for camera, row in ROWS.items():
                side_by_side.create_task(one(camera, row))
        assert relay.camera(WITNESS).verdict.code == "none"
        await relay.nest("cameras/Driveway/clear", {})
        await over(relay, CAUSES[Cause.CAMERA_STALLED].sentence)

        await viewers_refused(relay)
        await clock_wrong_and_disk_full(chaos)
        await names_unresolved(relay, monkeypatch)
        await token_revoked(relay)


async def viewers_refused(relay: RunningRelay) -> None:
    refusal = {"correlation": "view", "operation": "sessions/new", "times": -1}
    await relay.sfu("faults", {"api": [*SFU_FAULTS, refusal]})
    url, wanted = f"{relay.supervisor.url}/api/view", {"cameras": [relay.camera(WITNESS).id]}
    assert (await relay.http.post(url, json=wanted)).status_code == 502
    assert await told_everywhere(relay, Cause.VIEWERS_REFUSED) == "Cloudflare refuses viewers: 500"
    assert relay.camera(WITNESS).verdict.stage == "viewers"
    await relay.sfu("faults", {"api": SFU_FAULTS})


async def clock_wrong_and_disk_full(chaos: Chaos) -> None:
    """Both at once: Google lets devices be listed five times a minute, which is what shows either."""
    relay, causes = chaos.relay, [Cause.CLOCK_WRONG, Cause.DISK_FULL][: 1 + chaos.small]
    chaos.clock.offset = 3600.0
    if chaos.small:
        await fill_disk(chaos, WITNESS)
    await relay.supervisor.verbs.discover()
    sentences = [await told_everywhere(relay, cause) for cause in causes]
    assert "60 min ahead of Google's" in sentences[0]
    chaos.clock.offset = 0.0
    if chaos.small:
        await empty_disk(chaos, WITNESS)
    await relay.supervisor.verbs.discover()
    for sentence in sentences:
        await over(relay, sentence)


async def names_unresolved(relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", _no_name_server)
        await relay.nest("oauth", {"expire_tokens": True})
        with pytest.raises(Exception, match="name"):
            await relay.supervisor.verbs.discover()
        await told_everywhere(relay, Cause.NAMES_UNRESOLVED)


def _no_name_server(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


async def until_refused(relay: RunningRelay, why: str) -> None:
    """Discover until Google refuses for that reason: Google is not asked at once after an earlier failure."""
    async with asyncio.timeout(60.0):
        while True:
            with pytest.raises(NestError) as refused:
                await relay.supervisor.verbs.discover()
            if why in str(refused.value):
                return
            await asyncio.sleep(0.5)


async def token_revoked(relay: RunningRelay) -> None:
    await relay.nest("oauth", {"expire_tokens": True, "revoked": True})
    await until_refused(relay, "refresh token")
    sentence = await told_everywhere(relay, Cause.TOKEN_REVOKED)
    lines = relay.supervisor.verbs.logs.since(level="warning", most=4000)
    assert sum(sentence in line.text for line in lines) == 1, "once, not once a camera"


async def test_a_short_budget_says_so() -> None:
    """Leases of a minute, and one command a minute: one camera fits."""
    limits = {"limits": UNLIMITED["limits"] | {"commands_per_minute": 1}}
    async with running_relay(3, options=(*SMALL, "--lease", "60", "--unlimited"), sections=limits) as relay:
        await relay.until(lambda: any(c.state == "live" for c in relay.supervisor.status().cameras), 90.0, "one live")
        short = next(c.name for c in relay.supervisor.status().cameras if c.state != "live")
        assert "1 commands a minute" in await told_everywhere(relay, Cause.BUDGET_SHORT, short)
