"""How long cameras are waited for: on a machine that has much else to do, and at the pace of Google's commands.

And how many a minute of Google's has room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from relay_supervisor.status.model import BudgetStatus

PATIENCE: Final = 150.0
"""Seconds for cameras to be live again, on a machine that has much else to do, where commands are not limited."""
PER_MINUTE: Final = 10
"""Commands that Google allows an account."""
MINUTE: Final = 61.0
"""Seconds after which a command does not count any more, with the relay's own margin."""
EACH: Final = 3
"""Most commands that a moved camera usually takes: a Generate that is aborted because the last stream is still there,
its Stop, and the Generate that follows."""


def patience(budget: BudgetStatus, cameras: int, moved: int) -> float:
    """Seconds for `moved` of `cameras` to be live again: so many more as their commands take beside all extensions, and
    after the present minute.
    """
    extensions = cameras / budget.capacity if budget.capacity else 0.0
    left = max(1.0, budget.limit * (1.0 - extensions))
    return PATIENCE + MINUTE * (moved * EACH + budget.used) / left


def at_once(lost: int, told: Sequence[dict[str, Any]], before: int, until: float) -> int:
    """How many of `lost` cameras the minute up to `until` (Unix seconds) had room for.

    `told` are all commands as Google has seen them; none but the first `before` and extensions are of other cameras. A
    Generate takes the places of the Stops and of the refused ones before it as well.
    """
    theirs = [one for one in told[before:] if not one["command"].startswith("Extend")]
    others = sum(until - MINUTE < one["time"] < until and one not in theirs for one in told)
    later = theirs[max(0, PER_MINUTE - others) :]
    return max(0, lost - sum(one["command"].startswith("Generate") and one["status"] == 200 for one in later))
