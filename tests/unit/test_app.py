"""The supervisor as a whole, without cameras: what its status counts, and a start that fails half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from relay_common import config_file
from relay_common.config import Config
from relay_common.errors import RelayError
from relay_supervisor.app import Supervisor
from relay_supervisor.fleet.launcher import ForkServerLauncher
from relay_supervisor.state.lock import StateLock

NOWHERE = "http://127.0.0.1:9"


class NoLauncher(ForkServerLauncher):
    """There will be nothing to launch."""

    async def prepare(self) -> None:
        pass


class FailingLauncher(ForkServerLauncher):
    """Cannot be prepared; `look` is called at that moment."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    async def prepare(self) -> None:
        self._look()
        raise RelayError("no launcher today", hint="Try tomorrow")


def config(directory: Path) -> Config:
    document = {
        "nest": {
            "project_id": "00000000-0000-4000-8000-000000000000",
            "client_id": "x.apps.googleusercontent.com",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "api_base_url": NOWHERE,
            "token_url": NOWHERE,
        },
        "cloudflare": {"app_id": "app", "app_secret": "secret", "api_base_url": NOWHERE},
        "http": {"listen": "127.0.0.1:0"},
        "paths": {"state_dir": str(directory / "state"), "runtime_dir": str(directory / "run")},
    }
    return config_file.parse(document)


async def test_a_loop_that_was_started_again_is_counted_in_the_status(tmp_path: Path) -> None:
    supervisor = Supervisor(config(tmp_path), launcher=NoLauncher())

    async def broken() -> None:
        raise RuntimeError("once")

    supervisor.viewers.watch = broken  # type: ignore[method-assign]
    await supervisor.start()
    try:
        async with asyncio.timeout(60.0):
            while not supervisor.status().counters.get("activities.restarts"):
                await asyncio.sleep(0.02)
    finally:
        await supervisor.stop()


async def test_a_start_that_fails_half_way_stops_what_was_started(tmp_path: Path) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    seen: list[set[str]] = []

    def look() -> None:
        seen.append({path.name for path in run.iterdir()})
        with pytest.raises(RelayError, match="another supervisor"):
            StateLock(state).acquire()

    failing = Supervisor(config(tmp_path), launcher=FailingLauncher(look))
    with pytest.raises(RelayError, match="no launcher today"):
        await failing.start()
    assert len(seen) == 1
    assert {"control.sock", "stats.sock"} < seen[0], "the bus and the HTTP socket were open"
    assert not list(run.glob("*.sock")), "both were closed"
    again = Supervisor(config(tmp_path), launcher=NoLauncher())  # the lock is free
    await again.start()
    await again.stop()
