"""Detects that this process was paused: stopped, suspended with its machine, or blocked in its event loop.

Code that judges peers by their silence must know how long it was paused itself: messages sent meanwhile have not been
read yet. Clock-free: `now` is passed in, in seconds on a clock that keeps counting while the process is stopped.
"""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 1.0
"""Seconds by which a loop may be late before it counts as paused: a busy machine is not a paused one."""


class PauseDetector:
    """Observes a loop that should run every `period` seconds.

    `pauses` counts the pauses; `away` is their total length in seconds.
    """

    def __init__(self, period: float, tolerance: float = TOLERANCE) -> None:
        self._period, self._tolerance = period, tolerance
        self._last: float | None = None
        self.pauses = 0
        self.away = 0.0

    def observe(self, now: float) -> float:
        """Record an iteration at `now`; returns the seconds paused since the previous one, 0 if it was not late."""
        last, self._last = self._last, now
        late = now - last - self._period if last is not None else 0.0
        if late <= self._tolerance:
            return 0.0
        self.pauses += 1
        self.away += late
        return late

    def counters(self) -> dict[str, int]:
        """Number of pauses, and their sum in whole seconds."""
        return {"pauses": self.pauses, "seconds": round(self.away)}
