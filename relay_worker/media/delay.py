"""Measures how long video stays in the relay: from being read to being handed to the kernel, pacer included."""

from __future__ import annotations

from typing import Final

from relay_worker.native.states import DelayState

SAMPLES: Final = 1024


class DelayMeter(DelayState):
    """Keeps the delays of the last interval (at most 1024 runs of packets), in seconds."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._next = 0

    def add(self, delay: float, packets: int = 1) -> None:
        """Count packets that stayed for `delay` seconds."""
        if len(self._samples) < SAMPLES:
            self._samples.append((delay, packets))
        else:
            self._samples[self._next] = delay, packets
            self._next = (self._next + 1) % SAMPLES

    def take(self) -> tuple[float, float]:
        """Median and 99th percentile over packets since the last call; zeros when nothing was measured."""
        samples, self._samples, self._next = sorted(self._samples), [], 0
        total = sum([packets for _, packets in samples])
        return _quantile(samples, 0.50 * total), _quantile(samples, 0.99 * total)


def _quantile(samples: list[tuple[float, int]], count: float) -> float:
    """The delay not exceeded by `count` packets."""
    for delay, packets in samples:
        count -= packets
        if count <= 0:
            return delay
    return 0.0
