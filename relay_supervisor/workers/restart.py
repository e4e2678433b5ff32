"""When a dead worker is started again: soon at first, slower when it keeps dying, never in a tight loop."""

from __future__ import annotations

import random
from collections import deque

from relay_common.backoff import Backoff


class RestartPolicy:
    """Restart intensity of one camera's worker.

    The first restart within `window` seconds is immediate; further ones back off with jitter; from `intensity`
    restarts in the window on the worker counts as `degraded` and the delay stays at its ceiling.
    """

    def __init__(
        self,
        *,
        intensity: int = 5,
        window: float = 120.0,
        base: float = 0.5,
        ceiling: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._intensity, self._window, self._ceiling = intensity, window, ceiling
        self._backoff = Backoff(base, ceiling, rng=rng)
        self._deaths: deque[float] = deque(maxlen=intensity)
        self.restarts = 0

    def died(self, now: float) -> float:
        """Note an unwanted death at `now`; seconds to wait before the restart."""
        recent = self.recent(now)
        self._deaths.append(now)
        self.restarts += 1
        if recent == 0:
            self._backoff.reset()
            return 0.0
        return self._ceiling if self.degraded(now) else self._backoff.next_delay()

    def recent(self, now: float) -> int:
        """Deaths within the window (at most `intensity` are remembered)."""
        return sum(1 for at in self._deaths if now - at < self._window)

    def degraded(self, now: float) -> bool:
        """Whether the worker has died so often lately that restarts are slowed down."""
        return self.recent(now) >= self._intensity
