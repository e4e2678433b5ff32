"""Measures how long a missing packet has been awaited on a link that may pause as a whole."""

from __future__ import annotations

from typing import Final

LONGEST_STEP: Final = 0.1
"""Longest gap in seconds between packets that counts as waiting: beyond it the sender or the link paused."""


class WaitClock:
    """A clock for giving up: it runs while packets arrive, and stands still in a pause.

    After a pause (a radio that loses its link for a second, a machine that was busy elsewhere) what was asked for
    before it may still come, one round trip after the packets that waited with it. By the wall clock it would have
    been given up the moment these arrive. Times must not run back.
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
