"""The whole process tree is suspended and resumed, as on a paused machine: `make pauses`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from relay_supervisor.commands.demo_world import demo_world
from tests.chaos.test_paused import LONG, generates, workers
from tests.fixtures.running_relay import SMALL
from tests.fixtures.supervisor_process import status, supervisor, until_live
from tests.integration.test_survival import video_tracks

pytestmark = [pytest.mark.chaos, pytest.mark.media, pytest.mark.timeout(600)]


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


@LONG
@pytest.mark.parametrize("seconds", [9.0, 20.0])
async def test_a_tree_that_stood_still_for_less_than_consent_lasts_keeps_all_it_had(
    unused_tcp_port: int, tmp_path: Path, seconds: float
) -> None:
    """Its peers are still there: what they sent meanwhile is read before their silence is judged."""
    port = unused_tcp_port
    async with (
        demo_world(3, "320x180", (*SMALL, "--webrtc", "1")) as world,
        httpx.AsyncClient(timeout=20) as http,
        supervisor(world, port, log_file=tmp_path / "log") as process,
    ):
        await until_live(http, port, 3, 60.0)
        await asyncio.sleep(2.0)
        before, spent = await until_live(http, port, 3, 20.0), await generates(http, world)
        stopped = tree(process.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(10.0)
        after, now = await until_live(http, port, 3, 30.0), await generates(http, world)
    assert workers(after) == workers(before)
    assert now == spent
    for was, camera in zip(before["cameras"], after["cameras"], strict=True):
        assert camera["publication"] == was["publication"], camera["name"]
        assert camera["lease"]["generates"] == was["lease"]["generates"], camera["name"]
    said = (tmp_path / "log").read_text()
    assert "The camera sends no video" not in said
    assert "The publication at Cloudflare has ended" not in said
    assert "The uplink does not carry the stream" not in said, "reports that were read late are no queue"


@pytest.mark.parametrize("seconds", [pytest.param(120.0, marks=LONG)])
async def test_a_whole_tree_that_stood_still_is_back_without_a_generate(
    unused_tcp_port: int, tmp_path: Path, seconds: float
) -> None:
    port = unused_tcp_port
    async with demo_world(3, "320x180", (*SMALL, "--webrtc", "1")) as world, httpx.AsyncClient(timeout=20) as http:
        async with supervisor(world, port, log_file=tmp_path / "log") as process:
            await until_live(http, port, 3, 60.0)
            await asyncio.sleep(2.0)
            before = await until_live(http, port, 3, 20.0)
            protocols = {camera["name"]: camera["lease"]["protocol"] for camera in before["cameras"]}
            spent = await generates(http, world)
            stopped = tree(process.pid)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
            began, back = time.monotonic(), dict[str, float]()
            while len(back) < 3 and time.monotonic() - began < 90.0:
                seen = await status(http, port)
                tracks = (await video_tracks(http, world)).values()
                fresh = [track["name"] for track in tracks if (track.get("last_packet_age") or 9.0) < 1.0]
                for camera in seen["cameras"] if seen is not None else []:
                    arrives = f"{camera['id']}-video" in " ".join(fresh)
                    if camera["state"] == "live" and camera["viewable"] and arrives:
                        back.setdefault(camera["name"], time.monotonic() - began)
                await asyncio.sleep(0.1)
            await asyncio.sleep(6.0)
            after = await until_live(http, port, 3, 30.0)
            now = await generates(http, world)
        print(f"whole tree, {seconds:.0f} s: back after {back}, {protocols}, {now - spent}")
        assert workers(after) == workers(before)
        rtsp = [name for name, protocol in protocols.items() if protocol == "RTSP"]
        assert len(rtsp) == 2
        for name in rtsp:
            assert (back[name] <= 5.0, now[name] - spent[name]) == (True, 0)
        for name in protocols.keys() - set(rtsp):
            assert now[name] - spent[name] <= 1
