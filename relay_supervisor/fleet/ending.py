"""How a worker is ended: asked, then made to, finally given up; a plan with a time for each step.

A worker asked to stop gets its time; then its launcher asks it to end (SIGTERM), then ends it (SIGKILL), repeatedly. A
hung one is first made to dump its stacks. The kernel may keep even a killed process for a long time (blocked on a disk
that does not respond), and a node may not answer: after `GIVE_UP_AFTER` more seconds the worker is abandoned, so that
its camera gets another one.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from typing import Final

from relay_supervisor.fleet.launcher import Handle

log = logging.getLogger(__name__)

DUMP_TIME: Final = 0.3
TERM_TIME: Final = 1.0
"""Seconds between the steps of taking a hung worker down: stack dump, request to end, end."""
KILL_AGAIN: Final = 5.0
GIVE_UP_AFTER: Final = 30.0
"""Seconds from the first attempt to end it until a worker that still exists is given up."""


class Step(enum.Enum):
    """One step in ending a worker."""

    DUMP = "dump"
    """Have it dump its threads' stacks."""
    TERM = "term"
    KILL = "kill"
    GIVE_UP = "give up"
    """Stop watching it."""


class Termination:
    """The remaining steps and the time of each; see `of_asked` and `of_hung`. Times are on the fleet's clock."""

    def __init__(self, steps: list[tuple[float, Step]]) -> None:
        self._steps = steps

    @classmethod
    def of_asked(cls, now: float, within: float) -> Termination:
        """For a worker that was asked at `now` to stop in `within` seconds."""
        return cls([(now + within, Step.TERM), *_kills(now + within + TERM_TIME)])

    @classmethod
    def of_hung(cls, now: float) -> Termination:
        """For a worker that no longer responds."""
        return cls([(now, Step.DUMP), (now + DUMP_TIME, Step.TERM), *_kills(now + DUMP_TIME + TERM_TIME)])

    @classmethod
    def of_hung_elsewhere(cls, now: float) -> Termination:
        """For one on another machine: nobody can have it dump its stacks, and its engine grants it time of its own.

        Kubelet gives a container two seconds even if its Pod is deleted by force, so it is asked, then ended at once.
        """
        return cls([(now, Step.TERM), *_kills(now)])

    @property
    def next_at(self) -> float:
        """When the next step is due."""
        return self._steps[0][0]

    def due(self, now: float) -> Step | None:
        """The step that is due, returned once; one at a time, so that each can take effect before the next."""
        if len(self._steps) and self._steps[0][0] <= now:
            at, step = self._steps.pop(0)
            self.put_off(now - at)
            return step
        return None

    def put_off(self, seconds: float) -> None:
        """Postpone every step by `seconds`: the supervisor was suspended, or late."""
        self._steps = [(at + seconds, step) for at, step in self._steps]


def _kills(first: float) -> list[tuple[float, Step]]:
    times = int(GIVE_UP_AFTER / KILL_AGAIN)
    return [(first + number * KILL_AGAIN, Step.KILL) for number in range(times)] + [
        (first + GIVE_UP_AFTER, Step.GIVE_UP)
    ]


def log_stacks(handle: Handle, context: Mapping[str, str]) -> None:
    """Log what a hung worker's threads were doing, as far as it could tell."""
    try:
        text = handle.dumped()
    except OSError as error:
        log.warning("the stacks of the hung worker cannot be read: %s", error.strerror, extra=dict(context))
        return
    if text:
        log.error("stacks of the hung worker:\n%s", text, extra=dict(context))
