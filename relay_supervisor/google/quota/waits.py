"""How long commands waited, as a histogram that Prometheus can show."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BOUNDS: Final = (0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histogram's buckets in seconds; a last one is unbounded."""


class Waits:
    """Count, sum, maximum and histogram of waits in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.count = 0
        self.total = self.longest = 0.0

    def record(self, seconds: float) -> None:
        """Count one wait."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)

    @property
    def mean(self) -> float:
        """Mean wait; 0 before the first."""
        return self.total / self.count if self.count else 0.0
