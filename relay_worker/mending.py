"""What can be tried for a picture that leaves whole and that nobody decodes: nothing that costs a command to Google.

One remedy at a time, and at most one in a minute, whoever asks: each holds the picture until the next keyframe, and
needs that long to show whether it helped.
"""

from __future__ import annotations

import enum
from typing import Final

MEND_INTERVAL: Final = 60.0
"""Seconds from one remedy to the next."""


class Mend(enum.Enum):
    """A remedy."""

    PARAMETER_SETS = "parameter_sets"
    """The parameter sets again, before every IDR picture, also where the camera has sent them."""
    INPUT = "input"
    """The track's depacketizer anew: all that was learnt of the camera's habits is forgotten."""


class Mending:
    """Chooses; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._last = Mend.INPUT
        self.tried = self.refused = 0

    def next(self, now: float) -> Mend | None:
        """The remedy to try now, in turn; None when the last one was tried less than a minute ago."""
        if self._at is not None and now - self._at < MEND_INTERVAL:
            self.refused += 1
            return None
        self._at = now
        self.tried += 1
        self._last = Mend.INPUT if self._last is Mend.PARAMETER_SETS else Mend.PARAMETER_SETS
        return self._last

    def counters(self) -> dict[str, int]:
        """Counted since it began, by name."""
        return {"tried": self.tried, "refused": self.refused}
