"""The demo's simulators: how their processes end."""

from __future__ import annotations

import asyncio
import sys

import pytest

from relay_supervisor.commands import demo_world


async def test_a_simulator_that_ends_just_as_it_is_to_be_killed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_world, "STOP_TIMEOUT", 0.0)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=asyncio.subprocess.PIPE)
    await process.wait()
    await demo_world._stop(process)
    assert process.returncode == 0
