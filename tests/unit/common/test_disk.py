"""Work on files in a thread: its result, its errors, and a disk that never answers."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from relay_common.disk import DiskWork


async def test_it_returns_and_raises_what_the_work_does() -> None:
    disk = DiskWork("files")
    assert await disk.do(lambda: (threading.current_thread().name, threading.get_ident() != MAIN)) == ("files", True)
    with pytest.raises(ZeroDivisionError):
        await disk.do(lambda: 1 / 0)
    assert await disk.do(lambda: 5) == 5, "a piece that failed keeps no other"


MAIN = threading.get_ident()


async def test_a_disk_that_does_not_answer_costs_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_common.disk.ANSWERS_WITHIN", 0.05)
    disk, answers, done = DiskWork("stuck"), threading.Event(), list[int]()

    def work() -> None:
        answers.wait(60.0)
        done.append(1)

    for _ in range(3):
        with pytest.raises(OSError, match="the disk does not answer"):
            await asyncio.wait_for(disk.do(work), 30.0)
    assert [thread.name for thread in threading.enumerate()].count("stuck") == 1
    answers.set()
    monkeypatch.setattr("relay_common.disk.ANSWERS_WITHIN", 60.0)
    assert await disk.do(lambda: len(done)) == 1, "after the first, and none of those that did not begin"


async def test_the_loop_goes_on_meanwhile() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    await DiskWork("slow").do(lambda: time.sleep(0.3))
    counting.cancel()
    assert turns > 5
