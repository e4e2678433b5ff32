"""Arithmetic of the budget: how many cameras fit, and when to extend.

An extension grants a full new lifetime, so an early one wastes the rest of the old. With few cameras that is free and
safe; with many the budget suffices only if each lease is used longer. The planner says from when an extension is
possible, from when it is due, and how many cameras fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

ASSUMED_LIFE: Final = 300.0
"""Lifetime in seconds assumed for admission before Google has granted any; never used to time an extension."""
RECOVERY_SHARE: Final = 0.1
"""Share of the budget that extensions leave to recovery."""
_EARLIEST_SHARE: Final = 0.5
_PHASE_SHARE: Final = 0.08
_WIDEST_MARGIN_SHARE: Final = 0.35
_COMFORTABLE_SHARE: Final = 0.7


class ExtensionTimes(msgspec.Struct, frozen=True):
    """When to extend, on the clock of the grant: possible from `not_before`, due from `due`."""

    not_before: float
    due: float


def least_margin(life: float) -> float:
    """Shortest time in seconds from an extension being due to the lease's end: enough for two paced retries.

    A tenth of the lifetime or 30 s, whichever is more, but at most a quarter of a short lifetime.
    """
    return max(0.1 * life, min(30.0, 0.25 * life))


def margin(life: float, leases: int, rate: float) -> float:
    """Seconds before expiry at which an extension becomes due.

    `leases` share `rate` commands per second; the margin is as wide as possible while all of them can be extended once
    per cycle with `RECOVERY_SHARE` left over.
    """
    cycle = leases / (rate * (1 - RECOVERY_SHARE))
    return max(least_margin(life), min(_WIDEST_MARGIN_SHARE * life, life - cycle))


def reserve(places: int, leases: int, life: float, seconds_per_place: float) -> int:
    """How many of a log's `places` early extensions leave free for recovery.

    A tenth, as long as the other nine extend all `leases` within a comfortable part of their lifetime; beyond that
    every place is worth more as a wider margin.
    """
    kept = math.ceil(places / 10)
    if places - kept < 1 or leases * seconds_per_place / (places - kept) > _COMFORTABLE_SHARE * life:
        return 0
    return kept


def extension_times(granted: float, life: float, *, phase: float, margin: float, pace: float) -> ExtensionTimes:
    """When to extend a lease granted at `granted` for `life` seconds.

    `phase` (0..1) is fixed per camera, so that leases granted together do not become extendable together; `pace` is the
    shortest interval that the device's own limits sustain.
    """
    due = granted + life - margin
    earliest = granted + max(life * (_EARLIEST_SHARE + _PHASE_SHARE * phase), 1.1 * pace)
    return ExtensionTimes(min(earliest, due), due)


class Load(msgspec.Struct, frozen=True):
    """What one camera costs: commands per `life` seconds."""

    camera: str
    life: float = ASSUMED_LIFE
    commands: int = 1

    @property
    def rate(self) -> float:
        """Fewest commands per second that keep it alive."""
        return self.commands / max(1.0, self.life - least_margin(self.life))


def admit(loads: Iterable[Load], rate: float) -> set[str]:
    """The cameras, first come first served, that `rate` commands per second can keep alive together."""
    admitted: set[str] = set()
    left = rate
    for load in loads:
        if load.rate <= left + 1e-9:
            left -= load.rate
            admitted.add(load.camera)
    return admitted


def capacity(rate: float, life: float = ASSUMED_LIFE) -> int:
    """How many cameras with leases of `life` seconds `rate` commands per second can keep alive."""
    return int(rate / Load("", life).rate + 1e-9)
