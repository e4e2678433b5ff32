"""Schedules frames so that a source that delivers in bursts becomes even again."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from relay_worker.native.states import LineState

THRESHOLD: Final = 0.060
"""Arrival spread in seconds below which a source counts as even: a viewer's jitter buffer absorbs it."""
MAX_DELAY: Final = 0.600
WINDOW: Final = 5.0
"""Seconds that a late arrival is remembered."""
CATCH_UP: Final = 0.1
"""Seconds of delay removed per second once the source is even again: too slow to be noticed."""

_BUCKET: Final = 1.0


class Smoother(LineState):
    """Release times of one track's frames.

    The transit of a frame is its arrival less its media time (an arbitrary origin). While transits within `WINDOW`
    spread by no more than `THRESHOLD`, a frame leaves as it comes. Otherwise every frame leaves as late as the latest
    one did, `MAX_DELAY` after the earliest possible at most; the line falls back slowly when the clumps end.
    """

    def __init__(self, *, threshold: float = THRESHOLD, max_delay: float = MAX_DELAY) -> None:
        self._threshold, self._max_delay = threshold, max_delay
        # (start, lowest, highest transit) of each second in the window, so that cost does not grow with frame rate: the
        # present one by itself, and what those before it come to.
        self._buckets: deque[tuple[float, float, float]] = deque()
        self._low, self._high, self._bucket_end = math.inf, -math.inf, -math.inf
        self._low_before, self._high_before = math.inf, -math.inf
        self._line: float | None = None
        self._moved = 0.0

    @property
    def active(self) -> bool:
        """Whether frames are currently being delayed."""
        return self._line is not None

    def release(self, media_time: float, now: float) -> float:
        """When to send the frame of `media_time`, whose first byte arrived now: between `now` and `now + max_delay`."""
        transit = now - media_time
        if now >= self._bucket_end:
            self._next_bucket(transit, now)
        elif transit < self._low:
            self._low = transit
        elif transit > self._high:
            self._high = transit
        low = self._low if self._low < self._low_before else self._low_before
        high = self._high if self._high > self._high_before else self._high_before
        target = min(high, low + self._max_delay) if high - low > self._threshold else low
        if self._line is None:
            if target == low:
                return now
            self._line = target
        elif target >= self._line:
            self._line = target
        else:
            # Anything beyond the bound was never applied as delay.
            line = min(self._line, low + self._max_delay)
            self._line = max(target, line - CATCH_UP * (now - self._moved))
            if self._line <= low:
                self._line = None
        self._moved = now
        if self._line is None:
            return now
        return now + min(self._max_delay, max(0.0, self._line - transit))

    def _next_bucket(self, transit: float, now: float) -> None:
        buckets = self._buckets
        start = math.floor(now / _BUCKET) * _BUCKET
        if self._low <= self._high:
            buckets.append((self._bucket_end - _BUCKET, self._low, self._high))
        while buckets and buckets[0][0] < start - WINDOW:
            buckets.popleft()
        self._low_before = min((low for _, low, _ in buckets), default=math.inf)
        self._high_before = max((high for _, _, high in buckets), default=-math.inf)
        self._low = self._high = transit
        self._bucket_end = start + _BUCKET
