"""When cameras that wait for a stream get one: the queue itself, run ahead on a copy.

The order of commands has many rules: places that are kept, extensions that come first, stops that must be carried out
before. Whoever is told a time gets what those rules make of the commands that are queued now, with every call answered
at once; what is asked for later is not in it.
"""

from __future__ import annotations

import copy
import math
from typing import Final

from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.queue import CommandQueue
from relay_supervisor.google.quota.window import TICK

_HORIZON: Final = 900.0
"""Seconds ahead beyond which nothing is said."""
_MOST: Final = 1000
"""Most times that a copy is polled."""
_RENEWED: Final = 5.0
"""Seconds for which a forecast is good, as long as the same commands wait: it takes some 10 ms for 40 cameras."""
_LOOKED_FOR: Final = 1.0
"""The same where it does not tell what is asked."""


class Forecast:
    """Of one queue. Times are monotonic seconds."""

    def __init__(self, queue: CommandQueue) -> None:
        self._queue = queue
        self._made_at = -math.inf
        self._of: list[Command] = []
        self._times: dict[str, float] = {}

    def generate_at(self, camera: str, now: float) -> float:
        """When the camera's queued generate is sent; infinity where that is not known, or in the distant future."""
        of = list(self._queue)  # not their ids: those of commands that are gone are soon another's
        renewed = _RENEWED if camera in self._times else _LOOKED_FOR
        if not self._made_at <= now < self._made_at + renewed or of != self._of:
            self._made_at, self._of, self._times = now, of, self._run_ahead(now)
        return self._times.get(camera, math.inf)

    def _run_ahead(self, now: float) -> dict[str, float]:
        plan, times = copy.deepcopy(self._queue), dict[str, float]()
        plan.assume_answered(now)
        waiting = {command.camera for command in plan if command.verb is Verb.GENERATE}
        until, polls = now + _HORIZON, 0
        while waiting and now < until and polls < _MOST:
            polls += 1
            if (command := plan.poll(now)) is not None:
                plan.answered(command)
                if command.ticket is not None:
                    plan.budget.answered(command.ticket, now)
                if command.verb is Verb.GENERATE:
                    waiting.discard(command.camera)
                    times[command.camera] = now
            elif (deadline := plan.next_deadline(now)) is not None:
                now = max(deadline, now + TICK)
            else:
                break
        return times
