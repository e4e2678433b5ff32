"""The current supervisor adopts workers that an earlier version left running, which know no keys."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sqlite3
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.fixtures.bus_peer import Attempt
from tests.fixtures.running_relay import SMALL, UNLIMITED
from tests.fixtures.supervisor_process import environment, status, supervisor, until_live
from tests.integration.test_bus_strangers import tried

pytestmark = pytest.mark.media

ROOT: Final = Path(__file__).parents[2]
EARLIER: Final = "aac8002ab83182dedb9dc48ff4bc5035b022ce0e"
"""The commit before the tree was rearranged."""
CAMERAS: Final = 3
OPTIONS: Final = (*SMALL, "--webrtc", "1", "--lease", "30", "--unlimited")
"""Two cameras over RTSP, one over WebRTC, whose streams are extended within the test."""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The source tree of the earlier commit; a child process in it was checked to import from there."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", EARLIER], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"commit {EARLIER} is not at hand (no repository, or a shallow clone)")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    tell = "import relay_supervisor, relay_worker; print(relay_supervisor.__file__, relay_worker.__file__)"
    imported = subprocess.check_output([sys.executable, "-c", tell], cwd=tmp_path, env=environment(tmp_path), text=True)
    assert imported.split() == [str(tmp_path / p / "__init__.py") for p in ("relay_supervisor", "relay_worker")]
    return tmp_path


async def commands(http: httpx.AsyncClient, world: DemoWorld, kind: str) -> int:
    """How many commands starting with `kind` were sent to Google."""
    sent = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
    return sum(command["command"].startswith(kind) for command in sent)


async def video_tracks(http: httpx.AsyncClient, world: DemoWorld) -> list[dict[str, Any]]:
    """What the SFU has received of each published video track."""
    sessions = (await http.get(world.endpoints["control"]["sfu"] + "/sessions")).json()["sessions"]
    return [t for s in sessions for t in s["published"] if t["name"].endswith("video")]


async def until_each_extended(http: httpx.AsyncClient, port: int) -> None:
    """Wait until the current supervisor, which counts from zero, has extended every camera's stream."""
    async with asyncio.timeout(60.0):
        while True:
            now = await status(http, port)
            if now is not None and all(c["lease"]["extends"] >= 1 for c in now["cameras"]):
                return
            await asyncio.sleep(0.2)


def logged_in(log_file: Path) -> list[str]:
    return [line for line in log_file.read_text().splitlines() if not line.startswith("dashboard: ")]


async def refused_beside_them(http: httpx.AsyncClient, world: DemoWorld, port: int, now: dict[str, Any]) -> None:
    """Their sockets are nobody else's: a stranger that says it is one of them gets no answer."""
    sockets = [world.directory / "run" / name for name in ("control.sock", "stats.sock")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in sockets] == [0o600, 0o600]
    camera = now["cameras"][0]
    name, pid = camera["worker"]["instance"], camera["worker"]["pid"]
    control, stats = (f"ipc://{file}" for file in sockets)
    assert await tried(Attempt(control, stats, routing_id=name, instance=name, camera=camera["id"], pid=pid)) == [[]]
    async with asyncio.timeout(30.0):
        while True:
            after = await until_live(http, port, CAMERAS, 30.0)
            refused = {name for name in after["counters"] if name.startswith("bus.refused_")}
            if refused - {"bus.refused_unproven"}:
                break
            await asyncio.sleep(0.1)
    assert refused - {"bus.refused_unproven"} == {"bus.refused_unknown_process"}


async def given_a_key(http: httpx.AsyncClient, world: DemoWorld, port: int, now: dict[str, Any]) -> None:
    """A worker that is restarted comes back with a key; the others go on as they are."""
    camera = next(c for c in now["cameras"] if c["lease"]["protocol"] == "RTSP")
    (await http.post(f"http://127.0.0.1:{port}/api/cameras/{camera['id']}/restart")).raise_for_status()
    async with asyncio.timeout(30.0):
        while True:
            after = await until_live(http, port, CAMERAS, 30.0)
            pids = {c["id"]: c["worker"]["pid"] for c in after["cameras"]}
            if pids[camera["id"]] != camera["worker"]["pid"]:
                break
            await asyncio.sleep(0.1)
    assert sum(pids[c["id"]] == c["worker"]["pid"] for c in now["cameras"]) == CAMERAS - 1
    with contextlib.closing(sqlite3.connect(world.directory / "state" / "relay.sqlite3")) as database:
        workers = [json.loads(body) for (body,) in database.execute("SELECT body FROM workers")]
    assert {worker["camera"]: bool(worker.get("key")) for worker in workers} == {
        id_: id_ == camera["id"] for id_ in pids
    }
    assert await commands(http, world, "Generate") == CAMERAS


async def replaced(world: DemoWorld, port: int, first: Path | None, second: Path | None) -> None:
    """Kill the supervisor of the tree `first` and start that of `second` (None: this tree) to take over."""
    async with httpx.AsyncClient(timeout=10.0) as http:
        async with supervisor(world, port, checkout=first, **UNLIMITED) as killed:
            before = await until_live(http, port, CAMERAS, 60.0)
            killed.kill()
            await killed.wait()
        workers = {c["name"]: (c["worker"]["pid"], c["worker"]["instance"]) for c in before["cameras"]}
        protocols = sorted(c["lease"]["protocol"] for c in before["cameras"])
        assert protocols == ["RTSP", "RTSP", "WEB_RTC"]
        log_file = world.directory / "second.log"
        async with supervisor(world, port, checkout=second, log_file=log_file, **UNLIMITED):
            began = time.monotonic()
            after = await until_live(http, port, CAMERAS, 30.0)
            print(f"all live {time.monotonic() - began:.1f} s after the start")
            assert {c["name"]: (c["worker"]["pid"], c["worker"]["instance"]) for c in after["cameras"]} == workers
            assert [c["worker"]["restarts"] for c in after["cameras"]] == [0] * CAMERAS
            await until_each_extended(http, port)
            last = await until_live(http, port, CAMERAS, 10.0)
            assert {c["name"]: (c["worker"]["pid"], c["worker"]["instance"]) for c in last["cameras"]} == workers
            assert await commands(http, world, "Generate") == CAMERAS, "no stream was generated anew"
            tracks = await video_tracks(http, world)
            assert len(tracks) == CAMERAS, "no camera was published anew"
            assert [(t["lost"], t["gaps"]) for t in tracks] == [(0, [])] * CAMERAS
            for camera in last["cameras"]:
                picture = await http.get(f"http://127.0.0.1:{port}/api/cameras/{camera['id']}/snapshot", timeout=30.0)
                assert (picture.status_code, picture.content[:2]) == (200, b"\xff\xd8"), picture.text
            # Workers that do not understand the request to stop are sent signals, which is logged.
            assert logged_in(log_file) == []
            await refused_beside_them(http, world, port, last)
            await given_a_key(http, world, port, last)
        refusal = "\n".join(logged_in(log_file))
        assert refusal.count("\n") == 0, refusal
        assert "a connection without a key from a process that is no worker of an earlier release (pid " in refusal


async def test_workers_of_an_earlier_version_are_adopted_without_a_command_or_a_lost_packet(
    earlier: Path, unused_tcp_port: int
) -> None:
    async with demo_world(CAMERAS, "320x180", OPTIONS) as world:
        await replaced(world, unused_tcp_port, earlier, None)
