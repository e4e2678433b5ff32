"""Standing by again after having commanded."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_supervisor.commands import standby
from relay_supervisor.commands.systemd import ServiceManager
from tests.fixtures.offline import offline_config


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
        loop.add_signal_handler(signal.SIGHUP, reloads.append, config)  # as `serve` does
        return config

    for name, replacement in (("ClusterApi", Nothing), ("Replica", Nothing), ("_command", command), ("_relay", relay)):
        monkeypatch.setattr(standby, name, replacement)
    config = offline_config(tmp_path)
    try:
        await standby.stand_by(config, lambda: config, ServiceManager(), signalled, SystemClock())
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
    assert lives == [2]
    assert not reloads
