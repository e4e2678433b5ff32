"""Endless loops that do end: they are started again, and the health says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay_common.clock import ManualClock, SystemClock
from relay_supervisor import supervise
from relay_supervisor.state.directories import private
from relay_supervisor.supervise import Loops


async def test_a_loop_that_fails_is_started_again_later_each_time_and_says_so() -> None:
    clock, runs = ManualClock(), 0

    async def failing() -> None:
        nonlocal runs
        runs += 1
        raise ValueError("a secret may stand here")

    loops = Loops(clock)
    loops.start("listing", failing)
    await clock.advance(0.0)
    assert runs == 1
    assert loops.problems == {"listing": "internal error (ValueError); see the log"}
    await clock.advance(2.0)
    early = runs
    assert early >= 3
    await clock.advance(300.0)
    assert early + 9 <= runs <= early + 25, "half a minute apart at last"
    await loops.aclose()
    assert loops.problems == {}


async def test_a_loop_that_returns_is_started_again() -> None:
    clock, runs = ManualClock(), 0

    async def returning() -> None:
        nonlocal runs
        runs += 1

    loops = Loops(clock)
    loops.start("bus", returning)
    await clock.advance(1.0)
    assert runs >= 2
    assert loops.problems == {"bus": "it ended by itself"}
    assert loops.restarts >= 1
    await loops.aclose()


async def test_no_two_loops_share_a_name() -> None:
    loops = Loops(SystemClock())
    task = loops.start("bus", asyncio.Event().wait)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bus"):
        loops.start("bus", asyncio.Event().wait)  # type: ignore[arg-type]
    task.cancel()
    await asyncio.wait([task])
    loops.start("bus", asyncio.Event().wait)  # type: ignore[arg-type]
    await loops.aclose()


async def test_one_that_runs_steadily_again_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STEADY", 0.2)
    fail = True

    async def loop() -> None:
        nonlocal fail
        if fail:
            fail = False
            raise MemoryError
        await asyncio.Event().wait()

    loops = Loops(SystemClock())
    task = loops.start("bus", loop)
    async with asyncio.timeout(20.0):
        while not loops.problems:
            await asyncio.sleep(0.01)
        while loops.problems:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert loops.restarts == 1


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o700])
def test_a_directory_that_exists_is_made_private(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    directory.chmod(mode)
    private(directory, "state_dir")
    assert directory.stat().st_mode & 0o777 == 0o700
