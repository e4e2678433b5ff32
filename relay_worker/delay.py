"""How long packets stay in the relay: from being read to having been handed to the kernel."""

from __future__ import annotations

from typing import Final

SAMPLES: Final = 512


class DelayMeter:
    """Keeps the delays of the last interval (at most 512, one per wake); times are monotonic seconds."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._next = 0

    def wake_ended(self, began: float, ended: float) -> None:
        """All that was read at `began` had left (or been queued) by `ended`."""
        self.add(ended - began)

    def add(self, delay: float) -> None:
        """Count one delay in seconds."""
        if len(self._samples) < SAMPLES:
            self._samples.append(delay)
        else:
            self._samples[self._next] = delay
            self._next = (self._next + 1) % SAMPLES

    def take(self) -> tuple[float, float]:
        """Median and 99th percentile since the last call; zeros when nothing was measured."""
        samples, self._samples, self._next = sorted(self._samples), [], 0
        if not samples:
            return 0.0, 0.0
        last = len(samples) - 1
        return samples[last // 2], samples[min(last, round(last * 0.99))]
