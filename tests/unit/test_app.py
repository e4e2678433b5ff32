"""The supervisor as a whole, without cameras: what its status counts, and a start that fails half-way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from relay_common.config import CameraSettings
from relay_common.config_cluster import ClusterConfig
from relay_common.errors import ConfigError, RelayError
from relay_common.protocol import Protocol
from relay_supervisor import app
from relay_supervisor.app import Supervisor
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.cameras.watching import Watching
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.bus_sockets import Doorkeeper
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.models import Device
from relay_supervisor.local.service import LocalViewing
from relay_supervisor.renditions.service import Renditions
from relay_supervisor.report import Report
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.ice_servers import IceServers
from relay_supervisor.socket_file import SocketFile
from relay_supervisor.state.lock import StateLock
from relay_supervisor.viewing.verdicts import Verdicts
from relay_supervisor.viewing.viewers import Viewers
from relay_worker.process.worker import Worker
from tests.fixtures.offline import NoLauncher, offline_config
from tests.fixtures.ports import free_ports


class FailingLauncher(NoLauncher):
    """Cannot be prepared."""

    async def prepare(self) -> None:
        raise RelayError("no launcher today", hint="Try tomorrow")


def failing(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> Supervisor:
    """A supervisor whose start fails when the bus and the HTTP interface are open; `look` is called at that moment."""

    def fail(publications: object) -> None:
        look()
        raise RelayError("no sinks today")

    monkeypatch.setattr(supervisor._sinks, "restore", fail)
    return supervisor


LOOPS = {
    "workers": (Fleet, "run"),
    "leases": (LeaseManager, "run"),
    "bus": (Bus, "_receive_control"),
    "bus statistics": (Bus, "_receive_stats"),
    "bus keys": (Doorkeeper, "run"),
    "bus handshakes": (Bus, "_count_failed"),
    "bus statistics handshakes": (Bus, "_count_failed"),
    "bus key file": (SocketFile, "keep"),
    "bus socket file": (SocketFile, "keep"),
    "bus statistics socket file": (SocketFile, "keep"),
    "http socket file": (SocketFile, "keep"),
    "discovery": (Discovery, "run"),
    "events": (EventHub, "run"),
    "viewers": (Viewers, "watch"),
    "local viewers": (LocalViewing, "watch"),
    "verdicts": (Verdicts, "watch"),
    "renditions": (Renditions, "watch"),
    "what is wrong": (Report, "watch"),
    "cameras on demand": (Watching, "run"),
    "TURN credentials": (IceServers, "keep_workers"),
    "publications": (Broker, "watch"),
    "memory": (app, "keep_small"),
}
"""The loops that must never end, by the name under which their trouble is reported."""


async def test_every_loop_that_fails_is_started_again_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **more: object) -> None:
        raise RuntimeError("whatever")

    for part, loop in LOOPS.values():
        monkeypatch.setattr(part, loop, broken)
    supervisor = Supervisor(offline_config(tmp_path), launcher=NoLauncher)
    await supervisor.start()
    try:
        assert LOOPS.keys() == supervisor._loops._names | supervisor._activities._names, "all of them"
        async with asyncio.timeout(60.0):
            while LOOPS.keys() - {r.part for r in supervisor.health().reasons if "internal error" in r.reason}:
                await asyncio.sleep(0.02)
            while (counted := supervisor.status().counters)["activities.restarts"] < 12 or counted[
                "loops.restarts"
            ] < 10:
                await asyncio.sleep(0.02)
        assert not supervisor.health().ready
        assert all(account.running for account in supervisor.accounts)
    finally:
        await supervisor.stop()


async def test_of_several_accounts_all_that_is_reported_says_which_it_is_about(tmp_path: Path) -> None:
    config = offline_config(tmp_path)
    (nest,) = config.nest
    config = msgspec.structs.replace(config, nest=[nest, nest])
    project, other = nest.project_id, f"{nest.project_id}#2"
    supervisor = Supervisor(config, launcher=NoLauncher)
    await supervisor.start()
    try:
        for number in range(2):
            device = Device(f"enterprises/p/devices/{number}", str(number), "CAMERA", "Door", (Protocol.RTSP,))
            supervisor._registry.restored(number, [device])
        status = supervisor.status()
        assert [one.account for one in status.budgets] == [project, other]
        assert [one.account for one in status.cameras] == [project, other]
        found = supervisor.health()
        assert {one.account for one in found.reasons if one.camera} == {project, other}
        supervisor.accounts[1]._task.cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [one.part for one in supervisor.health().reasons if not one.camera] == [f"leases of {other}"]
    finally:
        await supervisor.stop()


async def test_a_start_that_fails_half_way_stops_what_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    seen: list[set[str]] = []

    def look() -> None:
        seen.append({path.name for path in run.iterdir()})
        with pytest.raises(RelayError, match="another supervisor"):
            StateLock(state).acquire()

    broken = failing(Supervisor(offline_config(tmp_path), launcher=NoLauncher), monkeypatch, look)
    with pytest.raises(RelayError, match="no sinks today"):
        await started_and_stopped(broken)
    assert len(seen) == 1
    assert {"bus.sock", "bus-stats.sock"} < seen[0], "the bus and the HTTP socket were open"
    assert not list(run.glob("*.sock")), "both were closed"
    again = Supervisor(offline_config(tmp_path), launcher=NoLauncher)  # the lock is free
    await again.start()
    await again.stop()


async def test_the_time_limits_of_rtsp_reach_the_workers_sessions(tmp_path: Path) -> None:
    """From the configuration, each as itself."""
    config = offline_config(tmp_path)
    limits = {"connect_timeout": 3.0, "read_timeout": 4.0, "media_timeout": 5.0}
    changed = msgspec.structs.replace(config, rtsp=msgspec.structs.replace(config.rtsp, **limits))
    supervisor = Supervisor(changed, launcher=NoLauncher)
    device = Device("enterprises/p/devices/d", "Porch", "CAMERA", "Porch", (Protocol.RTSP,))
    await supervisor.start()
    try:
        worker = Worker(supervisor._spec(Camera("porch", 0, device, CameraSettings())), preloaded=True)
        settings = worker._relay.source._settings
        await worker._control.close()
    finally:
        await supervisor.stop()
    assert (settings.connect_timeout, settings.session.read_timeout, settings.session.media_timeout) == (3.0, 4.0, 5.0)


def opened() -> set[str]:
    """What this process has open, by what it is; pipes and the like have no names that last."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(fd)
            found.add(target if target.startswith("/") else f"{fd.name} {target}")
    return found


