"""How an attempt to reach the bus from another machine ended, as the exit code of the process that made it.

A code needs no right to read logs, and every engine passes it on. Values are an interface between releases.
"""

from __future__ import annotations

import enum
from typing import Final

STATISTICS: Final = 10
"""Added where the port for statistics failed, and the one for control did not."""


class BusReached(enum.IntEnum):
    """Outcomes of an attempt."""

    REACHED = 0
    """The supervisor, or whoever has its key, has shown it at both ports."""
    UNUSABLE = 2
    """The parameters cannot be used."""
    UNKNOWN_NAME = 20
    REFUSED = 21
    """Nothing listens there."""
    NO_ROUTE = 22
    SILENT = 23
    """Nothing answers: something on the way drops it, or the machine is off."""
    OTHER_KEY = 24
    """Something answers that is no supervisor, or does not have this relay's key."""


def outcome(code: int) -> tuple[BusReached | None, bool]:
    """The outcome that an exit code tells (None: it is of something else), and whether it is about statistics."""
    statistics = code >= BusReached.UNKNOWN_NAME + STATISTICS
    try:
        return BusReached(code - STATISTICS if statistics else code), statistics
    except ValueError:
        return None, False
