"""Loops that must never end: each is restarted when it does, and its failure shows in the health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.tasks import Tasks

log = logging.getLogger(__name__)

STEADY: Final = 10.0
"""Seconds that a loop has to run before its failure counts as over."""


class Loops:
    """Runs endless loops until `aclose`.

    A loop that raises (or returns, which it must not) is restarted: after 0.5 s at first, then after longer pauses,
    half a minute at most. `problems` holds, by name, what is wrong with each in words; `restarts` counts those of all
    loops.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks = Tasks(log, "a loop cannot be kept running", level=logging.CRITICAL)
        self._names: set[str] = set()
        self.problems: dict[str, str] = {}
        self.restarts = 0

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Keep `loop` running; cancel the task to end it. Raises ValueError when another runs under `name`, as the one
        would hide the other's problem.
        """
        if name in self._names:
            raise ValueError(f"a loop is running already under the name {name!r}")
        self._names.add(name)
        task = self._tasks.spawn(self._keep(name, loop))
        task.add_done_callback(lambda _: self._names.discard(name))
        return task

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"restarts": self.restarts}

    async def aclose(self) -> None:
        """End all loops and wait until they have ended."""
        await self._tasks.aclose()

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(0.5, 30.0)
        try:
            while True:
                began = self._clock.now()
                steady = asyncio.get_running_loop().call_later(STEADY, self.problems.pop, name, None)
                try:
                    await loop()
                    problem = "it ended by itself"
                    log.critical("%s: the loop ended by itself; restarting it", name)
                except Exception as error:
                    # Only the type: a message may contain anything.
                    problem = f"internal error ({type(error).__name__}); see the log"
                    log.critical("%s: the loop failed; restarting it", name, exc_info=error)
                finally:
                    steady.cancel()
                if self._clock.now() - began >= STEADY:
                    backoff.reset()
                self.restarts += 1
                self.problems[name] = problem
                await self._clock.sleep(backoff.next_delay())
        finally:
            self.problems.pop(name, None)


def once(stop: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """A function that calls `stop` the first time and does nothing after that."""
    done = False

    async def first() -> None:
        nonlocal done
        if not done:
            done = True
            await stop()

    return first
