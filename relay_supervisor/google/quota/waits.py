"""Histogram of how long commands waited, for Prometheus."""

from __future__ import annotations

from typing import Final

from relay_common.cloudflare.meter import Histogram

BOUNDS: Final = (0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram's buckets in seconds; the last one is unbounded."""


class WaitHistogram(Histogram):
    """Histogram, count and maximum of waits in seconds."""

    def __init__(self) -> None:
        super().__init__(BOUNDS)
        self.count = 0
        self.longest = 0.0

    def observe(self, value: float) -> None:
        """Count one wait."""
        super().observe(value)
        self.count += 1
        self.longest = max(self.longest, value)

    @property
    def mean(self) -> float:
        """Mean wait; 0 before the first."""
        return self.sum / self.count if self.count else 0.0
