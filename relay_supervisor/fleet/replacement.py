"""Replacing a worker while it runs: predecessor and successor, as a table of the pair.

Rules:

1. The successor is launched while the predecessor plays. Google serves a stream to one client at a time, so the
   successor cannot play before the predecessor has released it; but it is up by that moment, and the picture pauses
   only while it connects.

2. While the successor is PREPARING, the predecessor is the camera's worker. A successor that ends before its hello is
   DROPPED, and the picture is not affected.

3. With the successor's hello the predecessor is asked to stop: HANDING OVER. When it has ended, for whatever reason,
   the successor is the camera's worker: PROMOTED. The same happens when the predecessor dies while the successor
   prepares: there is no third process.

4. A successor that ends while the predecessor is stopping is DROPPED, too. The predecessor then ends like one that was
   stopped and is wanted again.

5. Stopping the camera stops both. Whichever ends first moves the pair as above; there is no special case.
"""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

from relay_common.fsm import Machine, Table

S = TypeVar("S")


class PairState(enum.Enum):
    """States of a replacement."""

    PREPARING = "preparing"
    """The successor has not said hello yet."""
    HANDING_OVER = "handing over"
    """The successor is up; the predecessor is stopping."""
    PROMOTED = "promoted"
    """The successor is the camera's worker."""
    DROPPED = "dropped"
    """The successor has ended; the predecessor is the camera's worker as before."""


class PairEvent(enum.Enum):
    """Events of the pair."""

    HELLO = "hello"
    """From the successor."""
    SUCCESSOR_ENDED = "successor ended"
    PREDECESSOR_ENDED = "predecessor ended"


REPLACEMENT_TABLE: Table[PairState, PairEvent] = Table(
    "replacement",
    PairState.PREPARING,
    {
        (PairState.PREPARING, PairEvent.HELLO): PairState.HANDING_OVER,
        (PairState.PREPARING, PairEvent.SUCCESSOR_ENDED): PairState.DROPPED,
        (PairState.PREPARING, PairEvent.PREDECESSOR_ENDED): PairState.PROMOTED,
        # A worker says hello again when the bus is back.
        (PairState.HANDING_OVER, PairEvent.HELLO): PairState.HANDING_OVER,
        (PairState.HANDING_OVER, PairEvent.SUCCESSOR_ENDED): PairState.DROPPED,
        (PairState.HANDING_OVER, PairEvent.PREDECESSOR_ENDED): PairState.PROMOTED,
    },
)


class Replacement(Generic[S]):
    """The two slots of a camera whose worker is being replaced."""

    def __init__(self, predecessor: S, successor: S) -> None:
        self.predecessor, self.successor = predecessor, successor
        self.machine: Machine[PairState, PairEvent] = Machine(REPLACEMENT_TABLE)

    def fire(self, event: PairEvent) -> PairState:
        """Make the table's move for `event`; returns the new state."""
        return self.machine.fire(event)
