"""Whether a worker that is silent hangs, or nothing is heard of its whole node: for the words that people read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from relay_supervisor.fleet.slot import Slot

UNHEARD: Final = 2.5
"""Seconds without a word of any worker of a node from which the node counts as silent; each speaks every second."""


def silent_node(slot: Slot, slots: Collection[Slot], now: float) -> str:
    """That nothing is heard of the node of a silent worker, of all `slots`; "" where it may be the worker's own fault.

    So it is of the only worker of a node, unless others that were there have just been lost with it.
    """
    where = slot.process.where if slot.process is not None else ""
    if not where:
        return ""
    words = f"nothing is heard of node {where}"
    there = [one for one in slots if one.process is not None and one.process.where == where]
    if any(now - one.seen_at <= UNHEARD for one in there):
        return ""
    lost = any(one.node_failed and one.ended_by == words and not one.running for one in slots)
    return words if len(there) > 1 or lost else ""
