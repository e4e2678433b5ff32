"""Real workers that know their supervisor by TCP alone: live, confined, stopped, and taken over by the next one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import httpx
import pytest

from relay_supervisor.cameras import worker_spec
from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay
from tests.fixtures.supervisor_process import supervisor, until_live
from tests.fixtures.tcp_workers import PROGRAM, TcpLauncher, over_tcp
from tests.integration.test_survival import video_tracks

pytestmark = pytest.mark.media

CAMERAS = 3
OPTIONS = (*SMALL, "--webrtc", "1", "--unlimited")
SUSPENDED = 7.0
"""Seconds, after which both ends have given up their connections."""


async def test_a_worker_works_over_tcp_and_is_replaced_when_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confined, it may connect to the bus; its stream has another port than expected, and so it is replaced once."""
    monkeypatch.setattr(worker_spec, "_stream_ports", lambda url: (1,))
    sections = over_tcp() | UNLIMITED
    async with running_relay(1, launcher=TcpLauncher, sections=sections) as relay:
        await relay.until_live(within=60.0)
        (camera,) = relay.supervisor.status().cameras
        member = relay.supervisor.fleet.keyring.named(camera.worker.instance)
        assert member is not None
        assert member.over == "bus over TCP"
        if "TCP to" in camera.worker.confinement:
            port = int(sections["cluster"]["bus_listen"].rpartition(":")[2])
            assert f", {port}, {port + 1}" in camera.worker.confinement
        assert (await relay.supervisor.verbs.snapshot(camera.id)).startswith(b"\xff\xd8")
        os.kill(camera.worker.pid, signal.SIGSTOP)
        began = time.monotonic()

        def another() -> bool:
            now = relay.camera(camera.name)
            return now.state == "live" and now.worker.pid != camera.worker.pid

        await relay.until(another, 60.0, "another worker is live")
        print(f"live again {time.monotonic() - began:.1f} s after the worker was stopped")
        after = relay.camera(camera.name)
        assert after.worker.last_exit.startswith("hung")
        assert after.lease.generates == 1


async def generates(http: httpx.AsyncClient, world: DemoWorld) -> int:
    commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
    return sum(command["command"].startswith("Generate") for command in commands)


async def nothing_was_lost(http: httpx.AsyncClient, world: DemoWorld) -> None:
    tracks = await video_tracks(http, world)
    assert len(tracks) == CAMERAS, "no camera was published anew"
    assert [(track["lost"], track["gaps"]) for track in tracks.values()] == [(0, [])] * CAMERAS
    assert await generates(http, world) == CAMERAS


def workers(seen: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {c["name"]: (c["worker"]["pid"], c["worker"]["instance"]) for c in seen["cameras"]}


async def test_a_supervisor_that_is_suspended_or_killed_costs_no_packet_and_no_command(unused_tcp_port: int) -> None:
    port, sections = unused_tcp_port, over_tcp() | UNLIMITED
    async with demo_world(CAMERAS, "320x180", OPTIONS) as world, httpx.AsyncClient(timeout=10.0) as http:
        async with supervisor(world, port, program=PROGRAM, **sections) as first:
            before = await until_live(http, port, CAMERAS, 60.0)
            assert sorted(c["lease"]["protocol"] for c in before["cameras"]) == ["RTSP", "RTSP", "WEB_RTC"]
            first.send_signal(signal.SIGSTOP)
            await asyncio.sleep(SUSPENDED)
            first.send_signal(signal.SIGCONT)
            await asyncio.sleep(SUSPENDED)  # time to end those that it takes for hung
            resumed = await until_live(http, port, CAMERAS, 60.0)
            assert workers(resumed) == workers(before)
            await nothing_was_lost(http, world)
            first.kill()
            await first.wait()
        await asyncio.sleep(1.0)
        async with supervisor(world, port, program=PROGRAM, **sections):
            began = time.monotonic()
            after = await until_live(http, port, CAMERAS, 60.0)
            print(f"adopted {time.monotonic() - began:.1f} s after the start")
            assert workers(after) == workers(before)
            assert [c["worker"]["restarts"] for c in after["cameras"]] == [0] * CAMERAS
            for camera in after["cameras"]:
                picture = await http.get(f"http://127.0.0.1:{port}/api/cameras/{camera['id']}/snapshot", timeout=30.0)
                assert (picture.status_code, picture.content[:2]) == (200, b"\xff\xd8"), picture.text
            await nothing_was_lost(http, world)
