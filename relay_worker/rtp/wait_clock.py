"""Measures how long a missing packet has been awaited on a link that may pause as a whole."""

from __future__ import annotations

from typing import Final

from relay_worker.native.states import WaitClockState

LONGEST_STEP: Final = 0.1
"""Longest gap in seconds between packets that counts as waiting: beyond it the sender or the link paused."""


class WaitClock(WaitClockState):
    """A clock for giving up: it runs while packets arrive, and stands still in a pause.

    After a pause (a radio that loses its link for a second, a machine that was busy elsewhere), packets requested
    before it may still arrive, one round trip after those that waited with them. By the wall clock they would be given
    up the moment the others arrive. Times must not run back.
    """

    def __init__(self) -> None:
        self._arrival: float | None = None
        self._waited = 0.0

    def arrived(self, now: float) -> float:
        """Note an arrival; returns the seconds waited up to `now`."""
        self._waited = self.at(now)
        self._arrival = now
        return self._waited

    def at(self, now: float) -> float:
        """Seconds waited up to `now`."""
        return self._waited if self._arrival is None else self._waited + min(now - self._arrival, LONGEST_STEP)
