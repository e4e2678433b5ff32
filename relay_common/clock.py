"""Clocks, passed to the code that needs the time.

Logic takes a `Clock` (or plain `now` numbers) and never reads the system clock. `SystemClock` is the real one;
`ManualClock` moves only when a test moves it and wakes its sleepers in order of their deadlines.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

_NAP = 2.0


class Clock(Protocol):
    """Source of time for everything that waits."""

    def now(self) -> float:
        """Seconds on a monotonic clock of arbitrary origin."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch (UTC); may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (≤ 0 only yields)."""
        ...


class SystemClock:
    """The machine's clocks and the running event loop's sleep.

    `now` keeps counting while the machine is suspended (CLOCK_BOOTTIME), as do stream lifetimes, quota windows and
    every other time agreed with a remote service. The event loop's own clock stops meanwhile, so a long sleep is made
    of short ones and ends at most `_NAP` seconds late.
    """

    wall = staticmethod(time.time)

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        end = self.now() + seconds
        left = seconds
        while True:
            await asyncio.sleep(max(0.0, min(left, _NAP)))
            if (left := end - self.now()) <= 0:
                return


class LoopClock:
    """The running event loop's own time (CLOCK_MONOTONIC) and sleep, for code that also sets the loop's timers.

    It stands still while the machine is suspended. `SystemClock` does not, so that after a suspension the two differ:
    a deadline taken from one must not be handed to the other.
    """

    wall = staticmethod(time.time)
    now = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


class ManualClock:
    """A clock that stands still until `advance` or `step_wall` moves it."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._offset = wall - now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._offset

    def step_wall(self, seconds: float) -> None:
        """Jump the wall clock as an NTP correction would; monotonic time is untouched."""
        self._offset += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), waiter))
        await waiter

    def next_deadline(self) -> float | None:
        """When the earliest sleeper wakes, or None if there is none."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking sleepers on the way and letting each run until it waits again."""
        target = self._now + seconds
        await self._settle()
        while (deadline := self.next_deadline()) is not None and deadline <= target:
            self._now = max(self._now, deadline)
            _, _, waiter = heapq.heappop(self._sleepers)
            waiter.set_result(None)
            await self._settle()
        self._now = target
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        # Woken tasks may need several iterations of the loop before they wait again.
        for _ in range(20):
            await asyncio.sleep(0)


class Timer(Protocol):
    """A timer that has been set."""

    def cancel(self) -> None: ...


CallAt = Callable[[float, Callable[[], None]], Timer]
"""Calls a function at a monotonic time: an event loop's `call_at`."""


def loop_call_at(when: float, function: Callable[[], None]) -> asyncio.TimerHandle:
    """The running loop's timer."""
    return asyncio.get_running_loop().call_at(when, function)
