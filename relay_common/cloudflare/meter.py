"""Call metrics: counts by result, and durations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.cloudflare.errors import ErrorClass

OPERATIONS: Final = ("new_session", "publish", "pull", "renegotiate", "update", "close", "get_session")


class Histogram:
    """Observations counted in fixed buckets; `bounds` are inclusive upper limits in rising order."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Histogram) -> None:
        """Add the observations of `other`, which must have the same bounds."""
        self._counts = [ours + theirs for ours, theirs in zip(self._counts, other._counts, strict=True)]
        self.sum += other.sum

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper limit, observations up to it) for each bucket, "+Inf" last, as Prometheus expects."""
        total, rows = 0, []
        for label, count in zip([*map(str, self.bounds), "+Inf"], self._counts, strict=True):
            total += count
            rows.append((label, float(total)))
        return rows


class CallMeter:
    """Outcomes and durations of SFU calls, per operation; every combination starts at zero.

    `on_call` is called with the arguments of each `count`.
    """

    def __init__(self) -> None:
        self.results = {(operation, kind): 0 for operation in OPERATIONS for kind in ErrorClass}
        self.seconds = {name: Histogram((0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)) for name in OPERATIONS}
        self.retries = dict.fromkeys(OPERATIONS, 0)
        self.on_call: Callable[[str, ErrorClass, float], None] = lambda *_: None

    def count(self, operation: str, kind: ErrorClass, seconds: float) -> None:
        """Record one HTTP exchange of `operation`; each retry counts as one."""
        self.results[operation, kind] += 1
        self.seconds[operation].observe(seconds)
        self.on_call(operation, kind, seconds)
