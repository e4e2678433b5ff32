"""How long cameras are waited for: on a machine that has much else to do, and at the pace of Google's commands."""

from __future__ import annotations

from typing import Final

from relay_supervisor.status.model import BudgetStatus

PATIENCE: Final = 150.0
"""Seconds for cameras to be live again, on a machine that has much else to do, where commands are not limited."""
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
