"""Tasks that nobody waits for."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from relay_common.tasks import Tasks

log = logging.getLogger("test.tasks")


async def test_one_that_fails_is_logged_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("on purpose")

    tasks = Tasks(log, "a part failed", level=logging.CRITICAL)
    await asyncio.wait([tasks.spawn(fail())])
    await asyncio.sleep(0)
    assert len(tasks) == 0
    (record,) = caplog.records
    assert (record.levelname, record.message, record.name) == ("CRITICAL", "a part failed", "test.tasks")
    assert record.exc_info is not None
    assert "on purpose" in str(record.exc_info[1])


async def test_one_that_is_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks(log, "a part failed")
    sleeping = [tasks.spawn(asyncio.sleep(60)) for _ in range(3)]
    await asyncio.sleep(0)
    gc.collect()
    await tasks.aclose()
    assert all(task.cancelled() for task in sleeping)
    assert len(tasks) == 0
    assert not caplog.records


async def test_closing_gives_time_and_no_more() -> None:
    tasks = Tasks(log, "a part failed")
    soon, late = tasks.spawn(asyncio.sleep(0.01)), tasks.spawn(asyncio.sleep(60))
    await tasks.aclose(within=0.1)
    assert (soon.cancelled(), late.cancelled()) == (False, True)
    await tasks.aclose(within=1.0)
