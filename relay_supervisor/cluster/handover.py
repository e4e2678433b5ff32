"""What a supervisor that commanded leaves to its next turn in the same process."""

from __future__ import annotations

from typing import NamedTuple


class Handover(NamedTuple):
    """It holds for whoever finds that nobody else has had the Lease since. Times are monotonic seconds."""

    session: str
    """Of the turn that has ended: whose Lease and state it was."""
    content: bytes
    """Its state, with what the API server has not taken."""
    unsure_until: float
    """Until when it did not know what Google had been sent; -inf: it did."""
    unsaved_at: float
    """When the last command was sent whose entry may be in `content` alone; -inf: there is none."""