async def test_making_a_supervisor_opens_and_makes_nothing(tmp_path: Path) -> None:
    Supervisor(offline_config(tmp_path), launcher=NoLauncher)  # what the libraries keep open for good
    # What earlier tests have left may end meanwhile.
    before, threads = opened(), set(threading.enumerate())
    Supervisor(offline_config(tmp_path), launcher=NoLauncher)
    assert opened() - before == set()
    assert set(threading.enumerate()) - threads == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["state_dir", "runtime_dir"])
async def test_a_directory_that_another_supervisor_uses_is_refused_by_name(tmp_path: Path, key: str) -> None:
    taken = offline_config(tmp_path)
    other = offline_config(tmp_path / "other")
    shared = msgspec.structs.replace(other.paths, **{key: getattr(taken.paths, key)})
    first = Supervisor(taken, launcher=NoLauncher)
    await first.start()
    try:
        second = Supervisor(msgspec.structs.replace(other, paths=shared), launcher=NoLauncher)
        with pytest.raises(RelayError, match=f"pid {os.getpid()}.*{getattr(taken.paths, key)}") as caught:
            await started_and_stopped(second)
        assert f"paths.{key}" in caught.value.hint
        # The first is none the worse: its socket serves, its locks hold.
        assert (tmp_path / "run" / "http.sock").exists()
        with pytest.raises(RelayError, match="another supervisor"):
            StateLock(Path(taken.paths.runtime_dir)).acquire()
    finally:
        await first.stop()


async def test_a_start_that_cannot_have_its_directories_leaves_nothing_open(tmp_path: Path) -> None:
    long, file = tmp_path / ("x" * 100), tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    good = offline_config(tmp_path)
    Supervisor(good, launcher=NoLauncher)
    before = opened()
    for changed, words in (
        ({"runtime_dir": str(long)}, "too long for a socket path"),
        ({"state_dir": str(file)}, "is not a directory"),
        ({"runtime_dir": str(link)}, "symbolic link"),
    ):
        paths = msgspec.structs.replace(good.paths, **changed)
        supervisor = Supervisor(msgspec.structs.replace(good, paths=paths), launcher=NoLauncher)
        with pytest.raises(ConfigError, match=words):
            await started_and_stopped(supervisor)
        assert opened() - before == set()
    if os.getuid() == 0:
        os.chown(tmp_path, 54321, -1)
        paths = msgspec.structs.replace(good.paths, runtime_dir=str(tmp_path))
        with pytest.raises(ConfigError, match="belongs to another user"):
            await started_and_stopped(Supervisor(msgspec.structs.replace(good, paths=paths), launcher=NoLauncher))


