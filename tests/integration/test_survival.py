"""The supervisor as a separate process: killed, restarted, stopped; and the demo from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioice.ice
import httpx
import pytest

from relay_common.clock import SystemClock
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from relay_supervisor.google.errors import RateLimited
from relay_supervisor.google.leases.account import open_api
from tests.fixtures.lateness import Lateness
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay
from tests.fixtures.supervisor_process import SUPERVISOR, relay_processes, status, supervisor, until_live
from tests.fixtures.whep_player import WhepPlayer

pytestmark = pytest.mark.media


async def video_tracks(http: httpx.AsyncClient, world: DemoWorld) -> dict[str, dict[str, Any]]:
    sessions = (await http.get(world.endpoints["control"]["sfu"] + "/sessions")).json()["sessions"]
    return {t["name"]: t for s in sessions for t in s["published"] if t["name"].endswith("video")}


def process_state(pid: int) -> str:
    """The process state of proc(5), one letter; empty when it is gone, even if its parent has not reaped it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return "" if state == "Z" else state


async def test_a_killed_supervisor_costs_no_frame_and_no_command(unused_tcp_port: int) -> None:
    port = unused_tcp_port
    async with demo_world(2, "320x180", SMALL) as world, httpx.AsyncClient(timeout=10) as http:
        async with supervisor(world, port) as first:
            before = await until_live(http, port, 2, 40.0)
            first.kill()
            await first.wait()
        await asyncio.sleep(3.0)
        async with supervisor(world, port):
            began = time.monotonic()
            while (await status(http, port)) is None:
                await asyncio.sleep(0.05)
                assert time.monotonic() - began < 60.0
            after = await until_live(http, port, 2, 60.0)  # how soon: tests/chaos, which have the machine to themselves
            await asyncio.sleep(1.0)

            tracks = await video_tracks(http, world)
            assert len(tracks) == 2, "no camera was published anew"
            for track in tracks.values():
                assert track["lost"] == 0
                assert track["gaps"] == []
            pids = {c["name"]: c["worker"]["pid"] for c in before["cameras"]}
            assert {c["name"]: c["worker"]["pid"] for c in after["cameras"]} == pids
            commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
            assert [c["command"] for c in commands] == ["GenerateRtspStream"] * 2
        assert {pid: state for pid in pids.values() if (state := process_state(pid))} == {}, "workers were stopped, too"


async def test_workers_that_are_back_before_their_cameras_are_known_connect_to_nothing_anew() -> None:
    """The bus listens before the cameras are read: a worker may say hello in between."""
    async with running_relay(2, sections=UNLIMITED) as first:
        await first.until_live(within=60.0)
        before = {camera.name: camera.worker.instance for camera in first.supervisor.status().cameras}
        await first.supervisor.stop(keep_workers=True)
        second = Supervisor(first.supervisor.config)
        at_once = second._http.start

        async def late() -> None:
            await asyncio.sleep(3.0)
            await at_once()

        vars(second._http)["start"] = late
        first.supervisor = second
        await second.start()
        try:
            await first.until_live(within=60.0)
            await asyncio.sleep(1.0)
            assert {camera.name: camera.worker.instance for camera in second.status().cameras} == before
            seen = (await first.nest("cameras"))["cameras"]
            assert [(camera["describes"], camera["generates"]) for camera in seen] == [(1, 1)] * 2
            tracks = [track for name in before for track in await first.published(name)]
            assert [(track["lost"], track["gaps"]) for track in tracks] == [(0, [])] * 2
        finally:
            await second.stop()


async def test_a_restart_goes_on_while_the_cameras_cannot_be_listed(unused_tcp_port: int) -> None:
    """Leases and workers are taken over using what the killed supervisor knew of its cameras."""
    port = unused_tcp_port
    async with demo_world(2, "320x180", SMALL) as world, httpx.AsyncClient(timeout=10) as http:
        async with supervisor(world, port) as first:
            before = await until_live(http, port, 2, 40.0)
            first.kill()
            await first.wait()
        api, tokens, connection = open_api(world.config().nest[0], SystemClock())
        with contextlib.suppress(RateLimited):  # another program has used up the minute's listings
            while True:
                await api.listing()
        await tokens.aclose()
        await connection.aclose()
        async with supervisor(world, port):
            after = await until_live(http, port, 2, 60.0)
            assert {c["name"]: c["worker"]["pid"] for c in after["cameras"]} == {
                c["name"]: c["worker"]["pid"] for c in before["cameras"]
            }
            assert [c["lease"]["state"] for c in after["cameras"]] == ["held"] * 2
            commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
            assert [c["command"] for c in commands] == ["GenerateRtspStream"] * 2


