"""What the bus refuses: counted by kind, and said once in ten minutes for each kind and peer."""

from __future__ import annotations

import enum
import logging
from typing import Final

from relay_common.clock import Clock

log = logging.getLogger(__name__)

_LOG_AGAIN: Final = 600.0
"""Seconds after which what was logged is logged again, if it still happens: the log is read later, too."""
_MOST_LOGGED: Final = 50
"""Lines in that time; the rest are counted only, because a hostile peer decides how many there are."""


class BusRefusal(enum.Enum):
    """Kinds of refusals."""

    NO_KEY = "a connection that offered no key"
    UNPROVEN = "a connection that ended before it had proved a key"
    """A peer without keys may find out by itself, and hang up first; so does a worker that dies just then."""
    BAD_HANDSHAKE = "a connection that does not know this supervisor's key, or is none of a worker"
    STRANGER = "a connection whose key no living worker has"
    UNKNOWN_PROCESS = "a connection without a key from a process that is no worker of an earlier release"
    ANOTHERS_NAME = "a message in another worker's name"
    ENDED = "a message of a worker that has ended"
    """Harmless: what was under way when it did."""


_LEVELS: Final = {BusRefusal.UNPROVEN: logging.INFO, BusRefusal.ENDED: logging.DEBUG}
"""Of what a worker may cause as well; anything else is a warning."""


class Refusals:
    """Counts refusals, in `counters`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._since = clock, clock.now()
        self._counts = dict.fromkeys(BusRefusal, 0)
        self._logged: set[tuple[BusRefusal, str]] = set()

    def add(self, kind: BusRefusal, who: str = "") -> None:
        """Count a refusal; `who` is the peer in words, as far as it is known."""
        self._counts[kind] += 1
        if (now := self._clock.now()) - self._since >= _LOG_AGAIN:
            self._since = now
            self._logged.clear()
        if (kind, who) in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add((kind, who))
        log.log(_LEVELS.get(kind, logging.WARNING), "the bus refused %s%s", kind.value, f" ({who})" if who else "")

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {f"refused_{kind.name.lower()}": count for kind, count in self._counts.items()}
