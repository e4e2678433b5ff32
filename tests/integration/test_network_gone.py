"""The whole relay while names cannot be resolved: calls that never left cost nothing, and all is well soon after."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from tests.fixtures.no_names import google_by_name, no_names
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay

pytestmark = pytest.mark.media

LEASE = 14.0
AWAY = 20.0
"""Longer than a stream lives: every camera loses its stream."""
AGAIN = 10.0
"""Longest pause between two attempts while Google is not reached."""


async def test_names_cannot_be_resolved_for_longer_than_streams_live() -> None:
    options = (*SMALL, "--unlimited", "--lease", str(LEASE))
    async with demo_world(2, "320x180", options) as world, httpx.AsyncClient(timeout=10.0) as http:
        supervisor = Supervisor(world.config(**UNLIMITED, **google_by_name(world)))
        relay = RunningRelay(supervisor, world, http)
        await supervisor.start()
        try:
            await relay.until_live()
            with no_names():
                states = await watched(relay)
            await relay.until_live(within=AGAIN + 20.0)
            (budget,) = supervisor.status().budgets
            counted = (await relay.nest("commands"))["commands"]
            assert states - {"live"}, "the streams were meant to end"
            assert "degraded" not in states
            assert budget.failed >= 2, "calls were meant to fail"
            assert budget.used <= len(counted), "a call that never left took a place"
            for camera in supervisor.status().cameras:
                assert camera.lease.failures == 0
                assert camera.lease.generates == 2
                assert camera.worker.restarts == 0
                (track,) = await relay.published(camera.name)
                assert track["lost"] == 0, "filler keeps the publication up"
        finally:
            await supervisor.stop()


async def watched(relay: RunningRelay) -> set[str]:
    """The states in which cameras were seen while no name could be resolved."""
    states: set[str] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AWAY):
            while True:
                cameras = relay.supervisor.status().cameras
                states |= {camera.state for camera in cameras}
                assert all(camera.lease.failures == 0 and not camera.lease.degraded for camera in cameras)
                await asyncio.sleep(0.2)
    return states
