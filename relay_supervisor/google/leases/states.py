"""The states of a lease and the moves between them, as a table."""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class LeaseState(enum.Enum):
    """Where a lease is."""

    RELEASED = "released"
    """Nobody wants the camera."""
    WANTED = "wanted"
    """Waiting for its turn to be generated."""
    GENERATING = "generating"
    """Generate is under way."""
    HELD = "held"
    """The stream is alive and its extension planned."""
    EXTENDING = "extending"
    """Extend is under way."""
    DOUBTED = "doubted"
    """The stream plays, but Extend was refused as if the camera spoke another protocol: its traits will tell."""
    REPLACING = "replacing"
    """A stream that cannot be extended (any more) still plays while its successor is generated."""
    RENEWING = "renewing"
    """A stream that cannot be extended is being stopped, to be generated anew."""
    LOST = "lost"
    """The stream is gone; what follows is decided at once."""
    HELD_OFF = "held_off"
    """Waiting after a failure."""
    PARKED = "parked"
    """Only a change made by a person helps."""


class LeaseEvent(enum.Enum):
    """What happens to a lease."""

    WANT = "want"
    UNWANT = "unwant"
    RESUME = "resume"
    SENT = "sent"
    GRANTED = "granted"
    EXTENDED = "extended"
    SENT_BACK = "sent back"
    DOUBT = "doubt"
    SWITCH = "switch"
    FAILED = "failed"
    LOSE = "lose"
    RETRY = "retry"
    HOLD_OFF = "hold off"
    REPLACE = "replace"
    RENEW = "renew"
    PARK = "park"


LEASE: Final = Table(
    "lease",
    LeaseState.RELEASED,
    {
        (LeaseState.RELEASED, LeaseEvent.WANT): LeaseState.WANTED,
        (LeaseState.RELEASED, LeaseEvent.RESUME): LeaseState.HELD,
        (LeaseState.WANTED, LeaseEvent.SENT): LeaseState.GENERATING,
        (LeaseState.WANTED, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.WANTED, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.GENERATING, LeaseEvent.GRANTED): LeaseState.HELD,
        (LeaseState.GENERATING, LeaseEvent.SENT_BACK): LeaseState.WANTED,
        (LeaseState.GENERATING, LeaseEvent.FAILED): LeaseState.HELD_OFF,
        (LeaseState.GENERATING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.GENERATING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.HELD, LeaseEvent.SENT): LeaseState.EXTENDING,
        (LeaseState.HELD, LeaseEvent.REPLACE): LeaseState.REPLACING,
        (LeaseState.HELD, LeaseEvent.RENEW): LeaseState.RENEWING,
        (LeaseState.HELD, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.HELD, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.HELD, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.EXTENDING, LeaseEvent.EXTENDED): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.FAILED): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.DOUBT): LeaseState.DOUBTED,
        (LeaseState.EXTENDING, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.EXTENDING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.EXTENDING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.DOUBTED, LeaseEvent.SWITCH): LeaseState.HELD,
        (LeaseState.DOUBTED, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.DOUBTED, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.DOUBTED, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.REPLACING, LeaseEvent.GRANTED): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.FAILED): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.REPLACING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.RENEWING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.RENEWING, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.RENEWING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.RENEWING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.LOST, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.LOST, LeaseEvent.HOLD_OFF): LeaseState.HELD_OFF,
        (LeaseState.HELD_OFF, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.HELD_OFF, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.HELD_OFF, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.PARKED, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.PARKED, LeaseEvent.UNWANT): LeaseState.RELEASED,
    },
)

ALIVE: Final = frozenset(
    {LeaseState.HELD, LeaseState.EXTENDING, LeaseState.DOUBTED, LeaseState.REPLACING, LeaseState.RENEWING}
)
"""States with a stream that has not ended yet."""
ENDING: Final = frozenset({LeaseState.HELD, LeaseState.DOUBTED})
"""Those of them in which its end is the end of the lease: no command is under way that gives it another."""
UNDER_WAY: Final = frozenset({LeaseState.GENERATING, LeaseState.EXTENDING, LeaseState.REPLACING, LeaseState.RENEWING})
"""States with a command at Google."""
