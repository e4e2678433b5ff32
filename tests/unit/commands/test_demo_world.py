"""The demo's simulators: how their processes end."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from relay_supervisor.commands import demo_world
from relay_supervisor.state.directories import require_runtime


async def test_a_simulator_that_ends_just_as_it_is_to_be_killed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_world, "STOP_TIMEOUT", 0.0)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=asyncio.subprocess.PIPE)
    await process.wait()
    await demo_world._stop(process)
    assert process.returncode == 0


@pytest.mark.parametrize("length", [demo_world._LONGEST, demo_world._LONGEST + 1])
async def test_its_sockets_have_room_wherever_temporary_files_are(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        place = Path(short, "t" * (length - len(short) - 1))
        place.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        async with demo_world.demo_world(cameras=1, size="64x64", sfu=False) as world:
            require_runtime(world.config(local={"listen": "127.0.0.1"}).paths.runtime())
            assert world.directory.is_relative_to(place) == (length == demo_world._LONGEST)
