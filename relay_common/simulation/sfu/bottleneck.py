"""A viewer's narrow line: a rate, and a queue that drops what it cannot hold. No I/O and no clock."""

from __future__ import annotations

from typing import Final

QUEUE: Final = 0.3
"""Seconds of traffic that the queue holds, as in home routers of the better kind."""


class Bottleneck:
    """The line to one viewer; `rate` in bit/s may change at any time, 0 means no limit."""

    def __init__(self) -> None:
        self.overflowed = 0
        self._free_at = 0.0

    def delay(self, size: int, rate: float, now: float) -> float | None:
        """Seconds until a datagram of `size` bytes is through, None if it is dropped."""
        if rate <= 0:
            waits = max(0.0, self._free_at - now)
        else:
            waits = max(0.0, self._free_at - now) + 8 * size / rate
            if waits - 8 * size / rate > QUEUE:
                self.overflowed += 1
                return None
        self._free_at = now + waits
        return waits