async def started_and_stopped(supervisor: Supervisor) -> None:
    """Start, which should fail; if it does not, stop, so that the test fails instead of waiting for what runs."""
    await supervisor.start()
    await supervisor.stop()


class RemoteLauncher(NoLauncher):
    """Starts workers elsewhere."""

    remote = True


async def test_workers_are_told_of_the_sockets_that_they_can_reach(tmp_path: Path) -> None:
    near = offline_config(tmp_path)
    ports = free_ports(2)
    far = msgspec.structs.replace(near, cluster=ClusterConfig(bus_listen=f"127.0.0.1:{ports[0]}"))
    device = Device("enterprises/p/devices/1", "1", "CAMERA", "Front Door", (Protocol.RTSP,))
    ends = {}
    for launcher, config in ((NoLauncher, far), (RemoteLauncher, far)):
        spec = Supervisor(config, launcher=launcher)._spec(Camera("cam", 0, device, CameraSettings()))
        ends[launcher] = [spec.control, spec.stats]
    assert ends[NoLauncher] == [f"ipc://{tmp_path}/run/bus.sock", f"ipc://{tmp_path}/run/bus-stats.sock"]
    assert ends[RemoteLauncher] == [f"tcp://127.0.0.1:{port}" for port in ports]
    service = msgspec.structs.replace(far, cluster=ClusterConfig(bus_listen="relay:7420", bus_bind="0.0.0.0:7420"))
    spec = Supervisor(service, launcher=RemoteLauncher)._spec(Camera("cam", 0, device, CameraSettings()))
    assert (spec.control, spec.stats) == ("tcp://relay:7420", "tcp://relay:7421")
    with pytest.raises(ConfigError, match=r"set cluster\.bus_listen"):
        Supervisor(near, launcher=RemoteLauncher)


async def test_what_was_started_is_stopped_in_reverse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    supervisor = Supervisor(offline_config(tmp_path), launcher=NoLauncher)
    failing(supervisor, monkeypatch, lambda: order.append("failed"))
    parts = {"lock": supervisor._locks[0], "store": supervisor._store, "bus": supervisor._bus, "http": supervisor._http}
    verbs = {"lock": "release", "store": "close", "bus": "stop", "http": "stop"}
    for name, part in parts.items():
        stop = getattr(part, verbs[name])
        result = functools.partial(noted, order, name, stop)
        monkeypatch.setattr(part, verbs[name], result)
    threads, before = set(threading.enumerate()), opened()
    with pytest.raises(RelayError, match="no sinks today"):
        await started_and_stopped(supervisor)
    assert order == ["failed", "http", "bus", "store", "lock"]
    assert set(threading.enumerate()) - threads == set()
    assert opened() - before == set(), "a file, socket or lock was left open"


async def test_where_no_worker_can_be_found_or_started_nothing_is_read_and_no_socket_made(tmp_path: Path) -> None:
    """Which workers live is known before anything depends on it: their keys are admitted, or their rows deleted."""
    before = opened()
    with pytest.raises(RelayError, match="no launcher today"):
        await started_and_stopped(Supervisor(offline_config(tmp_path), launcher=FailingLauncher))
    assert list((tmp_path / "run").iterdir()) == [], "and the lock is free"
    assert opened() - before == set()


def noted(order: list[str], name: str, stop: Callable[[], object]) -> object:
    order.append(name)
    return stop()


async def test_sockets_and_stacks_are_nobody_elses_and_stale_stacks_go(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "gone.stacks").touch()
    supervisor = Supervisor(offline_config(tmp_path), launcher=NoLauncher)
    await supervisor.start()
    try:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()}
        assert modes == dict.fromkeys(("bus.sock", "bus-stats.sock", "http.sock", "lock"), 0o600)
        assert stat.S_IMODE((tmp_path / "state" / "bus.key").stat().st_mode) == 0o600
    finally:
        await supervisor.stop()
