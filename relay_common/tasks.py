"""Background tasks, referenced until they have ended, and work that may block for long, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from relay_common.clock import Clock

T = TypeVar("T")


async def pause(clock: Clock, seconds: float, over: asyncio.Event) -> None:
    """Sleep for `seconds`, or until `over` is set."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    waiting = asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait((sleeping, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waiting.cancel()


async def either(first: asyncio.Event, second: asyncio.Event) -> None:
    """Return when one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


def in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `work` in a thread of its own, with its result as a future. Raises RuntimeError when none can be started.

    Work that never ends costs that thread alone: it is none of the loop's pool, and does not keep the process from
    ending.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def fail(error: BaseException) -> None:
        if not result.done():
            result.set_exception(error)
            result.exception()  # marked as retrieved: the caller may be gone

    def succeed(value: T) -> None:
        if not result.done():
            result.set_result(value)

    def run() -> None:
        try:
            settle = functools.partial(succeed, work())
        except BaseException as error:
            settle = functools.partial(fail, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name=name, daemon=True).start()
    return result


class Tasks:
    """A set of running tasks: none is forgotten by the event loop, and one that fails is logged as `failed`."""

    def __init__(self, log: logging.Logger, failed: str, *, level: int = logging.ERROR) -> None:
        self._log, self._failed, self._level = log, failed, level
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start `work`."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Cancel all, without waiting for them to end."""
        for task in list(self._running):
            task.cancel()

    async def aclose(self, *, within: float = 0.0) -> None:
        """Wait at most `within` seconds for all to end by themselves, then cancel those that have not."""
        if within and self._running:
            await asyncio.wait(self._running, timeout=within)
        self.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.log(self._level, self._failed, exc_info=error)
