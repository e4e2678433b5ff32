"""Notices that this process did not run for a while: it was stopped, its machine was, or its event loop was blocked.

Whoever judges others by their silence has to know how long it was away itself: what was said meanwhile has not been
read yet. Clock-free: `now` is passed in, in seconds on a clock that counts while the process is stopped.
"""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 1.0
"""Seconds by which a loop may be late before that counts as a pause: a busy machine is not one that stood still."""


class PauseDetector:
    """Told of each turn of a loop that should turn every `period` seconds.

    `pauses` counts how often it stood still, `away` sums up for how long, in seconds.
    """

    def __init__(self, period: float, tolerance: float = TOLERANCE) -> None:
        self._period, self._tolerance = period, tolerance
        self._last: float | None = None
        self.pauses = 0
        self.away = 0.0

    def observe(self, now: float) -> float:
        """The loop turns at `now`: for how many seconds it stood still since its last turn, 0 when it did not."""
        last, self._last = self._last, now
        late = now - last - self._period if last is not None else 0.0
        if late <= self._tolerance:
            return 0.0
        self.pauses += 1
        self.away += late
        return late

    def counters(self) -> dict[str, int]:
        """How often the loop stood still, and for how many whole seconds in all."""
        return {"pauses": self.pauses, "seconds": round(self.away)}