async def test_a_state_file_that_is_spoilt_meanwhile_costs_a_restart_nothing(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    port, log = unused_tcp_port, tmp_path / "log"
    async with demo_world(2, "320x180", SMALL) as world, httpx.AsyncClient(timeout=10) as http:
        async with supervisor(world, port, log_file=log) as first:
            before = await until_live(http, port, 2, 40.0)
            spoilt, began = world.directory / "state" / "relay.sqlite3", time.monotonic()
            first.send_signal(signal.SIGSTOP)  # or it might write one of them again before the other is spoilt
            for tail in ("", "-wal"):
                Path(f"{spoilt}{tail}").write_bytes(os.urandom(100_000))
            first.send_signal(signal.SIGCONT)
            while "written again from memory" not in log.read_text():
                assert time.monotonic() - began < 30.0
                await asyncio.sleep(0.2)
            seen = await until_live(http, port, 2, 30.0)
            assert seen["counters"]["store.rewritten"] == 1
            first.kill()
            await first.wait()
        async with supervisor(world, port):
            after = await until_live(http, port, 2, 30.0)
            assert {c["name"]: c["worker"]["pid"] for c in after["cameras"]} == {
                c["name"]: c["worker"]["pid"] for c in before["cameras"]
            }
            assert [c["lease"]["state"] for c in after["cameras"]] == ["held"] * 2
            commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
            assert [c["command"] for c in commands] == ["GenerateRtspStream"] * 2


async def test_a_second_supervisor_on_the_same_state_is_refused(unused_tcp_port: int) -> None:
    async with (
        demo_world(1, "160x120", SMALL) as world,
        httpx.AsyncClient() as http,
        supervisor(world, unused_tcp_port) as first,
    ):
        while (await status(http, unused_tcp_port)) is None:
            await asyncio.sleep(0.1)
        second = await asyncio.create_subprocess_exec(
            *SUPERVISOR, "run", "--config", str(world.directory / "relay.toml"), stderr=subprocess.PIPE
        )
        _, err = await asyncio.wait_for(second.communicate(), 60.0)
        assert second.returncode == 1
        assert f"another supervisor (pid {first.pid})" in err.decode()


@pytest.mark.timeout(300)
async def test_the_demo_reports_in_json_and_leaves_nothing() -> None:
    for seconds in (15, 90):  # of which a busy machine may take ten to begin, and sound of a hundred frames seven
        command = [*SUPERVISOR, "demo", "--size", "320x180", "--port", "0", "--duration", str(seconds), "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), seconds + 90.0)
        report = json.loads(out)
        if report["ok"] and min(min(c["video_frames"], c["audio_frames"]) for c in report["cameras"]) > 100:
            break
    assert process.returncode == 0
    assert report["ok"] is True
    assert report["budget"] == 6
    assert len(report["cameras"]) == 6
    assert [camera["protocol"] for camera in report["cameras"]].count("WEB_RTC") >= 2
    for camera in report["cameras"]:
        assert camera["state"] == "live"
        assert camera["video_frames"] > 100
        assert camera["audio_frames"] > 100
        assert camera["packets"] > 200
        assert (camera["generates"], camera["extends"], camera["restarts"]) == (1, 0, 0)


async def test_the_demo_without_the_sfu_plays_at_the_relay_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    command = [*SUPERVISOR, "demo", "--local", "--size", "160x120", "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while not (found := re.search(rb"http://127\.0\.0\.1:\d+", line := await process.stdout.readline())):
        assert line
    url, cameras = found[0].decode(), list[Any]()
    async with asyncio.timeout(90), httpx.AsyncClient() as http:
        while len(cameras) < 6 or not all(camera["state"] == "live" and camera["local"]["on"] for camera in cameras):
            await asyncio.sleep(0.2)
            cameras = (await http.get(f"{url}/api/stats")).json()["cameras"]
        assert [(camera["sfu"], camera["sinks"]) for camera in cameras] == [(False, [])] * 6
        assert sum(camera["lease"]["protocol"] == "WEB_RTC" for camera in cameras) == 2
        player = WhepPlayer(http, f"{url}/whep/{cameras[0]['id']}")
        assert (await player.ask()).status_code == 201
        await player.watches(within=60.0)
        await player.aclose()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory whose path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="relay-") as directory:
        yield Path(directory)


async def test_ctrl_c_ends_the_demo_within_five_seconds(short_path: Path) -> None:
    for _ in range(3):
        took, lateness = await seconds_to_end_a_demo({**os.environ, "TMPDIR": str(short_path)})
        assert list(short_path.iterdir()) == []
        assert relay_processes(str(short_path)) == []
        if took < 5.0:
            break
        assert lateness.busy, f"{took:.1f} s"
    else:
        pytest.fail(f"{took:.1f} s, of a machine that was busy")


async def seconds_to_end_a_demo(environment: dict[str, str]) -> tuple[float, Lateness]:
    """Run a demo for three seconds; how long it takes to end, and whether the machine let it."""
    command = [*SUPERVISOR, "demo", "--cameras", "2", "--size", "160x120", "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    while b"dashboard" not in (line := await asyncio.wait_for(process.stdout.readline(), 60.0)):
        assert line
    await asyncio.sleep(3.0)
    async with Lateness() as lateness:
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 60.0)
        took = time.monotonic() - began
    assert process.returncode == 0
    return took, lateness
