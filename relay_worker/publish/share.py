"""How much of what the camera sends the uplink carries, from what was acknowledged and never from an estimate."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

WINDOW: Final = 8.0
"""Seconds over which both are measured: a few keyframe intervals, so that neither begins or ends with one by chance."""
SHORTEST: Final = 3.0
"""Seconds of reports without which nothing is said."""
STALE: Final = 4.0
"""Seconds after the last report from which the measurement is old."""
ALL: Final = 0.95
"""UplinkShare from which the uplink counts as carrying everything."""


class UplinkShare(NamedTuple):
    """Bit/s of video with packet headers: what arrived at the SFU, repairs and probes left out, of what came in."""

    carried: float
    offered: float


class _Totals(NamedTuple):
    at: float
    offered: int
    acknowledged: float
    thinned: int


class ShareMeter:
    """Takes totals at each receiver report on the video (`add`)."""

    def __init__(self) -> None:
        self._reports: deque[_Totals] = deque()

    def add(self, now: float, *, offered: int, acknowledged: float, thinned: int) -> None:
        """Bytes that came in for sending, bytes acknowledged, and frames left out, since the publication began."""
        reports = self._reports
        reports.append(_Totals(now, offered, acknowledged, thinned))
        while reports[0].at < now - WINDOW:
            reports.popleft()

    def measured(self, now: float) -> UplinkShare | None:
        """The share over the last seconds; None where nothing was left out, or too little is known."""
        if not self._reports or now - self._reports[-1].at > STALE:
            return None
        first, last = self._reports[0], self._reports[-1]
        seconds = last.at - first.at
        offered, acknowledged = last.offered - first.offered, last.acknowledged - first.acknowledged
        if seconds < SHORTEST or last.thinned == first.thinned or acknowledged >= ALL * offered:
            return None
        return UplinkShare(8 * acknowledged / seconds, 8 * offered / seconds)
