"""Remedies for video that is sent intact but that nobody decodes: none of them costs a Google command. And when what is
wrong is tried again.
"""

from __future__ import annotations

import enum
from typing import Final

from relay_common.causes import Cause
from relay_common.protocol import WorkerState
from relay_common.worker_stats import WorkerStats

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


_PUBLISHING: Final = frozenset(
    cause.value
    for cause in (
        *(Cause.SFU_REFUSES, Cause.UPLINK_BLOCKED, Cause.SFU_LOST, Cause.SINK_FAILS),
        *(Cause.SUPERVISOR_SILENT, Cause.INTERNAL_ERROR),
    )
)
"""What the next attempt to publish may end."""


def next_try(stats: WorkerStats, source: float, publishing: float, *, published: bool) -> float:
    """When what `stats` reports as wrong is tried again (monotonic); 0 when nothing is wrong, or nothing is planned.

    `source` and `publishing` are when either is tried again; `published` says whether anything is.
    """
    if stats.state is WorkerState.LIVE and stats.code != Cause.SINK_FAILS.value:
        return 0.0
    return publishing if stats.code in _PUBLISHING or not (stats.code or published) else source
