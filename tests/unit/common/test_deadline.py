"""Deadlines that do not count pauses of the process: what came meanwhile is read first."""

from __future__ import annotations

import asyncio
import time

import pytest

from relay_common.deadline import Deadline


async def test_it_ends_what_takes_too_long() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Deadline(0.2):
            await asyncio.sleep(60.0)
    assert time.monotonic() - began >= 0.2
    async with Deadline(0.2):
        pass
    await asyncio.sleep(0.4)  # nothing is cancelled afterwards


async def test_blocks_share_it() -> None:
    deadline = Deadline(30.0)
    async with deadline:
        await asyncio.sleep(0.1)
    assert deadline.left <= 29.9
    deadline.left = 0.1
    with pytest.raises(TimeoutError):
        async with deadline:
            await asyncio.sleep(60.0)


@pytest.mark.parametrize(("within", "paused"), [(0.5, 2.5), (3.0, 4.0)])
async def test_an_answer_that_came_during_a_pause_is_read(within: float, paused: float) -> None:
    loop, answer, deadline = asyncio.get_running_loop(), asyncio.Event(), Deadline(within)
    loop.call_later(0.2, time.sleep, paused)  # the process stands still
    loop.call_later(0.3, answer.set)  # what is there by then
    async with deadline:
        await answer.wait()
        await asyncio.sleep(0.05)  # to read it takes more than a step
    assert deadline.left > 0 or within < 1.0, "the pause counts as a second"


async def test_after_a_pause_it_ends_all_the_same() -> None:
    began = time.monotonic()
    asyncio.get_running_loop().call_later(0.1, time.sleep, 2.5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60.0), Deadline(0.5):
            await asyncio.sleep(120.0)
    assert time.monotonic() - began < 50.0
