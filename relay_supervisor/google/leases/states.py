"""The states of a lease and the moves between them, as a table."""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class State(enum.Enum):
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


class Event(enum.Enum):
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
    State.RELEASED,
    {
        (State.RELEASED, Event.WANT): State.WANTED,
        (State.RELEASED, Event.RESUME): State.HELD,
        (State.WANTED, Event.SENT): State.GENERATING,
        (State.WANTED, Event.UNWANT): State.RELEASED,
        (State.WANTED, Event.PARK): State.PARKED,
        (State.GENERATING, Event.GRANTED): State.HELD,
        (State.GENERATING, Event.SENT_BACK): State.WANTED,
        (State.GENERATING, Event.FAILED): State.HELD_OFF,
        (State.GENERATING, Event.PARK): State.PARKED,
        (State.GENERATING, Event.UNWANT): State.RELEASED,
        (State.HELD, Event.SENT): State.EXTENDING,
        (State.HELD, Event.REPLACE): State.REPLACING,
        (State.HELD, Event.RENEW): State.RENEWING,
        (State.HELD, Event.LOSE): State.LOST,
        (State.HELD, Event.PARK): State.PARKED,
        (State.HELD, Event.UNWANT): State.RELEASED,
        (State.EXTENDING, Event.EXTENDED): State.HELD,
        (State.EXTENDING, Event.SENT_BACK): State.HELD,
        (State.EXTENDING, Event.FAILED): State.HELD,
        (State.EXTENDING, Event.DOUBT): State.DOUBTED,
        (State.EXTENDING, Event.LOSE): State.LOST,
        (State.EXTENDING, Event.PARK): State.PARKED,
        (State.EXTENDING, Event.UNWANT): State.RELEASED,
        (State.DOUBTED, Event.SWITCH): State.HELD,
        (State.DOUBTED, Event.LOSE): State.LOST,
        (State.DOUBTED, Event.PARK): State.PARKED,
        (State.DOUBTED, Event.UNWANT): State.RELEASED,
        (State.REPLACING, Event.GRANTED): State.HELD,
        (State.REPLACING, Event.SENT_BACK): State.HELD,
        (State.REPLACING, Event.FAILED): State.HELD,
        (State.REPLACING, Event.PARK): State.PARKED,
        (State.REPLACING, Event.UNWANT): State.RELEASED,
        (State.RENEWING, Event.SENT_BACK): State.HELD,
        (State.RENEWING, Event.LOSE): State.LOST,
        (State.RENEWING, Event.PARK): State.PARKED,
        (State.RENEWING, Event.UNWANT): State.RELEASED,
        (State.LOST, Event.RETRY): State.WANTED,
        (State.LOST, Event.HOLD_OFF): State.HELD_OFF,
        (State.HELD_OFF, Event.RETRY): State.WANTED,
        (State.HELD_OFF, Event.PARK): State.PARKED,
        (State.HELD_OFF, Event.UNWANT): State.RELEASED,
        (State.PARKED, Event.RETRY): State.WANTED,
        (State.PARKED, Event.UNWANT): State.RELEASED,
    },
)

ALIVE: Final = frozenset({State.HELD, State.EXTENDING, State.DOUBTED, State.REPLACING, State.RENEWING})
"""States with a stream that has not ended yet."""
ENDING: Final = frozenset({State.HELD, State.DOUBTED})
"""Those of them in which its end is the end of the lease: no command is under way that gives it another."""
UNDER_WAY: Final = frozenset({State.GENERATING, State.EXTENDING, State.REPLACING, State.RENEWING})
"""States with a command at Google."""
