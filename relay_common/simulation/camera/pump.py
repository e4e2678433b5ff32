"""One timer for all players, so that twenty cameras wake the process only once per distinct sending time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Protocol

from relay_common.simulation.camera.player import SLACK


class Player(Protocol):
    """A player with scheduled sending times."""

    def step(self, now: float) -> float | None:
        """Send what is due at `now` (loop time); returns when to call again, or None for never."""
        ...


class Pump:
    """One timer for all players: calls each when its next unit is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Player]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, player: Player) -> None:
        """Play `player` until it closes."""
        heapq.heappush(self._heap, (self._loop.time(), next(self._order), player))
        self._arm()

    def close(self) -> None:
        """Stop everything."""
        self._heap.clear()
        self._arm()

    def _run(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now + SLACK:
            _, order, player = heapq.heappop(self._heap)
            due = player.step(now)
            if due is not None:
                heapq.heappush(self._heap, (due, order, player))
        self._arm()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0][0], self._run) if self._heap else None
