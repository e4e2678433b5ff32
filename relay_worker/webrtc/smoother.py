"""When a frame should leave so that a source that comes in clumps looks even again."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

THRESHOLD: Final = 0.060
"""Arrival spread in seconds below which a source counts as even: a viewer's jitter buffer takes that as it is."""
MAX_DELAY: Final = 0.600
WINDOW: Final = 5.0
"""Seconds that a late arrival is remembered."""
CATCH_UP: Final = 0.1
"""Seconds of delay given back per second once the source is even again: too slow to be seen."""

_BUCKET: Final = 1.0


class Smoother:
    """Release times of one track's frames.

    The transit of a frame is its arrival less its media time (an arbitrary origin). While transits within `WINDOW`
    spread by no more than `THRESHOLD`, a frame leaves as it comes. Otherwise every frame leaves as late as the latest
    one did, `MAX_DELAY` after the earliest possible at most; the line falls back slowly when the clumps end.
    """

    def __init__(self, *, threshold: float = THRESHOLD, max_delay: float = MAX_DELAY) -> None:
        self._threshold, self._max_delay = threshold, max_delay
        # (start, lowest, highest transit) of each second in the window, so that cost does not grow with frame rate.
        self._buckets: deque[tuple[float, float, float]] = deque()
        self._line: float | None = None
        self._moved = 0.0

    @property
    def active(self) -> bool:
        """Whether frames are being held at present."""
        return self._line is not None

    def release(self, media_time: float, now: float) -> float:
        """When the frame of `media_time`, whose first byte came now, should leave: from `now` to `now + max_delay`."""
        transit = now - media_time
        low, high = self._observe(transit, now)
        target = min(high, low + self._max_delay) if high - low > self._threshold else low
        if self._line is None:
            if target == low:
                return now
            self._line = target
        elif target >= self._line:
            self._line = target
        else:
            # What lies beyond the bound is not delay that anyone had.
            line = min(self._line, low + self._max_delay)
            self._line = max(target, line - CATCH_UP * (now - self._moved))
            if self._line <= low:
                self._line = None
        self._moved = now
        if self._line is None:
            return now
        return now + min(self._max_delay, max(0.0, self._line - transit))

    def _observe(self, transit: float, now: float) -> tuple[float, float]:
        buckets = self._buckets
        start = math.floor(now / _BUCKET) * _BUCKET
        if buckets and buckets[-1][0] == start:
            _, low, high = buckets[-1]
            buckets[-1] = (start, min(low, transit), max(high, transit))
        else:
            buckets.append((start, transit, transit))
            while buckets[0][0] < start - WINDOW:
                buckets.popleft()
        return min(b[1] for b in buckets), max(b[2] for b in buckets)
