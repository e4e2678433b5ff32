"""Remedies for video that is sent intact but that nobody decodes: none of them costs a Google command."""

from __future__ import annotations

import enum
from typing import Final

REMEDY_INTERVAL: Final = 60.0
"""Seconds between remedies."""


class PictureRemedy(enum.Enum):
    """A remedy."""

    PARAMETER_SETS = "parameter_sets"
    """Repeat the parameter sets before every IDR picture, even where the camera has sent them."""
    INPUT = "input"
    """Create the track's depacketizer anew: everything learnt about the camera's habits is forgotten."""


class PictureRemedies:
    """Chooses remedies; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._last = PictureRemedy.INPUT
        self.tried = self.refused = 0

    def next(self, now: float) -> PictureRemedy | None:
        """The next remedy to try; None when the last one was tried less than a minute ago."""
        if self._at is not None and now - self._at < REMEDY_INTERVAL:
            self.refused += 1
            return None
        self._at = now
        self.tried += 1
        self._last = PictureRemedy.INPUT if self._last is PictureRemedy.PARAMETER_SETS else PictureRemedy.PARAMETER_SETS
        return self._last

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"tried": self.tried, "refused": self.refused}
