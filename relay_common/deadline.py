"""A deadline in time during which this process ran: after a pause, what came meanwhile is read before it is missed."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from relay_common.pauses import TOLERANCE

_STEP: Final = 1.0
"""Seconds between two looks at the clock, and the most that counts of the time between them."""
_AFTER_PAUSE: Final = 0.25
"""Seconds at least from the end of a pause to the deadline."""


class Deadline:
    """`left` seconds for what is awaited in `async with deadline:`, which raises TimeoutError then.

    Several blocks, one after the other, share them. A pause of the event loop (the process was stopped, or blocked)
    counts as one second: `asyncio.timeout` would give up an answer that has arrived and waits to be read.
    """

    def __init__(self, within: float) -> None:
        self.left = within
        self._scope = asyncio.timeout(None)
        self._looked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        self._scope = asyncio.timeout(None)
        await self._scope.__aenter__()
        self._look_in(self.left)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._count()
        await self._scope.__aexit__(kind, error, trace)

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._looked_at = loop.time()
        self._timer = loop.call_later(max(0.0, min(_STEP, seconds)), self._look)

    def _look(self) -> None:
        paused = self._count() > _STEP + TOLERANCE
        if paused:
            self._look_in(max(self.left, _AFTER_PAUSE))
        elif self.left > 0:
            self._look_in(self.left)
        else:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _count(self) -> float:
        """Count the time since the last look; returns how long it was."""
        passed = asyncio.get_running_loop().time() - self._looked_at
        self.left -= min(passed, _STEP)
        return passed
