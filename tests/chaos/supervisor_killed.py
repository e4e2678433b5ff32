"""The row in which the supervisor itself is killed: it needs a supervisor in a separate process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from relay_supervisor.commands.demo_world import demo_world
from tests.fixtures.running_relay import SMALL
from tests.integration.test_survival import status, supervisor, until_live, video_tracks

AWAY = 3.0


async def kill_supervisor(port: int) -> dict[str, Any]:
    """Kill a supervisor of two cameras, start another after `AWAY` seconds, and check what happened to the video."""
    async with demo_world(2, "320x180", SMALL) as world, httpx.AsyncClient(timeout=10) as http:
        async with supervisor(world, port) as first:
            before = await until_live(http, port, 2, 60.0)
            first.kill()
            await first.wait()
        await asyncio.sleep(AWAY)
        async with supervisor(world, port):
            began = time.monotonic()
            while await status(http, port) is None:
                await asyncio.sleep(0.05)
                assert time.monotonic() - began < 30.0
            serving = time.monotonic()
            after = await until_live(http, port, 2, 30.0)
            adopted = time.monotonic() - serving
            await asyncio.sleep(1.0)
            tracks = list((await video_tracks(http, world)).values())
            commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
    pids = [{c["name"]: c["worker"]["pid"] for c in seen["cameras"]} for seen in (before, after)]
    return {
        "adopted": adopted,
        "same_workers": pids[0] == pids[1],
        "commands": [c["command"] for c in commands],
        "tracks": tracks,
    }
