"""No descriptors, a fork server that hangs or is gone, a log that nobody reads: nothing healthy suffers."""

from __future__ import annotations

import array
import asyncio
import fcntl
import functools
import os
import resource
import signal
import termios
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_common.simulation.world import CAMERA_NAMES
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay
from tests.fixtures.supervisor_process import status, supervisor, until_live
from tests.integration.test_survival import process_state, video_tracks

pytestmark = [pytest.mark.media, pytest.mark.timeout(240)]

KILLED, HUNG, WITNESS = CAMERA_NAMES[:3]


def take_all_descriptors(pid: int) -> tuple[int, int]:
    """Let a live process have no new descriptor, not even in the place of one it closes; returns its former limits."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    return limits


def said_live(seen: dict[str, Any]) -> dict[str, str]:
    """Process states of the workers whose cameras are said to be live."""
    return {c["name"]: process_state(c["worker"]["pid"]) for c in seen["cameras"] if c["state"] == "live"}


async def watched(http: httpx.AsyncClient, port: int, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The status once it is as wanted, within 30 s."""
    end = time.monotonic() + 30.0
    while (seen := await status(http, port)) is None or not until(seen):
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.2)
    return seen


async def test_while_descriptors_are_used_up_a_hung_worker_is_ended_and_the_others_play_on(
    unused_tcp_port: int, tmp_path: Path
) -> None:
    port = unused_tcp_port
    async with (
        demo_world(3, "320x180", SMALL) as world,
        httpx.AsyncClient(timeout=20) as http,
        supervisor(world, port, log_file=tmp_path / "log") as process,
    ):
        before = await until_live(http, port, 3, 60.0)
        workers = {camera["name"]: camera["worker"]["pid"] for camera in before["cameras"]}
        limits = take_all_descriptors(process.pid)
        os.kill(workers[KILLED], signal.SIGKILL)
        os.kill(workers[HUNG], signal.SIGSTOP)
        await watched(http, port, lambda seen: not said_live(seen).keys() & {KILLED, HUNG})
        end = time.monotonic() + 15.0
        while time.monotonic() < end:
            seen = await status(http, port)
            assert seen is not None
            assert all(state in ("R", "S", "D") for state in said_live(seen).values()), said_live(seen)
            assert WITNESS in said_live(seen)
            await asyncio.sleep(0.2)
        assert process_state(workers[HUNG]) == "", "it was signalled without a descriptor"
        assert "Too many open files" in (tmp_path / "log").read_text()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        began = time.monotonic()
        after = await until_live(http, port, 3, 60.0)
        print(f"back {time.monotonic() - began:.1f} s after the descriptors")
        assert time.monotonic() - began < 20.0
        assert {camera["name"]: camera["worker"]["pid"] for camera in after["cameras"]}[WITNESS] == workers[WITNESS]
        witness = next(camera["id"] for camera in after["cameras"] if camera["name"] == WITNESS)
        (track,) = [track for name, track in (await video_tracks(http, world)).items() if witness in name]
        assert (track["lost"], track["gaps"]) == (0, [])
        commands = (await http.get(world.endpoints["control"]["nest"] + "/commands")).json()["commands"]
        assert [command["command"] for command in commands] == ["GenerateRtspStream"] * 3


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "is gone"])
async def test_a_fork_server_that_hangs_or_is_gone_is_replaced_and_its_workers_play_on(number: signal.Signals) -> None:
    make = functools.partial(ForkServerLauncher, timeout=90.0)
    async with running_relay(2, launcher=make) as relay:
        launcher = relay.supervisor._launcher
        assert isinstance(launcher, ForkServerLauncher)
        await relay.until_live()
        other = relay.camera(HUNG).worker.pid
        server = getattr(forkserver._forkserver, "_forkserver_pid")  # noqa: B009
        launcher._timeout = 2.0
        os.kill(server, number)
        os.kill(relay.camera(KILLED).worker.pid, signal.SIGKILL)
        await relay.until(lambda: relay.camera(KILLED).state != "live", 30.0, "the death is noticed")
        await relay.until(lambda: process_state(server) == "", 30.0, "the fork server is gone")
        launcher._timeout = 90.0  # the next one may need that to start, on a busy machine
        took = await relay.until_live(KILLED, within=90.0)
        print(f"{number.name}: back after {took:.1f} s")
        assert relay.camera(HUNG).worker.pid == other
        (track,) = await relay.published(HUNG)
        assert (track["lost"], track["gaps"]) == (0, [])
        assert [relay.camera(name).lease.generates for name in (KILLED, HUNG)] == [1, 1]


async def test_a_log_that_nobody_reads_stops_neither_media_nor_extensions(unused_tcp_port: int, tmp_path: Path) -> None:
    port, pipe = unused_tcp_port, tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    options = (*SMALL, "--unlimited", "--lease", "12")
    async with demo_world(2, "320x180", options) as world, httpx.AsyncClient(timeout=20) as http:
        async with supervisor(world, port, log_file=pipe, log={"level": "debug"}, **UNLIMITED):
            await until_live(http, port, 2, 60.0)
            await watched(http, port, lambda seen: all(c["lease"]["extends"] >= 2 for c in seen["cameras"]))
            waiting = array.array("i", [0])
            fcntl.ioctl(reader, termios.FIONREAD, waiting)
            assert waiting[0] > 3000, "the pipe is full"
            seen = await until_live(http, port, 2, 10.0)
            tracks = await video_tracks(http, world)
        assert {camera["lease"]["generates"] for camera in seen["cameras"]} == {1}
        assert [(track["lost"], track["gaps"]) for track in tracks.values()] == [(0, [])] * 2
        assert all(track["last_packet_age"] < 2.0 for track in tracks.values())
    os.close(reader)
