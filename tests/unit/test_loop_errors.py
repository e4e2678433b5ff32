"""asyncio's own complaints are said once a minute, with how often they came."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

import pytest

from relay_common.clock import ManualClock
from relay_supervisor.loop_errors import LoopErrors


async def test_a_complaint_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock, loop = ManualClock(), asyncio.get_running_loop()
    handler = LoopErrors(clock)
    full = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    }
    for _ in range(128):
        handler(loop, full)
    assert [r.getMessage() for r in caplog.records] == ["socket.accept() out of system resource: Too many open files"]
    assert caplog.records[0].exc_info is None
    await clock.advance(61)
    handler(loop, full)
    assert caplog.records[-1].getMessage().endswith("(127 more since it was last logged)")


def test_another_complaint_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    handler, error = LoopErrors(ManualClock()), ValueError("odd")
    loop = asyncio.new_event_loop()
    handler(loop, {"message": "Task exception was never retrieved", "exception": error})
    loop.close()
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_a_bounded_number_of_messages_is_remembered() -> None:
    handler, loop = LoopErrors(ManualClock()), asyncio.new_event_loop()
    for number in range(1000):
        handler(loop, {"message": f"complaint {number}"})
    assert len(handler._logged) == 64
    loop.close()
