"""Standing by again after having commanded."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import zmq
from msgspec.structs import replace

from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_common.config_cluster import ClusterConfig
from relay_supervisor.app import Supervisor
from relay_supervisor.cameras.overrides import FILE as OVERRIDES
from relay_supervisor.cameras.overrides import Override
from relay_supervisor.cluster.replica import Replica
from relay_supervisor.commands import standby
from relay_supervisor.commands.serving import Hangups
from relay_supervisor.commands.systemd import ServiceManager
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import SeatStatus
from tests.fixtures.offline import NoLauncher, offline_config


class Nothing:
    """Stands for the cluster, and for one among several supervisors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.seat, self.namesake = self, False

    async def aclose(self) -> None:
        pass

    leave = aclose


async def test_a_supervisor_that_was_deposed_does_not_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What commanded would, and it may not command any more."""
    caplog.set_level(logging.INFO)
    signalled, loop, lives = asyncio.Event(), asyncio.get_running_loop(), [0]
    hangups = Hangups(loop)
    reloads: list[Config] = []

    async def command(config: Config, *_: Any) -> object:
        lives[0] += 1
        if lives[0] == 2:
            os.kill(os.getpid(), signal.SIGHUP)
            while not (reloads or "there is nothing to reload" in caplog.text):
                await asyncio.sleep(0.01)
            signalled.set()
        return object()

    async def relay(config: Config, *_: Any) -> Config:
        with hangups.listening(lambda: reloads.append(config)):  # as `serve` does
            return config

    for name, replacement in (("ClusterApi", Nothing), ("Replica", Nothing), ("_command", command), ("_relay", relay)):
        monkeypatch.setattr(standby, name, replacement)
    config = offline_config(tmp_path)
    try:
        await standby.stand_by(
            config, lambda: config, standby.OfProcess(ServiceManager(), signalled, hangups, SystemClock())
        )
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
    assert lives == [2]
    assert not reloads


class InCommand(Nothing):
    """One among several supervisors that is to command at once; what it is asked to follow is noted."""

    key, overrides, over = zmq.curve_keypair()[1].decode(), b'{"a":{"enabled":false}}', asyncio.Event()
    followed: Callable[[], Awaitable[bytes]]

    def begin(self) -> None:
        pass

    async def take(self, key: bytes, content: Callable[[], bytes]) -> tuple[bytes, Store]:
        return self.key.encode(), Store(Path(":memory:"), SystemClock())

    def status(self) -> SeatStatus:
        return SeatStatus(replica="a", state="in command", holder="a")

    def follow(self, overrides: Callable[[], Awaitable[bytes]]) -> None:
        self.followed = overrides


async def test_a_state_directory_that_cannot_be_written_costs_no_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The key that workers know and what people have switched off are in the cluster, and not lost with a full disk."""
    replica, hangups = InCommand(), Hangups(asyncio.get_running_loop())
    process = standby.OfProcess(ServiceManager(), asyncio.Event(), hangups, SystemClock())
    config = replace(offline_config(tmp_path), cluster=ClusterConfig(replica="a"))
    config.paths.runtime().mkdir(parents=True)
    for name in (KEY_FILE, OVERRIDES):
        (config.paths.state() / name / "in the way").mkdir(parents=True)
    commanding: list[Supervisor] = []

    async def serve(supervisor: Supervisor, *_: Any) -> None:
        supervisor.overrides.load()
        supervisor._bus.keyring.open()
        commanding.append(supervisor)

    monkeypatch.setattr(standby, "serve", serve)
    monkeypatch.setattr(standby, "PodLauncher", lambda *_: NoLauncher(config.paths.runtime()))
    own = Keyring(config.paths.state() / KEY_FILE)
    own.open()
    store = await standby._command(config, cast(Replica, replica), own, process, None)
    assert store is not None
    await standby._relay(config, lambda: config, process, cast(Replica, replica), store, None)
    assert commanding[0]._bus.keyring.secret.reveal() == InCommand.key
    assert commanding[0].overrides["a"] == Override(enabled=False)
    assert await replica.followed() == InCommand.overrides, "and the next one is not told otherwise"
    for name in (KEY_FILE, OVERRIDES):
        assert f"{config.paths.state() / name} cannot be written: Is a directory; " in caplog.text
