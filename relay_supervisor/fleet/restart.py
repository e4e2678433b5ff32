"""When a dead worker is restarted: at once at first, more slowly when it keeps dying, never in a tight loop."""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from relay_common.backoff import Backoff
from relay_supervisor.fleet.compiled_trust import CompiledTrust

_REMEMBERED: Final = 100
"""Deaths remembered; with restarts slowed down, more than fit into any window."""
UNSTARTED_WAIT: Final = 10.0
"""Longest time in seconds before the next try where no process could be started: what is lacking may be back soon."""
_LOGGED: Final = 3
"""Failed starts in a row that are logged."""


class RestartPolicy:
    """Restart intensity of one camera's worker.

    The first restart within `window` seconds is immediate; further ones back off with jitter; from `intensity` deaths
    in the window on the worker counts as `degraded` and is restarted about every `ceiling` seconds. Starts that bring
    no process about (no descriptor, no memory) are no deaths: they are tried again every few seconds. Nor is it one
    where its engine takes a worker away.
    """

    def __init__(
        self,
        *,
        intensity: int = 5,
        window: float = 600.0,
        base: float = 0.5,
        ceiling: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._intensity, self._window, self._ceiling = intensity, window, ceiling
        self._rng = rng or random.Random()
        self._backoff = Backoff(base, ceiling, rng=self._rng)
        self._starts = Backoff(base, max(base, UNSTARTED_WAIT), rng=self._rng)
        self._deaths: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self._taken: deque[float] = deque(maxlen=intensity)
        self.restarts = 0
        self.trust = CompiledTrust()

    def died(self, now: float, cause: str) -> float:
        """Record an unwanted death at `now` with its cause in words; returns seconds to wait before the restart."""
        recent = self.recent(now)
        self._deaths.append((now, cause))
        self.restarts += 1
        if recent == 0:
            self._backoff.reset()
            return 0.0
        if self.recent(now) >= self._intensity:
            return self._ceiling * self._rng.uniform(0.8, 1.2)
        return self._backoff.next_delay()

    def taken_away(self, now: float) -> float:
        """Record that its engine took the worker away at `now`; returns seconds to wait before the next one.

        That is no death, and the next may start at once. Where it happens `intensity` times in the window, something
        takes every worker away, and will go on.
        """
        self._taken.append(now)
        self.restarts += 1
        often = len(self._taken) == self._intensity and now - self._taken[0] < self._window
        return self._ceiling * self._rng.uniform(0.8, 1.2) if often else 0.0

    def unstarted(self) -> float:
        """Record that no process could be started; returns seconds to wait before the next try."""
        if self._starts.failures:
            return self._starts.next_delay()
        self._starts.failures = 1
        return 0.0

    def started(self) -> None:
        """Record that a process was started."""
        self._starts.reset()

    @property
    def failing_starts(self) -> int:
        """Starts in a row that brought no process about."""
        return self._starts.failures

    @property
    def logged_enough(self) -> bool:
        """Whether starts have failed so often in a row that another failure is no news."""
        return self._starts.failures >= _LOGGED

    def recent(self, now: float) -> int:
        """Deaths within the window."""
        return sum(now - at < self._window for at, _ in self._deaths)

    def degraded(self, now: float) -> bool:
        """Whether the worker has died, or could not be started, so often lately that restarts are slowed down."""
        return max(self.recent(now), self._starts.failures) >= self._intensity

    def words(self, now: float) -> str:
        """The last death in words, and how often the same happened lately: "…, 3rd time in 10 minutes"."""
        if not self._deaths:
            return ""
        cause = self._deaths[-1][1]
        times = sum(now - at < self._window and why == cause for at, why in self._deaths)
        return cause if times < 2 else f"{cause}, {_ordinal(times)} time in {self._window / 60:.0f} minutes"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
