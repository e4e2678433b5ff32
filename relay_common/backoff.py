"""Exponential backoff with jitter, as a value machine without clock or sleep."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double up to a ceiling, each spread by jitter, reset by success.

    `base` and `ceiling` are seconds, `factor` the growth per failure, `jitter` the share (0..1) of each delay
    that is random: a delay d becomes uniform in [d·(1-jitter), d]. `failures` counts since the last reset.
    """

    def __init__(
        self,
        base: float,
        ceiling: float,
        *,
        factor: float = 2.0,
        jitter: float = 0.5,
        rng: random.Random | None = None,
    ) -> None:
        if base <= 0 or ceiling < base or factor < 1 or not 0 <= jitter <= 1:
            raise ValueError(f"backoff out of range: {base=} {ceiling=} {factor=} {jitter=}")
        self._base, self._ceiling, self._factor, self._jitter = base, ceiling, factor, jitter
        self._rng = rng or random.Random()
        self.failures = 0

    def next_delay(self) -> float:
        """Count a failure and return the seconds to wait before the next try."""
        # The exponent is capped so that an endless outage cannot overflow a float.
        exponent = min(self.failures, 64)
        delay = min(self._ceiling, self._base * self._factor**exponent)
        self.failures += 1
        return delay * (1 - self._jitter * self._rng.random())

    def reset(self) -> None:
        """Reset after a success."""
        self.failures = 0
