"""Suspended and resumed processes: a supervisor alone, and the whole tree, as real processes stopped by SIGSTOP.

The short pause is part of the suite. The long ones take minutes: `make pauses`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_common.simulation.world import CAMERA_NAMES
from relay_supervisor.commands.demo_world import demo_world
from tests.fixtures.running_relay import SMALL
from tests.fixtures.supervisor_process import supervisor, until_live
from tests.integration.test_survival import video_tracks

pytestmark = [pytest.mark.chaos, pytest.mark.media, pytest.mark.timeout(600)]

LONG = pytest.mark.skipif("RELAY_LONG_PAUSES" not in os.environ, reason="takes minutes: make pauses")
SHORT_LEASE = 120.0
"""Lifetime in seconds of a stream that ends during the longest pause."""
BARELY = 30.0
"""Seconds that another stream has left when the longest pause is over."""


async def generates(http: httpx.AsyncClient, world: Any) -> Counter[str]:
    """Generate commands that reached Google, by camera."""
    commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
    return Counter(one["device"] for one in commands if one["command"].startswith("Generate"))


def workers(seen: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {camera["name"]: (camera["worker"]["pid"], camera["worker"]["restarts"]) for camera in seen["cameras"]}


async def settled(http: httpx.AsyncClient, port: int, cameras: int) -> dict[str, Any]:
    """The status once all have been live for long enough to trust it."""
    await until_live(http, port, cameras, 90.0)
    await asyncio.sleep(6.0)
    return await until_live(http, port, cameras, 30.0)


async def answered(http: httpx.AsyncClient, world: Any) -> list[tuple[str, str, int]]:
    """Every command that reached Google, as its name, its camera and the status that it got."""
    commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
    return [(one["command"].removesuffix("RtspStream"), one["device"], one["status"]) for one in commands]


async def played(http: httpx.AsyncClient, world: Any) -> set[str]:
    """The cameras that play to somebody."""
    cameras = (await http.get(world.endpoints["control"]["nest"] + "/cameras")).json()["cameras"]
    return {camera["display_name"] for camera in cameras if camera["sessions_open"]}


async def arriving(http: httpx.AsyncClient, world: Any) -> dict[str, dict[str, Any]]:
    """The SFU's statistics when packets arrive on every track, which a busy machine may hold up for a moment."""
    deadline = time.monotonic() + 10.0
    while True:
        tracks = await video_tracks(http, world)
        if all(track["last_packet_age"] < 1.0 for track in tracks.values()) or time.monotonic() > deadline:
            return tracks
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("seconds", [6.0, pytest.param(30.0, marks=LONG), pytest.param(180.0, marks=LONG)])
async def test_a_supervisor_that_stood_still_costs_only_the_streams_that_ended_meanwhile(
    unused_tcp_port: int, tmp_path: Path, seconds: float
) -> None:
    long = seconds > SHORT_LEASE
    port, names = unused_tcp_port, CAMERA_NAMES[: 6 if long else 3]
    leases = dict.fromkeys(names[2:5], SHORT_LEASE) | ({names[1]: seconds + BARELY} if long else {})
    options = (*SMALL, "--webrtc", "1")
    async with demo_world(len(names), "320x180", options) as world, httpx.AsyncClient(timeout=20) as http:
        control = world.endpoints["control"]["nest"]
        for name, lease in leases.items():
            (await http.post(f"{control}/cameras/{name}/device", json={"lease": lease})).raise_for_status()
        async with supervisor(world, port, log_file=tmp_path / "log") as process:
            await until_live(http, port, len(names), 60.0)
            await asyncio.sleep(2.0)
            before = await until_live(http, port, len(names), 20.0)
            left = {camera["name"]: camera["lease"]["expires_in"] for camera in before["cameras"]}
            speaks = {camera["name"]: camera["lease"]["protocol"] for camera in before["cameras"]}
            assert [name for name in names if speaks[name] == "WEB_RTC"] == [names[-1]]
            kept = {name for name in left if left[name] > seconds + 5.0}
            assert left.keys() - kept == (set(names[2:5]) if long else set())
            spent, said = await generates(http, world), await answered(http, world)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            during, playing = await arriving(http, world), await played(http, world)
            process.send_signal(signal.SIGCONT)
            after = await settled(http, port, len(names))
            tracks, now = await video_tracks(http, world), await generates(http, world)
            new = (await answered(http, world))[len(said) :]
        print(f"{seconds:.0f} s: {left} s left, {playing} played meanwhile, then {new}")
        assert "hangs" not in (tmp_path / "log").read_text()
        assert "was suspended" in (tmp_path / "log").read_text()
        assert workers(after) == workers(before)
        assert playing == kept, "who has no stream any more gets the slate"
        assert all(track["last_packet_age"] < 1.0 for track in during.values())
        assert len(during) == len(tracks) == len(names), "every camera kept its publication"
        for camera in after["cameras"]:
            name = camera["name"]
            (track,) = [track for track in tracks.values() if track["name"].endswith(f"{camera['id']}-video")]
            cost = now[name] - spent[name]
            print(f"{seconds:.0f} s: {name}: {left[name]:.0f} s left, {cost} Generate, {track['lost']} lost")
            assert (track["lost"], track["gaps"], track["restarts"]) == (0, [], 0)
            assert cost == (name not in kept)
        assert {status for _, _, status in new} <= {200}, "no limit was exceeded"
        if long:
            # All are sent at the same moment, so that they arrive in any order; see tests/unit/leases/test_paused.py.
            wanted = {("Extend", names[1]), *(("Generate", name) for name in names[2:5])}
            assert wanted <= {(command, name) for command, name, _ in new[: len(names)]}
